"""What a run will cost, said before it starts: steps, time, memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from epg.chunk import Center, Chunk, Evaluator, Failure, Returns
from epg.farm import Farm
from epg.log import logger
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
    chunk_seconds: float

    def line(self) -> str:
        """For people."""
        return (
            f"to do: {self.generations} generations, {self.steps:,} environment steps, about "
            f"{duration(self.seconds)} on {self.workers} worker{'s' * (self.workers > 1)} with "
            f"{self.worker_megabytes:,.0f} MB each"
        )


class TrialError(Exception):
    """The trial failed; one line says why."""


def estimate(farm: Farm, workers: int, evaluator: Evaluator, generation: int) -> Estimate:
    """Time a few updates of one chunk on a farm, then multiply. Raises `TrialError`.

    workers: that the run has; generation: how many are done.
    """
    config = evaluator.config
    evolution, lifetime, validation = config.evolution, config.lifetime, config.validation
    pairs = min(config.farm.chunk, evolution.pairs)
    count = 2 * pairs * evolution.mdps_per_pair
    phi = evaluator.genome.draw(config.seed, zero_output=False).numpy()
    center = Center(0, phi, evolution.sigma.at(0), config.alpha.at(0))

    def try_chunk(updates: int) -> Returns:
        chunk = Chunk(Purpose.ESTIMATE, 0, 0, count, updates)
        limit = config.farm.least_deadline
        [outcome] = [o for came in farm.evaluate(center, [chunk], limit) for o in came]
        if isinstance(outcome, Failure):
            logger.error("%s failed: %s", chunk, outcome.why)
            raise TrialError(outcome.why.strip().splitlines()[-1])
        return outcome

    try_chunk(1)  # the first is slow
    one, more = try_chunk(1), try_chunk(1 + PROBE_UPDATES)
    per_update = max(0.0, more.seconds - one.seconds) / PROBE_UPDATES
    seconds_per_chunk = (one.seconds + per_update * (lifetime.updates - 1)) / config.threads

    left = evolution.generations - generation
    chunks = math.ceil(evolution.pairs / pairs)
    validations = math.ceil(left / validation.every) + 1
    validation_chunks = math.ceil(validation.lifetimes / (2 * pairs))
    training_lifetimes = left * evolution.pairs * 2 * evolution.mdps_per_pair
    rounds = left * math.ceil(chunks / workers)
    rounds += validations * math.ceil(validation_chunks / workers)
    return Estimate(
        generations=left,
        steps=(training_lifetimes + validations * validation.lifetimes) * lifetime.steps,
        seconds=rounds * seconds_per_chunk,
        workers=workers,
        worker_megabytes=more.megabytes,
        chunk_seconds=seconds_per_chunk,
    )


def duration(seconds: float) -> str:
    """For people: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
