"""The farm in one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from epg.farm.rank import RankInfo
from epg.farm.work import Outcome, Runner, Shared, Unit


class SerialFarm:
    """Runs one unit after the other, here."""

    workers = 1

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.ranks: Sequence[RankInfo] = (RankInfo.of(runner.work, rank=0),)

    def run(
        self, shared: Shared | None, units: Sequence[Unit], limit: float, resident: bool = False
    ) -> Iterator[list[Outcome]]:
        """One at a time."""
        for unit in units:
            yield [self._runner.attempt(shared, unit, limit)]
