"""Probe MDPs that an agent must solve, each of which catches one class of bug."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from epg.agents.agents import Agents, Experience, bear
from epg.config import Lifetime
from epg.lifetime import InnerAdam, act, body_of, draw_minibatches, learn
from epg.losses.base import Loss
from epg.losses.mixture import Mixture
from epg.losses.ppo import Ppo
from epg.losses.temporal_conv import Architecture, TemporalConvLoss
from epg.seeds import Fate, Fates, Purpose, Stream
from epg.tasks.base import Batch, Mdp, Task, Varied
from epg.tasks.native import NativeBatch


class Probe(NativeBatch, Task):
    """A task that is its own batch: what it makes are copies of it that have been started."""

    name = "probe"
    summary = "a probe"
    observation_size = 1
    action_size = 1
    discrete = False
    horizon = 10
    varied: ClassVar[tuple[Varied, ...]] = ()

    def __init__(self) -> None:
        """A task is made without anything; `batch` does the rest."""

    def draw(self, rng: np.random.Generator) -> Mdp:
        return {}

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        batch = type(self)()
        NativeBatch.__init__(batch, rngs, self.start, self.horizon, device, restart)
        return batch

    def start(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """The states that n episodes start in."""
        return np.zeros((n, self.observation_size))

    def move(self, state: Tensor, actions: Tensor) -> Tensor:
        return state + 1

    def reward(self, state: Tensor) -> Tensor:
        return torch.ones_like(state[:, 0])

    def ends(self, state: Tensor) -> Tensor:
        return torch.ones_like(state[:, 0], dtype=torch.bool)


class OneStep(Probe):
    """One step, reward 1: the value must become 1."""


class TwoSteps(Probe):
    """0 → 1 → end, reward 1 for the second step only: the value of 0 must become γ."""

    def reward(self, state: Tensor) -> Tensor:
        return (state[:, 0] == 2).to(torch.float64)

    def ends(self, state: Tensor) -> Tensor:
        return state[:, 0] == 2


class ForEver(Probe):
    """Reward 1 for ever, cut after two steps: the value must become 1 / (1 − γ)."""

    horizon = 2

    def move(self, state: Tensor, actions: Tensor) -> Tensor:
        return state

    def ends(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state[:, 0], dtype=torch.bool)


class Follow(Probe):
    """One step; a number of −1, 0, 1 is seen: the action must be it. State: number, reward."""

    observation_size = 2

    def start(self, rng: np.random.Generator, n: int) -> np.ndarray:
        seen = rng.integers(-1, 2, n).astype(np.float64)
        return np.stack((seen, np.zeros(n)), axis=1)

    def move(self, state: Tensor, actions: Tensor) -> Tensor:
        return torch.stack((state[:, 0], -((actions[:, 0] - state[:, 0]) ** 2)), 1)

    def reward(self, state: Tensor) -> Tensor:
        return state[:, 1]


class Choose(Follow):
    """The same with three actions: reward 1 for the one that is seen, 0 for the others."""

    action_size = 3
    discrete = True

    def move(self, state: Tensor, actions: Tensor) -> Tensor:
        return torch.stack((state[:, 0], (actions == state[:, 0] + 1).to(torch.float64)), 1)


def fates_of(pairs: Sequence[int], signs: int = 1, seed: int = 0) -> Fates:
    """The fates of some pairs, `signs` lifetimes of each."""
    fates = [Fate(seed, Purpose.TRAINING, 0, pair) for pair in pairs]
    return Fates(fates, [i for i in range(len(fates)) for _ in range(signs)])


def mdps_of(task: Task, fates: Fates) -> list[Mdp]:
    """An MDP for each lifetime."""
    drawn = [task.draw(fate.rng(Stream.MDP)) for fate in fates.fates]
    return [drawn[i] for i in fates.owner]


def grow(task: Task, settings: Lifetime, loss: Loss, fates: Fates) -> tuple[Agents, Experience]:
    """Agents after a lifetime of their own, and what they learned from last."""
    environments = task.batch(
        mdps_of(task, fates), [fate.rng(Stream.RESET) for fate in fates.each()]
    )
    agents = bear(body_of(task, settings), fates, settings.train_memory)
    adam = InnerAdam(agents, settings.learning_rate)
    buffer = agents.buffer(settings.buffer)
    observation = environments.reset()
    for _ in range(settings.updates):
        new, observation = act(agents, environments, observation, fates, settings.steps_per_update)
        experience = agents.remember(buffer, new)
        learn(agents, adam, loss, experience, draw_minibatches(fates, settings))
    return agents, experience


def values_at(agents: Agents, experience: Experience, observation: float) -> Tensor:
    """Values that the agents give to the newest steps at which they saw that number."""
    rows = experience.new.observations.shape[1]
    values = agents.values(experience.observations[:, -rows:])
    seen = values[experience.new.observations[..., 0] == observation]
    assert len(seen) > 0
    return seen.detach()


def learned_loss(
    task: Task, settings: Lifetime, lifetimes: int, zero_output: bool = False
) -> TemporalConvLoss:
    """A random loss for each lifetime; the i-th does not depend on how many there are."""
    architecture = Architecture(body_of(task, settings))
    phi = [architecture.draw(np.random.default_rng(i), zero_output) for i in range(lifetimes)]
    return TemporalConvLoss(architecture, torch.stack(phi), settings.buffer)


def half_ppo(learned: TemporalConvLoss, ppo: Ppo | None = None) -> Mixture:
    """α = 0.5"""
    return Mixture([(0.5, learned), (0.5, ppo or Ppo())])
