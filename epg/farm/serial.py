"""The farm in one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from epg.chunk import Center, Chunk, Outcome, Raiser
from epg.farm.member import Member


class SerialFarm:
    """Raises one chunk after the other, here."""

    workers = 1

    def __init__(self, raiser: Raiser) -> None:
        self._raiser = raiser
        self.members: Sequence[Member] = (Member.of(raiser.work, rank=0),)

    def evaluate(
        self, center: Center | None, chunks: Sequence[Chunk], limit: float
    ) -> Iterator[list[Outcome]]:
        """One at a time."""
        for chunk in chunks:
            yield [self._raiser.attempt(center, chunk, limit)]
