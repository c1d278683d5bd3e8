"""The farm in one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from epg.chunk import Center, Chunk, Nursery, Returns


class SerialFarm:
    """Raises one chunk after the other, here."""

    workers = 1

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery

    def evaluate(self, center: Center, chunks: Sequence[Chunk]) -> Iterator[list[Returns]]:
        for chunk in chunks:
            yield [self._nursery.raise_chunk(center, chunk)]
