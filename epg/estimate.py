"""What a run will cost, said before it starts: steps, time, memory."""

from __future__ import annotations

import math
import resource
from dataclasses import dataclass

from epg.chunk import Center, Chunk, Evaluator, Failure
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

    def show(self) -> None:
        """Print it, on one line."""
        print(
            f"to do: {self.generations} generations, {self.steps:,} environment steps, about "
            f"{duration(self.seconds)} on {self.workers} worker{'s' * (self.workers > 1)} with "
            f"{self.worker_megabytes:,.0f} MB each",
            flush=True,
        )


def estimate(evaluator: Evaluator, workers: int, generation: int) -> Estimate | None:
    """Time a few updates of one chunk, then multiply. None, with a word of why, if that fails."""
    config = evaluator.config
    evolution, lifetime, validation = config.evolution, config.lifetime, config.validation
    pairs = min(config.farm.chunk, evolution.pairs)
    chunk = Chunk(Purpose.ESTIMATE, 0, 0, 2 * pairs * evolution.mdps_per_pair)
    phi = evaluator.genome.draw(config.seed, zero_output=False).numpy()
    center = Center(0, phi, evolution.sigma.at(0), config.alpha.at(0))

    def time_chunk(updates: int) -> float | None:
        short = lifetime.model_copy(update={"updates": updates})
        probe = Evaluator(config.model_copy(update={"lifetime": short}))
        outcome = probe.attempt(center, chunk, config.farm.least_deadline)
        if isinstance(outcome, Failure):
            logger.error("%s failed: %s", chunk, outcome.why)
            last = outcome.why.strip().splitlines()[-1]
            print(f"no estimate of the run's cost, its trial failed: {last}", flush=True)
            return None
        return outcome.seconds / config.threads

    if time_chunk(1) is None:  # the first is slow
        return None
    one, more = time_chunk(1), time_chunk(1 + PROBE_UPDATES)
    if one is None or more is None:
        return None
    per_update = max(0.0, more - one) / PROBE_UPDATES
    seconds_per_chunk = one + per_update * (lifetime.updates - 1)

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
        worker_megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        chunk_seconds=seconds_per_chunk,
    )


def duration(seconds: float) -> str:
    """For people: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
