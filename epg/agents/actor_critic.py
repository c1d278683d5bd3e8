"""P agents in one batch, each with its own policy, value net, memory and statistics.

Shape letters: P lifetimes, R rows, N buffer rows, M new rows, O observation, A action,
K policy outputs, H memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from epg.agents.actor import Actor
from epg.agents.age import BEGINNING, Age
from epg.agents.buffer import Buffer, Transitions
from epg.agents.network import Parameters, mlp
from epg.agents.normalizer import RunningStatistics
from epg.agents.spec import MEMORY_INPUTS, AgentSpec, unflatten
from epg.seeds import LifetimeSeeds, Stream


@dataclass(frozen=True)
class Experience:
    """What an update learns from; fixed while it lasts. Rows are oldest first."""

    observations: Tensor
    """[P, N, O] normalised; zeros where less was lived"""
    actions: Tensor
    """[P, N, A] encoded and normalised; zeros where less was lived"""
    rewards: Tensor
    """[P, N]"""
    dones: Tensor
    """[P, N] 1 where an episode ended, whether by the MDP or by the horizon"""
    auxiliary: Tensor | None
    """[P, N] the released code's constant signal, normalised; None without it"""
    new: Transitions
    """the newest M, as they were lived"""
    next_observations: Tensor
    """[P, M, O] normalised: what the newest actions led to"""
    old_outputs: Tensor
    """[P, M, K] what the policy said of the newest rows before this update"""
    age: Age = BEGINNING
    """how far into their lives the agents are, before this update"""


class ActorCritic:
    """P policies with value nets, memories and running statistics, all of one spec.

    parameters: by name as in `AgentSpec.shapes`, each [P, …]; they become the leaves that an
    optimiser moves.
    """

    differentiable = False
    """Whether networks can be differentiated twice, and by their inputs: at twice the cost."""

    def __init__(self, spec: AgentSpec, parameters: Parameters, train_memory: bool) -> None:
        self.spec = spec
        self.distribution = spec.distribution
        self.parameters = {name: p.requires_grad_() for name, p in parameters.items()}
        if not train_memory:
            for name in spec.memory_shapes():
                self.parameters[name].requires_grad_(False)
        any_parameter = next(iter(parameters.values()))
        self.lifetimes = len(any_parameter)
        self.device = str(any_parameter.device)
        self._observations = self._statistics(spec.observation_size)
        self._actions = self._statistics(spec.action_size)

    def _statistics(self, size: int) -> RunningStatistics:
        return RunningStatistics(self.lifetimes, size, self.device)

    def trained(self) -> list[Tensor]:
        """The parameters that updates move."""
        return [p for p in self.parameters.values() if p.requires_grad]

    def buffer(self, length: int) -> Buffer:
        """An empty buffer of `length` rows for each agent."""
        spec = self.spec
        return Buffer(
            self.lifetimes, length, spec.observation_size, spec.action_size, spec.discrete,
            self.device,
        )  # fmt: skip

    def outputs(self, observations: Tensor) -> Tensor:
        """Policy outputs for normalised observations: [P, R, O] to [P, R, K]."""
        head = self._mlp("policy", observations)
        if self.spec.discrete:
            return functional.log_softmax(head, dim=-1)
        log_std = self.parameters["policy.log_std"].unsqueeze(1)
        return torch.cat((head, log_std.expand_as(head)), dim=-1)

    def values(self, observations: Tensor) -> Tensor:
        """Values of normalised observations: [P, R, O] to [P, R]."""
        return self._mlp("value", observations).squeeze(-1)

    def _mlp(self, name: str, observations: Tensor) -> Tensor:
        spec = self.spec
        layers = len(spec.hidden) + 1
        return mlp(
            self.parameters, name, layers, observations, spec.activation, self.differentiable
        )

    def memory(self) -> Tensor:
        """What each agent remembers beyond its buffer, [P, H] (EPG, section 3.2)."""
        ones = torch.ones(self.lifetimes, 1, MEMORY_INPUTS, device=self.device)
        units = mlp(self.parameters, "memory", 1, ones, differentiable=self.differentiable)
        return torch.tanh(units).squeeze(1)

    def actor(self, of: Tensor | None = None) -> Actor:
        """What acts for these agents, or those with the numbers `of`, until they learn."""
        statistics, which = self._observations, slice(None) if of is None else of
        return Actor(
            {name: p[which] for name, p in self.parameters.items() if name.startswith("policy")},
            len(self.spec.hidden) + 1,
            (statistics.mean[which], statistics.scale[which]),
            self.distribution,
            self.spec.activation,
        )

    @torch.no_grad()
    def remember(self, buffer: Buffer, new: Transitions, age: Age = BEGINNING) -> Experience:
        """Count the new transitions into the statistics, then look back over the buffer."""
        buffer.append(new)
        encoded = self.distribution.encode(buffer.actions)
        lived = torch.zeros(buffer.length, 1, device=self.device)
        lived[buffer.length - buffer.filled :] = 1.0
        counted = self.counted(buffer, new)
        self._observations.add(buffer.observations[:, counted])
        self._actions.add(encoded[:, counted])
        observations = self._observations.normalise(buffer.observations) * lived
        return Experience(
            observations=observations,
            actions=self._actions.normalise(encoded) * lived,
            rewards=buffer.rewards,
            dones=buffer.dones,
            auxiliary=self.auxiliary(buffer, counted, lived),
            new=new,
            next_observations=self._observations.normalise(new.next_observations),
            old_outputs=self.outputs(observations[:, -new.rewards.shape[1] :]),
            age=age,
        )

    def counted(self, buffer: Buffer, new: Transitions) -> slice:
        """The rows of the buffer that an update counts into the statistics: the new ones."""
        return slice(-new.rewards.shape[1], None)

    def auxiliary(self, buffer: Buffer, counted: slice, lived: Tensor) -> Tensor | None:
        """[P, N] a further input of losses: none."""
        return None


def init_parameters(
    spec: AgentSpec, seeds: LifetimeSeeds, policy: Tensor | None = None
) -> Parameters:
    """Initial parameters of P agents, drawn from their seeds; `policy` [P, n]: evolved ones."""
    parameters = unflatten(seeds.draw(Stream.AGENT, spec.init), spec.shapes())
    if policy is not None:
        parameters |= unflatten(policy, spec.policy_shapes())
    return parameters
