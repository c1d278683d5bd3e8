"""Where chunks are raised: a chunk goes in, returns come out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from epg.chunk import Center, Chunk, Outcome
from epg.farm.member import Member


class Farm(Protocol):
    """Some place with workers."""

    workers: int
    members: Sequence[Member]
    """all processes that take part, the master first"""

    def evaluate(
        self, center: Center | None, chunks: Sequence[Chunk], limit: float
    ) -> Iterator[list[Outcome]]:
        """What became of all chunks, in any order, those that ended together at a time.

        None at a time where the caller may do something else meanwhile. A chunk that raises an
        exception or takes longer than `limit` seconds fails. Raises `SaveRequested` when SIGUSR1
        came, after what is quick has ended.
        """
