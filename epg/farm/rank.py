"""What a process is that takes part in a run: all ranks must be alike."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from epg.errors import UserError
from epg.farm.work import Work
from epg.process.machine import cpu_model
from epg.version import __version__


@dataclass(frozen=True)
class RankInfo:
    """A rank, as it presents itself to the master."""

    rank: int
    host: str
    cpu: str
    version: str
    """of the package"""
    settings: str
    """the configuration, as YAML"""
    gpu: str | None = None
    """its own, as CUDA calls it"""

    @staticmethod
    def of(work: Work, rank: int, gpu: str | None = None) -> RankInfo:
        """This process."""
        return RankInfo(rank, platform.node(), cpu_model(), __version__, work.yaml(), gpu)

    def __str__(self) -> str:
        gpu = "" if self.gpu is None else f", GPU {self.gpu}"
        return f"rank {self.rank} is on {self.host}: {self.cpu}{gpu}"

    def refuse_unless_like(self, master: RankInfo) -> None:
        """Raise `UserError` if it would compute something else than the master expects."""
        place = f"rank {self.rank} on {self.host}"
        if self.version != master.version:
            raise UserError(
                f"{place}: found epg {self.version}, the master has {master.version}; install the "
                "same version on all nodes"
            )
        if self.settings != master.settings:
            lines = zip(self.settings.splitlines(), master.settings.splitlines(), strict=False)
            there, here = next(((a.strip(), b.strip()) for a, b in lines if a != b), ("", ""))
            raise UserError(f"{place}: found {there}, the master has {here}; start all ranks alike")
