"""What a run will cost, said before it starts: steps, time, memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from epg.farm import Farm
from epg.farm.work import Failure, Result, Shared
from epg.methods.base import Method
from epg.methods.footprint import check_lifetimes
from epg.process.log import logger
from epg.process.progress import duration
from epg.seeds import Purpose

PROBE_UPDATES = 3


@dataclass(frozen=True)
class Estimate:
    """The cost of the generations still to come."""

    generations: int
    steps: int
    """environment steps of learning and validation, final episodes not counted"""
    seconds: float
    workers: int
    worker_megabytes: float
    unit_seconds: float

    def line(self) -> str:
        """For people."""
        return (
            f"to do: {self.generations} generations, {self.steps:,} environment steps, about "
            f"{duration(self.seconds)} on {self.workers} worker{'s' * (self.workers > 1)} with "
            f"{self.worker_megabytes:,.0f} MB each"
        )


def check_units(method: Method) -> None:
    """Raise `UserError` if a unit of training or validation is more than memory holds."""
    config = method.config
    unit = next(method.workload(0).units())
    validated = min(max(2, 2 * config.farm.chunk), config.validation.lifetimes)
    most = max(method.lifetimes(unit), validated)
    check_lifetimes(config.setup, method.task, most, method.shapes)


class TrialError(Exception):
    """The trial failed; one line says why."""


def estimate(farm: Farm, workers: int, method: Method, shared: Shared, done: int) -> Estimate:
    """Time a few updates of one unit on a farm, then multiply. Raises `TrialError`.

    workers: that the run has; shared: what units of its next step share; done: steps so far.
    """
    config = method.config
    lifetime, validation = config.lifetime, config.validation
    units = list(method.workload(0).units())

    def try_unit(updates: int) -> Result:
        unit = replace(units[0], purpose=Purpose.ESTIMATE, updates=updates)
        limit = config.farm.least_deadline
        [outcome] = [o for outcomes in farm.run(shared, [unit], limit) for o in outcomes]
        if isinstance(outcome, Failure):
            logger.error("%s failed: %s", unit, outcome.why)
            raise TrialError(outcome.reason)
        return outcome

    # seconds of a unit: those of its first update, and of each that follows
    try_unit(1)  # the first is slow
    one, more = try_unit(1), try_unit(1 + PROBE_UPDATES)
    per_update = max(0.0, more.seconds - one.seconds) / PROBE_UPDATES
    unit_seconds = one.seconds + per_update * (method.mean_updates - 1)
    validation_seconds = one.seconds + per_update * (lifetime.updates - 1)
    # rounds in which every worker has a unit
    left = config.steps - done
    validations = math.ceil(left / validation.every) + 1
    in_unit = method.lifetimes(units[0])
    validation_units = math.ceil(validation.lifetimes / in_unit)
    seconds = left * math.ceil(len(units) / workers) * unit_seconds
    seconds += validations * math.ceil(validation_units / workers) * validation_seconds
    updates = left * sum(map(method.lifetimes, units)) * method.mean_updates
    updates += validations * validation.lifetimes * lifetime.updates
    return Estimate(
        generations=left,
        steps=round(updates * lifetime.steps_per_update),
        seconds=seconds,
        workers=workers,
        worker_megabytes=more.megabytes,
        unit_seconds=unit_seconds,
    )
