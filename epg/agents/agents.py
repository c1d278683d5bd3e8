"""P agents in one batch, each with its own policy, value net, memory and statistics.

Shape letters: P lifetimes, R rows, N buffer rows, M new rows, O observation, A action,
K policy outputs, H memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from epg.agents.actor import Actor
from epg.agents.buffer import Buffer, Transitions
from epg.agents.distributions import Distribution, distribution_of
from epg.agents.network import Parameters, draw_layer, layer_shapes, mlp
from epg.agents.statistics import RunningStatistics
from epg.seeds import Fates, Stream

MEMORY_INPUTS = 64
LAST_LAYER_NORM = 0.01


@dataclass(frozen=True)
class Body:
    """The sizes of an agent."""

    observation_size: int
    action_size: int
    discrete: bool
    hidden: tuple[int, ...] = (64, 64)
    memory: int = 32
    activation: str = "tanh"

    @property
    def distribution(self) -> Distribution:
        return distribution_of(self.discrete, self.action_size)

    def policy_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of one policy's parameters."""
        shapes = layer_shapes("policy", (self.observation_size, *self.hidden, self.action_size))
        if not self.discrete:
            shapes["policy.log_std"] = (self.action_size,)
        return shapes

    def value_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of one value net's parameters."""
        return layer_shapes("value", (self.observation_size, *self.hidden, 1))

    def memory_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of one memory's parameters."""
        return layer_shapes("memory", (MEMORY_INPUTS, self.memory))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of all parameters of one agent."""
        return self.policy_shapes() | self.value_shapes() | self.memory_shapes()

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One newborn agent's parameters, flat, in the order of `shapes`."""
        return draw_parameters(rng, self.shapes())


def draw_parameters(rng: np.random.Generator, shapes: dict[str, tuple[int, ...]]) -> np.ndarray:
    """Parameters of networks at birth, flat: [sum of sizes] float32.

    Weights as `draw_layer` (norm 1, in a network's last layer 0.01), biases and log std 0.
    """
    weights = [name for name in shapes if name.endswith(".weight")]
    last = {name.split(".")[0]: name for name in weights}
    pieces = [
        draw_layer(rng, shape, LAST_LAYER_NORM if name in last.values() else 1.0)
        if name in weights
        else np.zeros(shape, np.float32)
        for name, shape in shapes.items()
    ]
    return np.concatenate([piece.ravel() for piece in pieces])


def unflatten(flat: Tensor, shapes: dict[str, tuple[int, ...]]) -> Parameters:
    """[P, sum of sizes] to parameters by name, each a copy of its own [P, *shape]."""
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    pieces = flat.split(sizes, dim=1)
    return {
        name: piece.reshape(len(flat), *shape).clone()
        for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
    }


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
    """[P, N] the released code's constant signal, normalised; only with `reference`"""
    new: Transitions
    """the newest M, as they were lived"""
    next_observations: Tensor
    """[P, M, O] normalised: what the newest actions led to"""
    old_outputs: Tensor
    """[P, M, K] what the policy said of the newest rows before this update"""


