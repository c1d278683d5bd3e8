"""Where chunks are raised: a chunk goes in, returns come out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from epg.chunk import Center, Chunk, Returns


class Farm(Protocol):
    """Some place with workers."""

    workers: int

    def evaluate(self, center: Center, chunks: Sequence[Chunk]) -> Iterator[list[Returns]]:
        """Returns of all chunks in any order, those that came in together at a time.

        None at a time where the caller may do something else meanwhile.
        """
