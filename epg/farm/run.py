"""What a process is in a job: alone, its master, or one of its workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from epg.farm import Farm, mpi, worker
from epg.farm.rank import RankInfo
from epg.farm.serial import SerialFarm
from epg.farm.work import Runner
from epg.process.launcher import launched_rank, launched_size


def run_on_ranks(runner: Runner, log: Path, main: Callable[[Farm], None]) -> None:
    """Give `main` a farm: this process alone, or, on the master, the ranks of a launcher.

    On the other ranks, work for it; log: the folder in which they keep theirs.
    """
    if launched_size() == 1:
        main(SerialFarm(runner))
    elif launched_rank() == mpi.MASTER:
        world, _ = mpi.connect()
        with mpi.abort_on_error(world), mpi.MpiFarm(world) as farm:
            farm.meet(RankInfo.of(runner.work, mpi.MASTER))
            main(farm)
    else:
        worker.work(runner, log)
