"""Agents that learn by LPG's rule, each in one environment whose newest steps it reads in pieces,
or in as many environments as there are pieces.

Shape letters: P agents, M new rows, W pieces of them, O observation.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from epg.agents.actor import Actor
from epg.agents.base import Agents, Metrics, Policy
from epg.agents.buffer import Transitions
from epg.agents.distributions import Categorical, Distribution
from epg.agents.network import Parameters
from epg.agents.sampling import JudgedPolicy, LearningPolicy, NoiseAhead
from epg.rules.agents import drawn
from epg.rules.lpg import LpgNetworks
from epg.rules.lpg_gradient import LpgGradient
from epg.rules.rollout import Rollout
from epg.seeds import LifetimeSeeds, Stream


class LpgAgents(Agents):
    """P of them, with policies and predictions of their own, that no gradient of η is asked of."""

    def __init__(
        self, learner: LpgGradient, eta: Parameters, seeds: LifetimeSeeds, updates: int,
        blind: bool = False, side_by_side: bool = False,
    ) -> None:  # fmt: skip
        """learner: whose rule reads W pieces; eta: each [P, …]; updates: of their lives; blind: to
        reward and ends of episodes; side_by_side: whether each piece is of an environment of its
        own."""
        self._learner = learner
        self._networks: LpgNetworks = learner.rule.networks
        self._eta = {name: p.detach() for name, p in eta.items()}
        self._theta = drawn(seeds, Stream.AGENT, self._networks.init)
        self._moments = learner.optimizer.init(self._theta)
        self._updates, self._done = updates, 0
        self._blind = blind
        self.distribution: Distribution = Categorical(self._networks.actions)
        self._seeds = seeds
        self.environments = learner.rule.environments if side_by_side else 1
        self._noise = NoiseAhead(self, seeds, self.environments)

    @property
    def theta(self) -> Parameters:
        """Policies and predictions as they are, by name, each [P, …]."""
        return self._theta

    def policy(self, episodes: int | None = None) -> Policy:
        if episodes is None:
            return LearningPolicy(self, self._noise)
        return JudgedPolicy(self, self._seeds, episodes)

    def actor(self, of: Tensor | None = None) -> Actor:
        """What acts: a table is a network of one layer."""
        acting = {n: p for n, p in self._theta.items() if n.startswith("policy.")}
        if of is not None:
            acting = {name: p[of] for name, p in acting.items()}
        first = acting["policy.0.weight"]
        if not self._networks.hidden:
            acting["policy.0.bias"] = first.new_zeros(len(first), first.shape[2])
        nothing = first.new_zeros(len(first), 1, first.shape[1])
        normalise = nothing, torch.ones_like(nothing)
        layers = len(self._networks.hidden) + 1
        return Actor(acting, layers, normalise, self.distribution, "relu")

    def learn(self, new: Transitions) -> Metrics:
        """An update; what was noted of it."""
        age = age_of(len(self._seeds), self._done, self._updates, self._seeds.device)
        rollout = rollout_of(new, self._networks, self._blind)
        self._theta, self._moments, noted = self._learner.update(
            self._eta, self._theta, self._moments, rollout, age, graph=False
        )
        self._done += 1
        return {name: value.detach() for name, value in noted.items()}

    def predictions(self, new: Transitions) -> Tensor:
        """[P, M, m] of the states that the newest steps began in."""
        seen = rollout_of(new, self._networks).observations
        with torch.no_grad():
            return self._networks.probabilities(self._theta, "prediction", seen)

    @property
    def failed(self) -> Tensor:
        return not_finite(self._theta)


def rollout_of(new: Transitions, networks: LpgNetworks, blind: bool = False) -> Rollout:
    """The newest steps as the rule reads them; tables are read by numbers of states."""
    rollout = Rollout.of(new)
    if not networks.hidden:
        rollout = replace(
            rollout,
            observations=rollout.observations.argmax(-1),
            next_observations=rollout.next_observations.argmax(-1),
        )
    if blind:
        nothing = torch.zeros_like(rollout.rewards)
        rollout = replace(rollout, rewards=nothing, going_on=nothing + 1, truncated=nothing)
    return rollout


def age_of(agents: int, done: int, updates: int, device: str) -> Tensor:
    """[P, 2] how much of its life each of P agents has lived, and the logarithm of its updates."""
    return torch.tensor([[done / updates, math.log(updates)]], device=device).expand(agents, 2)


def not_finite(theta: Parameters) -> Tensor:
    """[P] bool: whose parameters have left the finite."""
    broken = [
        ~torch.isfinite(leaf.detach()).reshape(len(leaf), -1).all(1) for leaf in theta.values()
    ]
    return torch.stack(broken).any(0)
