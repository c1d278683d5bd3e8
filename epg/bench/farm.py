"""The farm without lifetimes: the real master, messages, journal and checkpoint, simulated workers.

A rank plays many workers: it answers each chunk when its time is over. What the master does is what
it does in a run.
"""

from __future__ import annotations

import pickle
import resource
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from epg.chunk import Chunk, Evaluator, Outcome, Returns
from epg.config import Config
from epg.farm.journal import Journal
from epg.farm.member import Member
from epg.farm.mpi import MASTER, POLL_SECONDS, MpiFarm, abort_on_error, connect
from epg.farm.worker import ignoring_signals, receive
from epg.run import RunDirectory
from epg.seeds import Purpose
from epg.training import Training

if TYPE_CHECKING:
    from mpi4py import MPI

PLAYERS = 2
"""Ranks that play the workers."""


@dataclass(frozen=True)
class Load:
    """What the farm is given."""

    workers: int
    pairs: int
    seconds: float
    """that each chunk, of one pair, takes"""
    generations: int

    def config(self) -> Config:
        """EPG's loss for dir-hopper: φ of 10,000."""
        evolution = {"pairs": self.pairs, "generations": self.generations}
        never = {"every": 10**6, "lifetimes": 2}
        return Config.model_validate(
            {
                "task": "dir-hopper",
                "farm": {"chunk": 1},
                "evolution": evolution,
                "validation": never,
            }
        )


@dataclass(frozen=True)
class Found:
    """What came of it, medians over generations but the first."""

    workers: int
    pairs: int
    phi: int
    generation_seconds: float
    chunks_per_s: float
    busy: float
    """share of the workers' time that went into chunks"""
    master_share: float
    """share of a generation in which the master computed"""
    saving_share: float
    """share of a generation that went into journal and checkpoint"""
    bytes_per_generation: int
    """of all messages"""
    master_memory_mb: float

    def table(self) -> str:
        """For people."""
        return (
            f"{self.workers} simulated workers, {self.pairs} pairs, φ of {self.phi}: a generation "
            f"takes {self.generation_seconds:.2f} s, {self.chunks_per_s:,.0f} chunks/s, workers "
            f"{100 * self.busy:.1f} % busy, master {100 * self.master_share:.0f} % busy with "
            f"{self.master_memory_mb:,.0f} MB, messages {self.bytes_per_generation / 1e6:.1f} MB, "
            f"journal and checkpoint {100 * self.saving_share:.2f} % of the time"
        )


class Timed:
    """The seconds that went into a function so far."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add what the body takes."""
        begun = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - begun


class TimedJournal(Journal):
    """The journal, with a watch on every append."""

    saving = Timed()

    def append(self, outcomes: Iterable[Outcome]) -> None:
        with self.saving.running():
            super().append(outcomes)


class TimedTraining(Training):
    """A run, with the same watch on everything that is saved after a generation."""

    def _save(self, generation: int) -> None:
        with TimedJournal.saving.running():
            super()._save(generation)


def run(load: Load) -> Found | None:
    """The master's findings; None on the ranks that play. To be started by mpirun."""
    evaluator = Evaluator(load.config())
    world, _ = connect()
    with abort_on_error(world):
        me = Member.of(evaluator.config, world.rank)
        if world.rank != MASTER:
            with ignoring_signals():
                world.send(me, MASTER)
                _play(world, load.seconds)
                world.send(None, MASTER)
            return None
        per_rank = load.workers // (world.size - 1)
        with MpiFarm(world, per_rank) as farm, tempfile.TemporaryDirectory() as folder:
            farm.meet(me)
            return _lead(load, evaluator, farm, Path(folder) / "run")


def _lead(load: Load, evaluator: Evaluator, farm: MpiFarm, folder: Path) -> Found:
    config = evaluator.config
    phi = evaluator.genome.draw(config.seed, zero_output=False)
    directory = RunDirectory(folder, config)
    directory.journal = TimedJournal(folder / "journal.jsonl", config.hash(), {})
    training = TimedTraining(config, evaluator, farm, directory, phi)
    walls, computing, saving = [], [], []
    with directory.held():
        directory.begin()
        directory.start_metrics(0)
        for _ in range(load.generations):
            started, busy = time.perf_counter(), time.process_time()
            saved = TimedJournal.saving.seconds
            training.advance()
            walls.append(time.perf_counter() - started)
            computing.append(time.process_time() - busy)
            saving.append(TimedJournal.saving.seconds - saved)
    wall = float(np.median(walls[1:] or walls))
    one = Chunk(Purpose.TRAINING, 0, 0, 1)
    answer = len(pickle.dumps((0, _returns(one, load.seconds, np.random.default_rng(0)))))
    asked = len(pickle.dumps((0, None, one)))
    return Found(
        workers=farm.workers,
        pairs=load.pairs,
        phi=len(phi),
        generation_seconds=wall,
        chunks_per_s=load.pairs / wall,
        busy=load.pairs * load.seconds / (wall * farm.workers),
        master_share=float(np.median(computing[1:] or computing)) / wall,
        saving_share=float(np.median(saving[1:] or saving)) / wall,
        bytes_per_generation=load.pairs * (answer + asked)
        + min(farm.workers, load.pairs) * phi.nbytes,
        master_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def _play(world: MPI.Intracomm, seconds: float) -> None:
    """Many workers on one rank: each answers its chunk after so many seconds.

    Answers are made while no message waits, so that the workers do not wait for one another.
    """
    rng = np.random.default_rng(0)
    under_way: deque[tuple[float, int, Chunk]] = deque()
    made: deque[Returns] = deque()
    while True:
        if world.iprobe(source=MASTER):
            order = receive(world)
            if order is None:
                return
            worker, _, chunk, _ = order
            under_way.append((time.perf_counter() + seconds, worker, chunk))
        elif under_way and under_way[0][0] <= time.perf_counter():
            _, worker, chunk = under_way.popleft()
            returns = made.popleft() if made else _returns(chunk, seconds, rng)
            world.send((worker, returns), MASTER)
        elif len(made) < len(under_way):
            made.append(_returns(under_way[len(made)][2], seconds, rng))
        else:
            time.sleep(POLL_SECONDS)


def _returns(chunk: Chunk, seconds: float, rng: np.random.Generator) -> Returns:
    signs = 2 if chunk.purpose == Purpose.TRAINING else 1
    nothing = np.zeros(chunk.count)
    fitness = rng.normal(size=(chunk.count, signs))
    return Returns(chunk, fitness, nothing, nothing, steps=0, exploded=0, seconds=seconds)