class Agents:
    """P agents of one body.

    parameters: by name as in `Body.shapes`, each [P, …]; they become the leaves that
    an optimiser moves. `reference` gives the released code's statistics (its defects 9 and 10).
    """

    def __init__(
        self, body: Body, parameters: Parameters, train_memory: bool, reference: bool = False
    ) -> None:
        self.body = body
        self.distribution = body.distribution
        self.reference = reference
        self.parameters = {name: p.requires_grad_() for name, p in parameters.items()}
        if not train_memory:
            for name in body.memory_shapes():
                self.parameters[name].requires_grad_(False)
        any_parameter = next(iter(parameters.values()))
        self.lifetimes = len(any_parameter)
        self.device = str(any_parameter.device)
        self._observations = self._statistics(body.observation_size)
        self._actions = self._statistics(body.action_size)
        self._auxiliary = self._statistics(1)

    def _statistics(self, size: int) -> RunningStatistics:
        return RunningStatistics(self.lifetimes, size, self.device)

    def trained(self) -> list[Tensor]:
        """The parameters that updates move."""
        return [p for p in self.parameters.values() if p.requires_grad]

    def buffer(self, length: int) -> Buffer:
        """An empty buffer of `length` rows for each agent."""
        body = self.body
        return Buffer(
            self.lifetimes, length, body.observation_size, body.action_size, body.discrete,
            self.device,
        )  # fmt: skip

    def outputs(self, observations: Tensor) -> Tensor:
        """Policy outputs for normalised observations: [P, R, O] to [P, R, K]."""
        head = self._mlp("policy", observations)
        if self.body.discrete:
            return functional.log_softmax(head, dim=-1)
        log_std = self.parameters["policy.log_std"].unsqueeze(1)
        return torch.cat((head, log_std.expand_as(head)), dim=-1)

    def values(self, observations: Tensor) -> Tensor:
        """Values of normalised observations: [P, R, O] to [P, R]."""
        return self._mlp("value", observations).squeeze(-1)

    def _mlp(self, name: str, observations: Tensor) -> Tensor:
        body = self.body
        return mlp(self.parameters, name, len(body.hidden) + 1, observations, body.activation)

    def memory(self) -> Tensor:
        """What each agent remembers beyond its buffer, [P, H] (EPG, section 3.2)."""
        ones = torch.ones(self.lifetimes, 1, MEMORY_INPUTS, device=self.device)
        return torch.tanh(mlp(self.parameters, "memory", 1, ones)).squeeze(1)

    def actor(self, of: Tensor | None = None) -> Actor:
        """What acts for these agents, or those with the numbers `of`, until they learn."""
        statistics, which = self._observations, slice(None) if of is None else of
        return Actor(
            {name: p[which] for name, p in self.parameters.items() if name.startswith("policy")},
            len(self.body.hidden) + 1,
            (statistics.mean[which], statistics.scale[which]),
            self.distribution,
            self.body.activation,
        )

    @torch.no_grad()
    def remember(self, buffer: Buffer, new: Transitions) -> Experience:
        """Count the new transitions into the statistics, then look back over the buffer."""
        buffer.append(new)
        encoded = self.distribution.encode(buffer.actions)
        filled = slice(buffer.length - buffer.filled, None)
        counted = filled if self.reference else slice(-new.rewards.shape[1], None)
        self._observations.add(buffer.observations[:, counted])
        self._actions.add(encoded[:, counted])
        lived = torch.zeros(buffer.length, 1, device=self.device)
        lived[filled] = 1.0
        observations = self._observations.normalise(buffer.observations) * lived
        auxiliary = None
        if self.reference:
            signal = torch.ones_like(buffer.rewards).unsqueeze(-1)
            self._auxiliary.add(signal[:, counted])
            auxiliary = (self._auxiliary.normalise(signal) * lived).squeeze(-1)
        return Experience(
            observations=observations,
            actions=self._actions.normalise(encoded) * lived,
            rewards=buffer.rewards,
            dones=buffer.dones,
            auxiliary=auxiliary,
            new=new,
            next_observations=self._observations.normalise(new.next_observations),
            old_outputs=self.outputs(observations[:, -new.rewards.shape[1] :]),
        )


def bear(
    body: Body, fates: Fates, train_memory: bool, reference: bool = False,
    policy: Tensor | None = None,
) -> Agents:  # fmt: skip
    """Newborn agents, drawn from their fates; `policy` [P, n] gives evolved initial policies."""
    parameters = unflatten(fates.draw(Stream.AGENT, body.draw), body.shapes())
    if policy is not None:
        parameters |= unflatten(policy, body.policy_shapes())
    return Agents(body, parameters, train_memory, reference)
