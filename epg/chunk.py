"""The unit of work: some antithetic pairs that live together as one batch.

Shape letters: S signs (+ and − in training; φ itself elsewhere), T MDPs per pair.
"""

from __future__ import annotations

import math
import resource
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from epg import tasks
from epg.config import Config
from epg.genome import genome_of
from epg.lifetime import live, ppo_of
from epg.log import logger
from epg.losses.mixture import Mixture
from epg.losses.temporal_conv import TemporalConvLoss
from epg.seeds import Fate, Fates, Purpose, Stream
from epg.signals import time_limit
from epg.tasks.base import Mdp, Task

LONGEST_WHY = 4000
"""Characters of a traceback that are kept, its last ones."""


@dataclass(frozen=True)
class Center:
    """What all chunks of a generation share: φ [size] float32, σ, and α of training."""

    generation: int
    phi: np.ndarray
    sigma: float
    alpha: float


@dataclass(frozen=True)
class Chunk:
    """Pairs `first`, …, `first + count − 1` of a generation, or that many lifetimes of one subject.

    In validation that is φ itself, with the same fates in every generation; in an evaluation, which
    has one generation, it is its subject with that number.
    """

    purpose: Purpose
    generation: int
    first: int
    count: int
    updates: int | None = None
    """U of its lifetimes, if not as configured"""
    subject: int = 0

    @property
    def pairs(self) -> range:
        """The numbers of its pairs."""
        return range(self.first, self.first + self.count)


@dataclass(frozen=True)
class Returns:
    """What came of a chunk."""

    chunk: Chunk
    fitness: np.ndarray
    """[pairs, S] mean over T MDPs of the task's score of the final return; NaN where learning
    failed"""
    kl: np.ndarray
    """[pairs] inner KL per update, mean over lifetimes"""
    entropy: np.ndarray
    """[pairs] entropy of the policy, nats, mean over updates and lifetimes"""
    steps: int
    """environment steps, final episodes included"""
    exploded: int
    """episodes that left the finite"""
    seconds: float
    """core-seconds it took"""
    megabytes: float = 0.0
    """the most memory that its process has had; not journaled"""
    episode_returns: np.ndarray | None = None
    """of an evaluation: [lifetimes, U], as `Lived` has them"""


@dataclass(frozen=True)
class Failure:
    """A chunk that nothing came of."""

    chunk: Chunk
    why: str
    """a traceback, or what became of its process; the last line says the most"""


Outcome = Returns | Failure


def draw_epsilon(seed: int, generation: int, pair: int, size: int) -> np.ndarray:
    """The unit perturbation of a pair, [size] float32: the same on every machine that draws it."""
    fate = Fate(seed, Purpose.TRAINING, generation, pair)
    return fate.rng(Stream.EPSILON).standard_normal(size, dtype=np.float32)


def perturb(center: Center, seed: int, pair: int) -> np.ndarray:
    """φ + σε and φ − σε of a pair, [2, size] float32."""
    epsilon = draw_epsilon(seed, center.generation, pair, len(center.phi))
    step = np.float32(center.sigma) * epsilon
    return np.stack((center.phi + step, center.phi - step))


def draw_mdp(task: Task, fate: Fate, draw: str = "pair") -> Mdp:
    """The MDP of a fate: its own, or with `generation` the one that all pairs share."""
    if draw == "generation":
        shared = Fate(fate.seed, fate.purpose, fate.generation, 0, fate.mdp)
        return task.draw(shared.rng(Stream.MDP_OF_GENERATION))
    return task.draw(fate.rng(Stream.MDP))


def cut(total: int, size: int, known: Container[int], least: int = 1) -> Iterator[tuple[int, int]]:
    """What of 0, …, total − 1 is not known, as runs of `size`: first ones and counts.

    None is shorter than `least` where that can be, and so one may be longer than `size`. A lifetime
    that lives alone rounds otherwise than in company, so where runs are of lifetimes that is 2.
    """
    first = 0
    while first < total:
        end = first
        while end < total and end not in known:
            end += 1
        while first < end:
            left = end - first
            count = left if left < max(size, least) + least else max(size, least)
            yield first, count
            first += count
        first += 1


