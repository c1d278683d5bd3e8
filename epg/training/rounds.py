"""A step of a method whose members outlive it: many rounds on workers that keep what they have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from epg.farm import Farm
from epg.farm.mpi import BrokenJobError
from epg.farm.work import Failure, Shared
from epg.methods.base import Resident
from epg.process.log import logger
from epg.runs.collect import Collected


class Rounds:
    """The rounds of one start of a run; at the first, workers get the members."""

    def __init__(self, farm: Farm, limit: float) -> None:
        """limit: seconds that a unit of a round may take."""
        self._farm = farm
        self._limit = limit
        self._told = False

    def run(self, method: Resident, step: int, add_steps: Callable[[int], None]) -> Collected:
        """All rounds of a step; what came of the last one, with the costs of all.

        Raises `BrokenJobError` if a unit fails: its members are gone, but in the checkpoint.
        """
        workload = method.workload(step)
        steps: dict[int, int] = defaultdict(int)
        exploded: dict[int, int] = defaultdict(int)
        core_seconds: dict[int, float] = defaultdict(float)
        for number in range(method.rounds):
            collected = self._round(method, step, number)
            for result in collected.results:
                first = result.unit.first
                steps[first] += result.steps
                exploded[first] += result.exploded
                core_seconds[first] += result.core_seconds
                add_steps(result.steps)
            method.round(collected.results)
        firsts = [unit.first for unit in workload.units()]
        collected.results = [
            replace(
                result, steps=steps[first], exploded=exploded[first],
                core_seconds=core_seconds[first],
            )
            for first, result in zip(firsts, collected.results, strict=True)
        ]  # fmt: skip
        return collected

    def _round(self, method: Resident, step: int, number: int) -> Collected:
        arrays = method.shared(step) | {"round": np.array(number)}
        if not self._told:
            arrays |= method.members()
            self._told = True
        collected = Collected(method.workload(step), 1)
        units, shared = list(collected.workload.units()), Shared(step, arrays)
        for outcomes in self._farm.run(shared, units, self._limit, resident=True):
            for outcome in outcomes:
                if isinstance(outcome, Failure):
                    logger.error("%s failed: %s", outcome.unit, outcome.why)
                    raise BrokenJobError(
                        f"{outcome.unit} failed ({outcome.reason}), and its members are lost; the "
                        "same command goes on from the last checkpoint"
                    )
                collected.take(outcome)
        collected.results.sort(key=lambda result: result.unit.first)
        return collected
