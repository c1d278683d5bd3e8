"""The temporal-convolution loss of Evolved Policy Gradients (Houthooft et al. 2018, section 3).

Shape letters: P lifetimes, each with a loss of its own; D loss parameters, N buffer rows,
M new rows, B minibatch, F inputs per row, K policy outputs, H memory, L convolved rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from epg.agents.agents import Agents, Body, Experience
from epg.losses.base import Objective, pick

CHANNELS = (16, 32)
KERNELS = (6, 4)
STRIDES = (5, 2)
CONTEXT = 32
STEP_UNITS = 16
SLOPE = 0.2
SHORTEST_BUFFER = KERNELS[0] + STRIDES[0] * (KERNELS[1] - 1)
INPUTS = ("observation", "action", "reward", "done")
REFERENCE_INPUTS = ("observation", "action", "reward", "auxiliary", "done")


@dataclass(frozen=True)
class Architecture:
    """What a loss looks at, and with that the names and shapes of its parameters.

    The inputs of a row are, in this order: `inputs`, the policy's outputs, the memory.
    """

    body: Body
    inputs: tuple[str, ...] = INPUTS

    @cached_property
    def row_size(self) -> int:
        """F, the inputs of a row that do not depend on the policy of now."""
        sizes = {"observation": self.body.observation_size, "action": self.body.action_size}
        return sum(sizes.get(name, 1) for name in self.inputs)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameters in the order in which φ holds them; weights (out, in[, kernel])."""
        step = self.row_size + self.body.distribution.output_size + self.body.memory
        return {
            "conv0.weight": (CHANNELS[0], step, KERNELS[0]),
            "conv0.bias": (CHANNELS[0],),
            "conv1.weight": (CHANNELS[1], CHANNELS[0], KERNELS[1]),
            "conv1.bias": (CHANNELS[1],),
            "context.weight": (CONTEXT, CHANNELS[1]),
            "context.bias": (CONTEXT,),
            "step.weight": (STEP_UNITS, CONTEXT + step),
            "step.bias": (STEP_UNITS,),
            "output.weight": (1, STEP_UNITS),
            "output.bias": (1,),
        }

    @cached_property
    def size(self) -> int:
        """D, the number of parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def draw(self, rng: np.random.Generator, zero_output: bool = False) -> Tensor:
        """φ [D] float32: weights normal with std 1/√fan_in, biases 0.

        zero_output: the last layer starts at 0, so that the loss starts as a constant.
        """
        pieces = []
        for name, shape in self.shapes.items():
            piece = np.zeros(shape, np.float32)
            if name.endswith("weight") and not (zero_output and name.startswith("output")):
                piece = rng.standard_normal(shape, dtype=np.float32)
                piece /= np.float32(math.sqrt(math.prod(shape[1:])))
            pieces.append(piece.ravel())
        return torch.from_numpy(np.concatenate(pieces))

    @property
    def removable(self) -> tuple[str, ...]:
        """What `without` can take away: all but the policy's outputs, which it acts through."""
        return (*self.inputs, "memory", "context")

    def without(self, phi: Tensor, what: str) -> Tensor:
        """φ [P, D] blind to one of its inputs: the weights that it is multiplied with are 0."""
        blind = phi.clone()
        named = self.split(blind)
        conv, step = named["conv0.weight"], named["step.weight"]
        if what == "context":
            step[:, :, self.row_size : self.row_size + CONTEXT] = 0
        elif what == "memory":
            conv[:, :, -self.body.memory :] = 0
            step[:, :, -self.body.memory :] = 0
        else:
            sizes = {"observation": self.body.observation_size, "action": self.body.action_size}
            first = sum(sizes.get(name, 1) for name in self.inputs[: self.inputs.index(what)])
            columns = slice(first, first + sizes.get(what, 1))
            conv[:, :, columns] = 0
            step[:, :, columns] = 0
        return blind

    def split(self, phi: Tensor) -> dict[str, Tensor]:
        """φ [P, D] to parameters by name, views of [P, *shape]."""
        pieces = phi.split([math.prod(shape) for shape in self.shapes.values()], dim=1)
        return {
            name: piece.reshape(len(phi), *shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }


@dataclass
class TemporalConvLoss:
    """P losses, one for each agent.

    phi: [P, D]; history: N, the rows of the buffer. With `reference` the minibatch's rows are
    taken from the oldest M rows of the buffer, as the released code does (its defect 12).
    """

    architecture: Architecture
    phi: Tensor
    history: int
    reference: bool = False
    _weights: dict[str, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Lay the weights out as they are multiplied: by time where the input varies with time.

        The memory is the same at all times, so its part of a layer is one product, as a bias.
        """
        named = self.architecture.split(self.phi)
        rows, outputs = self.architecture.row_size, self.architecture.body.distribution.output_size
        by_time = named["conv0.weight"].permute(0, 3, 2, 1)
        step = named["step.weight"].transpose(1, 2)
        told = rows + CONTEXT + outputs
        self._weights = {
            "conv0.rows": by_time[:, :, :rows].contiguous(),
            "conv0.outputs": by_time[:, :, rows : rows + outputs].contiguous(),
            "conv0.memory": by_time[:, :, rows + outputs :].sum(1),
            "conv0.bias": named["conv0.bias"].unsqueeze(1),
            "conv1": named["conv1.weight"].permute(0, 3, 2, 1).contiguous(),
            "conv1.bias": named["conv1.bias"].unsqueeze(1),
            "context": named["context.weight"].transpose(1, 2).contiguous(),
            "context.bias": named["context.bias"].unsqueeze(1),
            "step.rows": step[:, :rows].contiguous(),
            "step.context": step[:, rows : rows + CONTEXT].contiguous(),
            "step.outputs": step[:, rows + CONTEXT : told].contiguous(),
            "step.memory": step[:, told:].contiguous(),
            "step.bias": named["step.bias"].unsqueeze(1),
            "output": named["output.weight"].transpose(1, 2).contiguous(),
            "output.bias": named["output.bias"].unsqueeze(1),
        }

    def objective(self, agents: Agents, experience: Experience) -> Objective:
        columns = {
            "observation": experience.observations,
            "action": experience.actions,
            "reward": experience.rewards.unsqueeze(-1),
            "done": experience.dones.unsqueeze(-1),
        }
        if experience.auxiliary is not None:
            columns["auxiliary"] = experience.auxiliary.unsqueeze(-1)
        trajectory = torch.cat([columns[name] for name in self.architecture.inputs], dim=-1)
        count = experience.new.rewards.shape[1]
        read = self.reader(trajectory, count)
        distribution = agents.distribution

        def learned(outputs: Tensor, rows: Tensor) -> Tensor:
            return read(distribution.features(outputs), agents.memory(), rows)

        return learned

    def reader(self, trajectory: Tensor, count: int) -> _Reader:
        """What all minibatches of an update share. trajectory: [P, N, F]; count: M."""
        return _Reader(self._weights, trajectory, count, oldest=self.reference)


class _Reader:
    """The losses of one update, with the parts that its trajectories alone decide worked out."""

    def __init__(
        self, weights: dict[str, Tensor], trajectory: Tensor, count: int, oldest: bool
    ) -> None:
        self.weights = weights
        self.convolved = _convolve(trajectory, weights["conv0.rows"], STRIDES[0])
        newest = slice(trajectory.shape[1] - count, trajectory.shape[1])
        self.judged = slice(0, count) if oldest else newest
        self.steps = trajectory[:, self.judged] @ weights["step.rows"]

    def __call__(self, features: Tensor, memory: Tensor, rows: Tensor) -> Tensor:
        """features [P, N, K], memory [P, H], rows [P, B] to a loss per agent [P]."""
        w = self.weights
        context = self.context(features, memory)
        same = w["step.bias"] + context @ w["step.context"] + memory.unsqueeze(1) @ w["step.memory"]
        told = pick(features[:, self.judged], rows) @ w["step.outputs"]
        hidden = leaky_relu(pick(self.steps, rows) + told + same, SLOPE)
        return torch.baddbmm(w["output.bias"], hidden, w["output"]).mean((1, 2))

    def context(self, features: Tensor, memory: Tensor) -> Tensor:
        """What the trajectory says as a whole, [P, 1, 32]; no gradient to the memory from here."""
        w = self.weights
        same = w["conv0.bias"] + memory.detach().unsqueeze(1) @ w["conv0.memory"]
        rows = self.convolved + _convolve(features, w["conv0.outputs"], STRIDES[0]) + same
        rows = leaky_relu(rows, SLOPE)
        rows = leaky_relu(_convolve(rows, w["conv1"], STRIDES[1]) + w["conv1.bias"], SLOPE)
        return torch.baddbmm(w["context.bias"], rows.mean(1, keepdim=True), w["context"])


def _convolve(rows: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """Convolution over time, as products of views: [P, N, c] with [P, k, c, d] to [P, L, d].

    A window is `stride` rows that no other window starts with, and what overlaps the next.
    """
    lifetimes, length, channels = rows.shape
    width, units = kernel.shape[1], kernel.shape[3]
    count = (length - width) // stride + 1
    own = rows[:, : stride * count].reshape(lifetimes, count, stride * channels)
    total = own @ kernel[:, :stride].reshape(lifetimes, stride * channels, units)
    for k in range(stride, width):
        total = torch.baddbmm(
            total, rows[:, k : k + stride * (count - 1) + 1 : stride], kernel[:, k]
        )
    return total
