"""Where the work is done: units go in, results come out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from epg.farm.rank import RankInfo
from epg.farm.work import Outcome, Shared, Unit


class Farm(Protocol):
    """Some place with workers."""

    workers: int
    ranks: Sequence[RankInfo]
    """all processes that take part, the master first"""

    def run(
        self, shared: Shared | None, units: Sequence[Unit], limit: float, resident: bool = False
    ) -> Iterator[list[Outcome]]:
        """What became of all units, in any order, those that ended together at a time.

        None at a time where the caller may do something else meanwhile. A unit that raises an
        exception or takes longer than `limit` seconds fails. Raises `SaveRequested` when SIGUSR1
        came, after what is quick has ended. resident: the same worker has the same unit each time.
        """
