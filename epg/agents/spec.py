"""What an agent is made of: its settings, and with a task's sizes the shapes of its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from epg.agents.distributions import Distribution, distribution_of
from epg.agents.network import Parameters, draw_layer, layer_shapes
from epg.settings import Count, Settings
from epg.tasks.base import Task

MEMORY_INPUTS = 64
LAST_LAYER_NORM = 0.01
Shapes = Mapping[str, tuple[int, ...]]
Units = Annotated[tuple[Count, ...], Field(strict=False, min_length=1, max_length=32)]
"""Of the layers of a network; how many there may be, memory says."""


class AgentSettings(Settings):
    """An agent's networks."""

    hidden: Units = Field((64, 64), description="units in the layers of policy and value net")
    activation: Literal["tanh", "relu"] = Field("tanh", description="between those layers")
    memory: Count = Field(32, description="units of memory")
    train_memory: bool = Field(True, description="whether updates move the memory")


@dataclass(frozen=True)
class AgentSpec:
    """The sizes of an agent with a policy, a value net and a memory."""

    observation_size: int
    action_size: int
    discrete: bool
    hidden: tuple[int, ...] = (64, 64)
    memory: int = 32
    activation: str = "tanh"

    @classmethod
    def of(cls, task: Task, settings: AgentSettings) -> AgentSpec:
        """The agent that fits a task."""
        return cls(
            task.observation_size, task.action_size, task.discrete, settings.hidden,
            settings.memory, settings.activation,
        )  # fmt: skip

    @property
    def distribution(self) -> Distribution:
        """That its actions are drawn from."""
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

    def init(self, rng: np.random.Generator) -> np.ndarray:
        """One agent's initial parameters, flat, in the order of `shapes`."""
        return init_flat(rng, self.shapes())


def init_flat(rng: np.random.Generator, shapes: Shapes) -> np.ndarray:
    """Initial parameters of networks, flat: [sum of sizes] float32.

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


def unflatten(flat: Tensor, shapes: Shapes) -> Parameters:
    """[P, sum of sizes] to parameters by name, each a copy of its own [P, *shape]."""
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    pieces = flat.split(sizes, dim=1)
    return {
        name: piece.reshape(len(flat), *shape).clone()
        for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
    }
