"""What lives in an evaluation: a way of learning on a task, as a farm takes it.

Shape letters: n lifetimes, U updates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from epg.agents.base import Agents
from epg.config import Setup
from epg.errors import RunError
from epg.farm import Farm
from epg.farm.work import Outcome, Result, Runner, Shared, Unit, Work, Workload
from epg.lifetime import live
from epg.methods.base import BATCH, Algorithm
from epg.runs.collect import Collected, Collector
from epg.runs.journal import Journal
from epg.runs.lock import Lock
from epg.seeds import LifetimeSeeds, Purpose
from epg.tasks.base import Task, draw_mdps


@dataclass(frozen=True)
class Entry:
    """One way of learning on one task. Lifetime i has the same MDP and chance in every entry."""

    task: Task
    method: str
    about: str
    """the settings that tell it apart"""
    setup: Setup
    agents: Callable[[LifetimeSeeds], Agents]
    """fresh ones, for P seeds"""
    batch: int = BATCH
    """lifetimes in a unit, at most"""


@dataclass(frozen=True)
class EntryResult:
    """What n lifetimes of an entry came to."""

    final_return: np.ndarray
    """[n]; NaN where learning failed"""
    episode_returns: np.ndarray
    """[n, U], as `LifetimeResult` has them"""
    steps: int
    """environment steps, final episodes included"""
    seconds: float
    """core-seconds"""


def entry_of(
    method: str, algorithm: Algorithm, task: Task, setup: Setup, remark: str = ""
) -> Entry:
    """An algorithm on a task; `setup` has its settings."""
    setup = algorithm.adapt(setup)
    return Entry(
        task, method, algorithm.about(setup) + remark, setup,
        lambda seeds: algorithm.agents(task, setup, seeds), algorithm.batch,
    )  # fmt: skip


class EntryRunner(Runner):
    """Runs lifetimes of entries."""

    def __init__(self, work: Work, entries: Sequence[Entry], seed: int, purpose: Purpose) -> None:
        super().__init__(work)
        self.entries = entries
        self.seed = seed
        self.purpose = purpose

    def run(self, shared: Shared | None, unit: Unit) -> Result:
        entry = self.entries[unit.entry]
        seeds = LifetimeSeeds.of(self.seed, self.purpose, unit.first, unit.count)
        mdps, agents = draw_mdps(entry.task, seeds), entry.agents(seeds)
        lived = live(entry.task, mdps, agents, seeds, entry.setup.lifetime)
        arrays = {"final_return": lived.final_return, "episode_returns": lived.episode_returns}
        return Result(unit, arrays, lived.steps, lived.exploded)

    def collect(
        self, farm: Farm, lifetimes: int, journal: Journal, lock: Lock
    ) -> list[EntryResult]:
        """All lifetimes of all entries: those in the journal, and the rest from the farm.

        lock: held, on the journal's folder. Raises `RunError` if some raised an exception, with all
        others in the journal, or if another start has taken the folder over.
        """
        collector = Collector(farm, journal, lock, self.work.threads)
        workloads = self._workloads(farm.workers, lifetimes)
        parts = collector.collect(None, workloads, self._report)
        failures = [failure for part in parts for failure in part.reasons]
        if failures:
            entry = self.entries[failures[0].unit.entry]
            raise RunError(
                f"{entry.task.name}, {entry.method}: {failures[0].reason} "
                f"({len(failures)} units failed; the same command tries them again)"
            )
        by_entry = {part.workload.entry: part for part in parts}
        return [_result(by_entry[number], lifetimes) for number in range(len(self.entries))]

    def _workloads(self, workers: int, lifetimes: int) -> list[Workload]:
        """A workload an entry, those that take the longest first.

        Large units are quicker by the lifetime; they are cut where workers would have nothing to
        do.
        """
        parts = -(-2 * workers // len(self.entries))
        share = -(-lifetimes // parts) if workers > 1 else lifetimes
        order = sorted(range(len(self.entries)), key=lambda number: self.entries[number].batch)
        return [
            Workload(self.purpose, 0, lifetimes, min(self.entries[number].batch, share), 2, number)
            for number in order
        ]

    def _report(self, outcome: Outcome, collected: Collected) -> None:
        if isinstance(outcome, Result):
            entry = self.entries[outcome.unit.entry]
            done, total = len(collected.done), collected.workload.total
            print(f"{entry.task.name}, {entry.method}: {done} of {total} lifetimes", flush=True)


def _result(collected: Collected, lifetimes: int) -> EntryResult:
    return EntryResult(
        final_return=collected.array("final_return")[:lifetimes],
        episode_returns=collected.array("episode_returns")[:lifetimes],
        steps=sum(r.steps for r in collected.results),
        seconds=sum(r.seconds for r in collected.results),
    )
