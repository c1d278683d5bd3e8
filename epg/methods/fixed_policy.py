"""A policy that is evolved on a family of MDPs and never learns: what the family's shared skill is
worth, beside which learning must show itself (Salimans et al. 2017, arXiv 1703.03864).

Shape letters: P lifetimes.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from epg.agents.actor_critic import ActorCritic, init_parameters
from epg.agents.base import Agents
from epg.agents.frozen import FrozenAgents
from epg.agents.policy_gradient import PolicyGradientAgents
from epg.agents.pretrained import PretrainedActorCritic
from epg.agents.spec import AgentSpec, init_flat
from epg.config import Config, Setup
from epg.lifetime import LifetimeSettings
from epg.losses.ppo import Ppo
from epg.methods.base import Card, Params
from epg.methods.evolved import Evolved, EvolvedSettings
from epg.methods.parameters import ParameterSpec
from epg.seeds import LifetimeSeed, LifetimeSeeds, Purpose, Stream
from epg.tasks.base import Task

FIRST_LOG_STD = -2.0
"""Of a Gaussian policy: it may evolve to act with less noise, or more."""


class FixedPolicy(Evolved):
    """One policy for all MDPs of a family, evolved by its returns and frozen."""

    class Settings(EvolvedSettings):
        """The evolution of a policy."""

        hidden: tuple[Annotated[int, Field(gt=0, le=10_000)], ...] = Field(
            (), strict=False, max_length=32,
            description="units in the policy's layers; none: it is linear",
        )  # fmt: skip

    card = Card(
        learns="a policy that never learns: what a family's shared skill is worth",
        how="evolved",
        agents="none that learn; continuous or discrete actions; the sizes it was trained for",
        paper="Salimans et al. 2017, arXiv 1703.03864",
    )

    def __init__(self, config: Config, task: Task) -> None:
        super().__init__(config, task)
        self.agent = dataclasses.replace(
            AgentSpec.of(task, config.agent), hidden=self.settings.hidden, memory=1
        )
        self._spec = ParameterSpec({}, self.agent.policy_shapes())

    @property
    def spec(self) -> ParameterSpec:
        return self._spec

    def init(self) -> dict[str, Tensor]:
        seed = LifetimeSeed(self.config.seed, Purpose.START, 0, 0)
        named = self.spec.name(
            torch.from_numpy(init_flat(seed.rng(Stream.AGENT), self.spec.policy))
        )
        if "policy.log_std" in named:
            named["policy.log_std"] = torch.full_like(named["policy.log_std"], FIRST_LOG_STD)
        return named

    def agents(self, params: Params, seeds: LifetimeSeeds) -> Agents:
        phi = self.spec.flatten(params).to(seeds.device).expand(len(seeds), -1)
        return self.candidates(phi, seeds, self.config.lifetime, 0)

    def candidates(
        self, phi: Tensor, seeds: LifetimeSeeds, lifetime: LifetimeSettings, step: int
    ) -> Agents:
        _, policy = self.spec.split(phi)
        parameters = init_parameters(self.agent, seeds, policy)
        return FrozenAgents(ActorCritic(self.agent, parameters, train_memory=False), seeds)

    def pretrained(self, params: Params, setup: Setup, seeds: LifetimeSeeds) -> Agents:
        """Agents that begin with the policy, but for its noise, and go on with PPO; one for each
        of P seeds.

        setup: how they are built but for the policy, live and learn.
        """
        policy = self.spec.flatten(params).to(seeds.device)
        spec = AgentSpec.of(self.task, setup.agent)
        acting = dataclasses.replace(self.agent, memory=spec.memory)
        networks = PretrainedActorCritic(spec, acting, policy, seeds)
        loss, updates = Ppo.of(setup.learner), setup.lifetime.updates
        return PolicyGradientAgents(networks, seeds, setup.learner, loss, updates)

    def lengths(self, step: int) -> np.ndarray:
        """One update each: nobody learns, so a longer life would change nothing."""
        return np.ones(self.settings.pairs, dtype=int)
