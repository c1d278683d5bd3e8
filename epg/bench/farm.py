"""The farm without lifetimes: the real master, messages, journal and checkpoint, simulated workers.

A rank plays many workers: it answers each unit when its time is over. What the master does is what
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

from epg.config import Config
from epg.farm.mpi import MASTER, POLL_SECONDS, MpiFarm, abort_on_error, connect
from epg.farm.rank import RankInfo
from epg.farm.work import Outcome, Result, Unit
from epg.farm.worker import ignoring_signals, receive
from epg.methods.base import Method
from epg.runs.directory import RunDirectory
from epg.runs.journal import Journal
from epg.seeds import Purpose
from epg.training.loop import Training
from epg.training.runner import TrainingRunner

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
    """that each unit, of one pair, takes"""
    generations: int

    def config(self) -> Config:
        """EPG's loss for dir-hopper: φ of 10,000."""
        never = {"every": 10**6, "lifetimes": 2}
        return Config.model_validate(
            {
                "task": "dir-hopper",
                "farm": {"chunk": 1},
                "steps": self.generations,
                "method": {"name": "epg", "pairs": self.pairs},
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

    def _save(self, step: int) -> None:
        with TimedJournal.saving.running():
            super()._save(step)


def run(load: Load) -> Found | None:
    """The master's findings; None on the ranks that play. To be started by mpirun."""
    runner = TrainingRunner(load.config())
    world, _ = connect()
    with abort_on_error(world):
        me = RankInfo.of(runner.config, world.rank)
        if world.rank != MASTER:
            with ignoring_signals():
                world.send(me, MASTER)
                _play(world, load.seconds)
                world.send(None, MASTER)
            return None
        per_rank = load.workers // (world.size - 1)
        with MpiFarm(world, per_rank) as farm, tempfile.TemporaryDirectory() as folder:
            farm.meet(me)
            return _master(load, runner.method, farm, Path(folder) / "run")


def _master(load: Load, method: Method, farm: MpiFarm, folder: Path) -> Found:
    config, params = method.config, method.init()
    size = sum(tensor.numel() for tensor in params.values())
    directory = RunDirectory(folder, config, method.metrics, method.validated_as())
    directory.journal = TimedJournal(folder / "journal.jsonl", config.hash(), {})
    training = TimedTraining(method, farm, directory, params)
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
    one = Unit(Purpose.TRAINING, 0, 0, 1)
    answer = len(pickle.dumps((0, _result(one, load.seconds, np.random.default_rng(0)))))
    asked = len(pickle.dumps((0, None, one)))
    return Found(
        workers=farm.workers,
        pairs=load.pairs,
        phi=size,
        generation_seconds=wall,
        chunks_per_s=load.pairs / wall,
        busy=load.pairs * load.seconds / (wall * farm.workers),
        master_share=float(np.median(computing[1:] or computing)) / wall,
        saving_share=float(np.median(saving[1:] or saving)) / wall,
        bytes_per_generation=load.pairs * (answer + asked)
        + min(farm.workers, load.pairs) * 4 * size,
        master_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def _play(world: MPI.Intracomm, seconds: float) -> None:
    """Many workers on one rank: each answers its unit after so many seconds.

    Answers are made while no message waits, so that the workers do not wait for one another.
    """
    rng = np.random.default_rng(0)
    under_way: deque[tuple[float, int, Unit]] = deque()
    made: deque[Result] = deque()
    while True:
        if world.iprobe(source=MASTER):
            order = receive(world)
            if isinstance(order, str):
                return
            worker, _, unit, _ = order
            under_way.append((time.perf_counter() + seconds, worker, unit))
        elif under_way and under_way[0][0] <= time.perf_counter():
            _, worker, unit = under_way.popleft()
            result = made.popleft() if made else _result(unit, seconds, rng)
            world.send((worker, result), MASTER)
        elif len(made) < len(under_way):
            made.append(_result(under_way[len(made)][2], seconds, rng))
        else:
            time.sleep(POLL_SECONDS)


def _result(unit: Unit, seconds: float, rng: np.random.Generator) -> Result:
    nothing = np.zeros(unit.count)
    training = unit.purpose == Purpose.TRAINING
    fitness = rng.normal(size=(unit.count, 2) if training else unit.count)
    return Result(unit, {"fitness": fitness, "kl": nothing, "entropy": nothing}, seconds=seconds)
