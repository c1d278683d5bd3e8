"""The farm over MPI, a worker's side: units run in a process of their own.

So the rank itself is always there to say what became of a unit: that it raised an exception, that
its process died, or that it was given up at its deadline.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from epg.errors import INTERRUPTIONS, ForeseenError
from epg.farm.gpu import gpu_of
from epg.farm.isolated import IsolatedRunner, KilledError
from epg.farm.mpi import (
    END,
    LONGEST_POLL_SECONDS,
    MASTER,
    POLL_SECONDS,
    BrokenJobError,
    MpiFarm,
    abort_on_error,
    connect,
    stop_without_launcher,
)
from epg.farm.rank import RankInfo
from epg.farm.work import Runner, Shared, Unit
from epg.process.launcher import launched_rank, launched_size
from epg.process.log import open_log
from epg.process.signals import ENDS

if TYPE_CHECKING:
    from mpi4py import MPI

Order = tuple[int, Shared | None, Unit, float]
"""A worker's number, what its step shares unless it has that, a unit, and its seconds at most."""


def work(runner: Runner, log: Path) -> None:
    """Run units until the master sends home, or, if that has failed, raise `SystemExit`.

    log: a folder; nothing is written there before the master sends work, and so approves the run.
    """
    rank = launched_rank()
    isolated = IsolatedRunner(runner, lambda: open_log(log, rank))
    try:
        world, seat = connect()
        isolated.gpu = gpu_of(seat, runner.work.device)
        with abort_on_error(world), ignoring_signals():
            world.send(RankInfo.of(runner.work, world.rank, isolated.gpu), MASTER)
            try:
                order = receive(world)
                if not isinstance(order, str):
                    open_log(log, rank)
                while not isinstance(order, str):
                    order = _obey(world, isolated, order) or receive(world)
            except KilledError as error:
                raise BrokenJobError(
                    f"{error}; most often that is the kernel, for want of memory: in a run, a "
                    "smaller farm.chunk needs less"
                ) from None
            world.send(None, MASTER)  # goodbye
        if order == END:
            raise SystemExit(0)
    finally:
        isolated.stop()


def _obey(world: MPI.Intracomm, isolated: IsolatedRunner, order: Order) -> str:
    """Run a unit and answer; what the master says if it sends home in the meantime, else empty."""
    worker, newer, unit, limit = order
    isolated.begin(newer, unit)
    begun = time.monotonic()
    while (outcome := isolated.outcome(LONGEST_POLL_SECONDS)) is None:
        stop_without_launcher()
        if world.iprobe(source=MASTER):
            told: str = world.recv(source=MASTER)
            return told
        if time.monotonic() - begun > limit:
            outcome = isolated.give_up(f"took longer than {limit:.3g} s")
            break
    world.send((worker, outcome), MASTER)
    return ""


def receive(world: MPI.Intracomm) -> Order | str:
    """The next order of the master; HOME or END to go."""
    while not world.iprobe(source=MASTER):
        stop_without_launcher()
        time.sleep(POLL_SECONDS)
    order: Order | str = world.recv(source=MASTER)
    return order


@contextmanager
def failing_together() -> Iterator[None]:
    """A rank that fails before MPI is up takes the others along, who would wait for it there."""
    try:
        yield
    except INTERRUPTIONS:
        raise
    except BaseException as error:
        if launched_size() == 1 or "mpi4py.MPI" in sys.modules:
            raise
        world, _ = connect()
        with abort_on_error(world):
            if world.rank == MASTER:
                with MpiFarm(world):
                    raise
            if not isinstance(error, ForeseenError):
                raise
            with ignoring_signals():
                world.send(str(error), MASTER)
                receive(world)
                world.send(None, MASTER)
        raise


@contextmanager
def ignoring_signals() -> Iterator[None]:
    """Launchers pass them to all ranks, but it is the master that ends a run."""
    if threading.current_thread() is not threading.main_thread():  # Python cannot tell them
        yield
        return
    before = [signal.signal(number, signal.SIG_IGN) for number in ENDS]
    try:
        yield
    finally:
        for number, handler in zip(ENDS, before, strict=True):
            signal.signal(number, handler)
