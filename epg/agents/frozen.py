"""Agents that act and never learn."""

from __future__ import annotations

import torch
from torch import Tensor

from epg.agents.actor_critic import ActorCritic
from epg.agents.base import Agents, Metrics, Policy
from epg.agents.buffer import Transitions
from epg.agents.sampling import JudgedPolicy, LearningPolicy, NoiseAhead
from epg.seeds import LifetimeSeeds


class FrozenAgents(Agents):
    """Policies as they are given: on observations as they come, for nothing is counted."""

    def __init__(self, networks: ActorCritic, seeds: LifetimeSeeds) -> None:
        self.networks = networks
        self._seeds = seeds
        self._noise = NoiseAhead(networks, seeds)

    def policy(self, episodes: int | None = None) -> Policy:
        if episodes is None:
            return LearningPolicy(self.networks, self._noise)
        return JudgedPolicy(self.networks, self._seeds, episodes)

    def learn(self, new: Transitions) -> Metrics:
        return {}

    @property
    def failed(self) -> Tensor:
        finite = [torch.isfinite(p).flatten(1).all(1) for p in self.networks.parameters.values()]
        return ~torch.stack(finite).all(0)