class Work(Protocol):
    """The settings that all processes of a job must have alike."""

    @property
    def device(self) -> str: ...

    @property
    def threads(self) -> int: ...

    def yaml(self) -> str:
        """All of them, as text."""


class Raiser(ABC):
    """Raises the agents of a chunk: a chunk goes in, returns come out."""

    def __init__(self, work: Work) -> None:
        torch.set_num_threads(work.threads)
        self.work = work

    def attempt(self, center: Center | None, chunk: Chunk, limit: float = math.inf) -> Outcome:
        """Live all lifetimes of a chunk in `limit` seconds; a failure, if they raise anything."""
        try:
            with time_limit(limit):
                return self.evaluate(center, chunk)
        except (Exception, SystemExit):
            return Failure(chunk, traceback.format_exc()[-LONGEST_WHY:])

    @abstractmethod
    def evaluate(self, center: Center | None, chunk: Chunk) -> Returns:
        """Live all lifetimes of a chunk."""


class Evaluator(Raiser):
    """Raises agents with φ, or what is near it, as their loss."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config
        self.task = tasks.make(config.task)
        self.genome = genome_of(config, self.task)

    def evaluate(self, center: Center | None, chunk: Chunk) -> Returns:
        """Live all lifetimes of a chunk."""
        assert center is not None
        started = time.perf_counter()
        config, evolution, lifetime = self.config, self.config.evolution, self.config.lifetime
        if chunk.updates is not None:
            lifetime = lifetime.model_copy(update={"updates": chunk.updates})
        training = chunk.purpose == Purpose.TRAINING
        mdps_per_pair = evolution.mdps_per_pair if training else 1
        signs = 2 if training else 1
        fates = [
            Fate(config.seed, chunk.purpose, chunk.generation if training else 0, pair, mdp)
            for pair in chunk.pairs
            for mdp in range(mdps_per_pair)
        ]
        owner = [
            i * mdps_per_pair + mdp
            for i in range(chunk.count)
            for _ in range(signs)
            for mdp in range(mdps_per_pair)
        ]
        draw = evolution.task_draw if training else "pair"
        mdps = [draw_mdp(self.task, fate, draw) for fate in fates]
        candidates = np.concatenate(
            [perturb(center, config.seed, pair) for pair in chunk.pairs]
            if training
            else [center.phi[None]] * chunk.count
        )
        phi = torch.from_numpy(candidates).to(config.device)
        loss_phi, policy = self.genome.split(phi.repeat_interleave(mdps_per_pair, dim=0))
        learned = TemporalConvLoss(
            self.genome.architecture, loss_phi, lifetime.buffer, config.reference
        )
        alpha = center.alpha if training else config.final_alpha
        owned = [mdps[i] for i in owner]
        lived = live(
            self.task,
            owned,
            Fates(fates, owner, config.device),
            Mixture([(1 - alpha, learned), (alpha, ppo_of(lifetime, config.reference))]),
            lifetime,
            policy,
            config.reference,
            config.device,
        )
        fitness = self.task.score(owned, lived.final_return)
        shape = (chunk.count, signs, mdps_per_pair)
        seconds = (time.perf_counter() - started) * config.threads
        logger.info("%s: %d steps in %.2f core-seconds", chunk, lived.steps, seconds)
        return Returns(
            chunk=chunk,
            fitness=fitness.reshape(shape).mean(2),
            kl=lived.kl.reshape(shape).mean((1, 2)),
            entropy=lived.entropy.reshape(shape).mean((1, 2)),
            steps=lived.steps,
            exploded=lived.exploded,
            seconds=seconds,
            megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )
