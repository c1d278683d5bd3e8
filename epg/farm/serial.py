"""The farm in one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from epg.chunk import Center, Chunk, Evaluator, Outcome
from epg.farm.member import Member


class SerialFarm:
    """Raises one chunk after the other, here."""

    workers = 1

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self.members: Sequence[Member] = (Member.of(evaluator.config, rank=0),)

    def evaluate(
        self, center: Center, chunks: Sequence[Chunk], limit: float
    ) -> Iterator[list[Outcome]]:
        """One at a time."""
        for chunk in chunks:
            yield [self._evaluator.attempt(center, chunk, limit)]
