"""The farm in one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from epg.chunk import Center, Chunk, Evaluator, Returns


class SerialFarm:
    """Raises one chunk after the other, here."""

    workers = 1

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    def evaluate(self, center: Center, chunks: Sequence[Chunk]) -> Iterator[list[Returns]]:
        for chunk in chunks:
            yield [self._evaluator.evaluate(center, chunk)]
