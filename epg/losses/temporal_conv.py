"""The temporal-convolution loss of Evolved Policy Gradients (Houthooft et al. 2018, section 3).

Shape letters: P lifetimes, each with a loss of its own; N buffer rows, M new rows, B minibatch,
F inputs per row, K policy outputs, H memory, L convolved rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from epg.agents.actor_critic import ActorCritic, Experience
from epg.agents.loss import Loss, Objective
from epg.agents.network import Parameters
from epg.agents.spec import AgentSpec
from epg.errors import UserError
from epg.losses.base import LearnedLoss, take_rows

CHANNELS = (16, 32)
KERNELS = (6, 4)
STRIDES = (5, 2)
CONTEXT = 32
STEP_UNITS = 16
SLOPE = 0.2
SHORTEST_BUFFER = KERNELS[0] + STRIDES[0] * (KERNELS[1] - 1)
"""Rows that two convolutions need."""


class TemporalConv(LearnedLoss):
    """Two convolutions over the buffer give a context; a small net judges each step with it.

    The inputs of a row are, in this order: `inputs`, the policy's outputs, the memory.
    """

    inputs: tuple[str, ...] = ("observation", "action", "reward", "done")
    oldest = False
    """Whether the oldest M rows of the buffer are judged, not the newest."""

    def __init__(self, settings: Any, spec: AgentSpec, buffer: int) -> None:
        super().__init__(settings, spec, buffer)
        if buffer < SHORTEST_BUFFER:
            raise UserError(
                f"learner.buffer: found {buffer}, the loss temporal_conv needs at least "
                f"{SHORTEST_BUFFER}"
            )
        sizes = {"observation": spec.observation_size, "action": spec.action_size}
        self._sizes = {name: sizes.get(name, 1) for name in self.inputs}
        self.row_size = sum(self._sizes.values())
        """F, the inputs of a row that do not depend on the policy of now"""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameters in the order in which φ holds them; weights (out, in[, kernel])."""
        step = self.row_size + self.spec.distribution.output_size + self.spec.memory
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

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Weights normal with std 1/√fan_in, biases 0."""
        drawn = {}
        for name, shape in self.shapes.items():
            drawn[name] = np.zeros(shape, np.float32)
            if name.endswith("weight"):
                drawn[name] = rng.standard_normal(shape, dtype=np.float32)
                drawn[name] /= np.float32(math.sqrt(math.prod(shape[1:])))
        return drawn

    def residual(self, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return params | {"output.weight": np.zeros_like(params["output.weight"])}

    def bind(self, params: Parameters) -> Loss:
        return TemporalConvLoss(self, params)

    @property
    def removable(self) -> tuple[str, ...]:  # type: ignore[override]
        """All but the policy's outputs, which the loss acts through."""
        return (*self.inputs, "memory", "context")

    def without(self, params: Parameters, name: str) -> Parameters:
        """The weights that the input is multiplied with are 0."""
        conv, step = params["conv0.weight"].clone(), params["step.weight"].clone()
        if name == "context":
            step[:, :, self.row_size : self.row_size + CONTEXT] = 0
        elif name == "memory":
            conv[:, :, -self.spec.memory :] = 0
            step[:, :, -self.spec.memory :] = 0
        else:
            first = sum(self._sizes[n] for n in self.inputs[: self.inputs.index(name)])
            columns = slice(first, first + self._sizes[name])
            conv[:, :, columns] = 0
            step[:, :, columns] = 0
        return params | {"conv0.weight": conv, "step.weight": step}


class TemporalConvLoss:
    """P losses, one for each agent; params: each [P, *shape]."""

    def __init__(self, layout: TemporalConv, params: Parameters) -> None:
        """Lay the weights out as they are multiplied: by time where the input varies with time.

        The memory is the same at all times, so its part of a layer is one product, as a bias.
        """
        self.layout = layout
        self.params = params
        self.history = layout.buffer
        # where the parts of a row end, in the first convolution and in the step's layer
        rows, outputs = layout.row_size, layout.spec.distribution.output_size
        by_time = params["conv0.weight"].permute(0, 3, 2, 1)
        step = params["step.weight"].transpose(1, 2)
        last = rows + CONTEXT + outputs
        self._weights = {
            "conv0.rows": by_time[:, :, :rows].contiguous(),
            "conv0.outputs": by_time[:, :, rows : rows + outputs].contiguous(),
            "conv0.memory": by_time[:, :, rows + outputs :].sum(1),
            "conv0.bias": params["conv0.bias"].unsqueeze(1),
            "conv1": params["conv1.weight"].permute(0, 3, 2, 1).contiguous(),
            "conv1.bias": params["conv1.bias"].unsqueeze(1),
            "context": params["context.weight"].transpose(1, 2).contiguous(),
            "context.bias": params["context.bias"].unsqueeze(1),
            "step.rows": step[:, :rows].contiguous(),
            "step.context": step[:, rows : rows + CONTEXT].contiguous(),
            "step.outputs": step[:, rows + CONTEXT : last].contiguous(),
            "step.memory": step[:, last:].contiguous(),
            "step.bias": params["step.bias"].unsqueeze(1),
            "output": params["output.weight"].transpose(1, 2).contiguous(),
            "output.bias": params["output.bias"].unsqueeze(1),
        }

    def objective(self, agents: ActorCritic, experience: Experience) -> Objective:
        columns = {
            "observation": experience.observations,
            "action": experience.actions,
            "reward": experience.rewards.unsqueeze(-1),
            "done": experience.dones.unsqueeze(-1),
        }
        if experience.auxiliary is not None:
            columns["auxiliary"] = experience.auxiliary.unsqueeze(-1)
        trajectory = torch.cat([columns[name] for name in self.layout.inputs], dim=-1)
        count = experience.new.rewards.shape[1]
        read = self.reader(trajectory, count)
        distribution = agents.distribution

        def learned(outputs: Tensor, rows: Tensor) -> Tensor:
            return read(distribution.features(outputs), agents.memory(), rows)

        return learned

    def reader(self, trajectory: Tensor, count: int) -> _Reader:
        """What all minibatches of an update share. trajectory: [P, N, F]; count: M."""
        return _Reader(self._weights, trajectory, count, oldest=self.layout.oldest)


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
        of_policy = take_rows(features[:, self.judged], rows) @ w["step.outputs"]
        hidden = leaky_relu(take_rows(self.steps, rows) + of_policy + same, SLOPE)
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
