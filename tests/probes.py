"""Probe MDPs that an agent must solve, each of which catches one class of bug."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from epg.agents.actor_critic import ActorCritic, Experience
from epg.agents.adam import FusedAdam
from epg.agents.loss import Loss
from epg.agents.policy_gradient import descend, draw_minibatches
from epg.agents.sampling import LearningPolicy, NoiseAhead
from epg.agents.spec import AgentSpec
from epg.config import Setup
from epg.lifetime import LifetimeResult, act, live
from epg.losses.ppo import Ppo
from epg.losses.temporal_conv import TemporalConv, TemporalConvLoss
from epg.losses.weighted_sum import WeightedSum
from epg.methods.base import agents_with
from epg.seeds import LifetimeSeed, LifetimeSeeds, Purpose, Stream
from epg.settings import Named
from epg.tasks.base import Batch, Mdp, Task, Varied, draw_mdps, first_step
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


def seeds_of(pairs: Sequence[int], signs: int = 1, seed: int = 0) -> LifetimeSeeds:
    """The seeds of some pairs, `signs` lifetimes of each."""
    seeds = [LifetimeSeed(seed, Purpose.TRAINING, 0, pair) for pair in pairs]
    return LifetimeSeeds(seeds, [i for i in range(len(seeds)) for _ in range(signs)])


def mdps_of(task: Task, seeds: LifetimeSeeds) -> list[Mdp]:
    """An MDP for each lifetime."""
    return draw_mdps(task, seeds)


def networks_of(task: Task, setup: Setup, seeds: LifetimeSeeds) -> ActorCritic:
    """Agents with their initial parameters, one for each lifetime."""
    return agents_with(None, task, setup, seeds).networks


def grow(
    task: Task, setup: Setup, loss: Loss, seeds: LifetimeSeeds
) -> tuple[ActorCritic, Experience]:
    """Agents after a lifetime of their own, and what they learned from last."""
    resets = [seed.rng(Stream.RESET) for seed in seeds.each()]
    environments = task.batch(mdps_of(task, seeds), resets)
    agents = networks_of(task, setup, seeds)
    adam = FusedAdam(agents, setup.learner.learning_rate)
    buffer, noise = agents.buffer(setup.learner.buffer), NoiseAhead(agents, seeds)
    count = setup.lifetime.steps_per_update
    step = first_step(environments.reset())
    for _ in range(setup.lifetime.updates):
        new, step = act(LearningPolicy(agents, noise), environments, step, count)
        experience = agents.remember(buffer, new)
        descend(agents, adam, loss, experience, draw_minibatches(seeds, setup.learner, count))
    return agents, experience


def lives(task: Task, setup: Setup, loss: Loss, seeds: LifetimeSeeds) -> LifetimeResult:
    """What comes of lifetimes with a loss."""
    agents = agents_with(loss, task, setup, seeds)
    return live(task, mdps_of(task, seeds), agents, seeds, setup.lifetime)


def values_at(agents: ActorCritic, experience: Experience, observation: float) -> Tensor:
    """Values that the agents give to the newest steps at which they saw that number."""
    rows = experience.new.observations.shape[1]
    values = agents.values(experience.observations[:, -rows:])
    seen = values[experience.new.observations[..., 0] == observation]
    assert len(seen) > 0
    return seen.detach()


def learned_loss(
    task: Task,
    setup: Setup,
    lifetimes: int,
    residual: bool = False,
    kind: type[TemporalConv] = TemporalConv,
) -> TemporalConvLoss:
    """A random loss for each lifetime; the i-th does not depend on how many there are."""
    spec = AgentSpec.of(task, setup.agent)
    layout = kind(Named(name="temporal_conv"), spec, setup.learner.buffer)
    drawn = [layout.init(np.random.default_rng(i)) for i in range(lifetimes)]
    if residual:
        drawn = [layout.residual(one) for one in drawn]
    stacked = {name: np.stack([one[name] for one in drawn]) for name in layout.shapes}
    return TemporalConvLoss(layout, {name: torch.from_numpy(a) for name, a in stacked.items()})


def half_ppo(learned: TemporalConvLoss, ppo: Ppo | None = None) -> WeightedSum:
    """α = 0.5"""
    return WeightedSum([(0.5, learned), (0.5, ppo or Ppo())])
