"""Agents that begin with a policy which was made for observations as they come."""

from __future__ import annotations

import re

from torch import Tensor

from epg.agents.actor_critic import ActorCritic, init_parameters
from epg.agents.network import mlp
from epg.agents.normalizer import RunningStatistics
from epg.agents.spec import AgentSpec, unflatten
from epg.seeds import LifetimeSeeds


class PretrainedActorCritic(ActorCritic):
    """Policies of layers of their own, value nets as ever; nothing is normalised."""

    def __init__(
        self, spec: AgentSpec, acting: AgentSpec, policy: Tensor, seeds: LifetimeSeeds
    ) -> None:
        """spec: of the agents but for their policies; acting, policy [size]: of these, and their
        parameters in the order of `AgentSpec.policy_shapes`. Their noise is that of
        agents at first: a policy that evolved to act with little of it would not learn."""
        own = unflatten(policy.expand(len(seeds), -1), acting.policy_shapes())
        drawn = init_parameters(spec, seeds)
        layers = {name: p for name, p in own.items() if name != "policy.log_std"}
        others = {name: p for name, p in drawn.items() if not re.match(r"policy\.\d", name)}
        super().__init__(acting, layers | others, train_memory=False)
        self._valuing = spec

    def values(self, observations: Tensor) -> Tensor:
        layers, activation = len(self._valuing.hidden) + 1, self._valuing.activation
        return mlp(self.parameters, "value", layers, observations, activation).squeeze(-1)

    def _statistics(self, size: int) -> RunningStatistics:
        return _Unmoved(self.lifetimes, size, self.device)


class _Unmoved(RunningStatistics):
    """Mean 0 and variance 1, whatever comes."""

    def add(self, vectors: Tensor) -> None:
        return
