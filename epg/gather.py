"""The returns of a generation, come what may: journaled, retried, and in time."""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from epg.chunk import Center, Chunk, Failure, Outcome, Returns, cut
from epg.config import Config
from epg.errors import RunError
from epg.farm import Farm
from epg.log import logger
from epg.run import RunDirectory
from epg.seeds import Purpose

ATTEMPTS = 3
"""A pair whose chunk has failed so often is invalid."""
MOST_INVALID = 0.1
"""Share of a generation's pairs that may be invalid."""
REMEMBERED = 1000
"""Chunks whose seconds make the median."""


@dataclass
class Harvest:
    """What came of the chunks of one purpose."""

    returns: list[Returns] = field(default_factory=list)
    """in the order of pairs, once all are there"""
    failures: Counter[int] = field(default_factory=Counter)
    """of each pair, its number"""
    lived: set[int] = field(default_factory=set)
    """pairs with returns"""

    def take(self, outcome: Outcome) -> None:
        """Add what became of a chunk."""
        if isinstance(outcome, Failure):
            self.failures.update(outcome.chunk.pairs)
        elif self.lived.isdisjoint(outcome.chunk.pairs):  # nothing counts twice
            self.lived.update(outcome.chunk.pairs)
            self.returns.append(outcome)

    @property
    def valid(self) -> list[int]:
        """Pairs with returns, as these are ordered."""
        return [pair for returns in self.returns for pair in returns.chunk.pairs]

    @property
    def invalid(self) -> list[int]:
        """Pairs that are given up."""
        often = (pair for pair, times in self.failures.items() if times >= ATTEMPTS)
        return sorted(pair for pair in often if pair not in self.lived)


class Gatherer:
    """Gets a generation's returns from the journal and the farm."""

    def __init__(self, config: Config, farm: Farm, directory: RunDirectory) -> None:
        self._config = config
        self._farm = farm
        self._directory = directory
        self.typical_seconds = 0.0
        """of a chunk, as long as none has ended; 0 if that is not known"""
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)

    def gather(
        self,
        center: Center,
        purposes: Sequence[Purpose],
        advance: Callable[[int], None],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> dict[Purpose, Harvest]:
        """Returns of all chunks: those in the journal, and the rest from the farm.

        What fails is tried again when all else is done. `advance` is told the steps of what comes;
        `meanwhile` is done, again and again, while none comes.
        Raises `RunError` when too much is invalid.
        """
        harvests = {purpose: Harvest() for purpose in purposes}
        for outcome in self._directory.journal.read(center.generation):
            self._take(harvests, outcome)
        while True:
            if Purpose.TRAINING in harvests:
                self._stop_if_hopeless(harvests[Purpose.TRAINING], center.generation)
            missing = [
                chunk
                for purpose, harvest in harvests.items()
                for chunk in self._cut(purpose, center.generation, harvest)
            ]
            if not missing:
                break
            for arrived in self._farm.evaluate(center, missing, self.limit):
                if not arrived:
                    meanwhile()
                    continue
                self._directory.lock.check()
                self._directory.journal.append(arrived)
                for outcome in arrived:
                    self._take(harvests, outcome)
                    if isinstance(outcome, Returns):
                        advance(outcome.steps)
                    else:
                        self._report(outcome, harvests[outcome.chunk.purpose])
        for harvest in harvests.values():
            harvest.returns.sort(key=lambda returns: returns.chunk.first)
        return harvests

    @property
    def limit(self) -> float:
        """Seconds after which a chunk is given up."""
        farm = self._config.farm
        typical = statistics.median(self._seconds) if self._seconds else self.typical_seconds
        return max(farm.least_deadline, farm.deadline * typical)

    def _take(self, harvests: dict[Purpose, Harvest], outcome: Outcome) -> None:
        chunk = outcome.chunk
        if chunk.purpose in harvests:
            harvests[chunk.purpose].take(outcome)
        if isinstance(outcome, Returns):
            self._seconds.append(outcome.seconds / self._config.threads)

    def _cut(self, purpose: Purpose, generation: int, harvest: Harvest) -> Iterator[Chunk]:
        """Chunks of what is neither done nor given up."""
        config = self._config
        training = purpose == Purpose.TRAINING
        total = config.evolution.pairs if training else config.validation.lifetimes
        size = config.farm.chunk if training else 2 * config.farm.chunk
        known = {*harvest.lived, *harvest.invalid}
        for first, count in cut(total, size, known, least=1 if training else 2):
            yield Chunk(purpose, generation, first, count)

    def _report(self, failure: Failure, harvest: Harvest) -> None:
        chunk = failure.chunk
        logger.error("%s failed: %s", chunk, failure.why)
        times = max(harvest.failures[pair] for pair in chunk.pairs)
        what = "tried again" if times < ATTEMPTS else "invalid: left out"
        print(
            f"generation {chunk.generation + 1}, {chunk.purpose.name.lower()}, pairs {chunk.first} "
            f"to {chunk.first + chunk.count - 1} failed ({times} of {ATTEMPTS}; {what}): "
            f"{failure.why.strip().splitlines()[-1]}",
            flush=True,
        )

    def _stop_if_hopeless(self, harvest: Harvest, generation: int) -> None:
        invalid, pairs = len(harvest.invalid), self._config.evolution.pairs
        if invalid > MOST_INVALID * pairs:
            self._directory.journal.forget_failures(generation)  # once mended, they are tried anew
            raise RunError(
                f"{self._directory.path}: {invalid} of {pairs} pairs of generation "
                f"{generation + 1} are invalid, more than a tenth; log/ says why they failed; once "
                "that is mended, the same command goes on"
            )
