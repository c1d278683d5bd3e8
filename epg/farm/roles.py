"""What a process is in a job: alone, its master, or one of its workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from epg.chunk import Raiser
from epg.farm import Farm, mpi, worker
from epg.farm.member import Member
from epg.farm.serial import SerialFarm
from epg.launch import launched_rank, launched_size


def take_part(raiser: Raiser, log: Path, lead: Callable[[Farm], None]) -> None:
    """`lead` a farm: one in this process, or as the master of the ranks that a launcher started.

    On the other ranks, work for it; log: the folder in which they keep theirs.
    """
    if launched_size() == 1:
        lead(SerialFarm(raiser))
    elif launched_rank() == mpi.MASTER:
        world, _ = mpi.connect()
        with mpi.abort_on_error(world), mpi.MpiFarm(world) as farm:
            farm.meet(Member.of(raiser.work, mpi.MASTER))
            lead(farm)
    else:
        worker.work(raiser, log)
