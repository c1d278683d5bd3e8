"""Networks, P of them at once.

Shape letters: P lifetimes, R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

CACHED = 2**18
"""Numbers of a layer that are worked on at once: 1 MB, about a core's second cache."""

Parameters = dict[str, Tensor]
"""Parameters by name, each with a leading axis P."""


@dataclass(frozen=True)
class Activation:
    """What stands between layers: each part but `plain` works in place."""

    array: Callable[[np.ndarray], object]
    tensor: Callable[[Tensor], object]
    backward: Callable[[Tensor, Tensor], object]
    """of the gradient of its output, and that output, makes the gradient of its input"""
    plain: Callable[[Tensor], Tensor]
    """out of place, differentiable any number of times"""

    def apply(self, numbers: Tensor) -> Tensor:
        """In place, NumPy's on the CPU: its tanh is seven times as fast as torch's."""
        if numbers.is_cpu:
            self.array(numbers.detach().numpy())
        else:
            self.tensor(numbers)
        return numbers


ACTIVATIONS = {
    "tanh": Activation(
        array=lambda x: np.tanh(x, out=x),
        tensor=torch.tanh_,
        backward=lambda g, y: torch.ops.aten.tanh_backward.grad_input(g, y, grad_input=g),
        plain=torch.tanh,
    ),
    "relu": Activation(
        array=lambda x: np.maximum(x, 0, out=x),
        tensor=torch.relu_,
        backward=lambda g, y: torch.ops.aten.threshold_backward.grad_input(g, y, 0, grad_input=g),
        plain=torch.relu,
    ),
}
"""By the name in a configuration."""


def layer_shapes(name: str, sizes: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's parameters: weights (in, out), biases (out)."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        shapes[f"{name}.{i}.weight"] = (inputs, outputs)
        shapes[f"{name}.{i}.bias"] = (outputs,)
    return shapes


def draw_layer(rng: np.random.Generator, shape: tuple[int, ...], norm: float) -> np.ndarray:
    """Normal weights (in, out); what leaves each input is scaled to `norm`, as in the release."""
    weight = rng.standard_normal(shape)
    weight *= norm / np.linalg.norm(weight, axis=1, keepdims=True)
    return weight.astype(np.float32)


def mlp(
    parameters: Parameters,
    name: str,
    layers: int,
    inputs: Tensor,
    activation: str = "tanh",
    differentiable: bool = False,
) -> Tensor:
    """The activation between layers, none after the last: [P, R, in] to [P, R, out].

    With `differentiable` it has derivatives of any order, also by `inputs`. Without, it takes half
    the time on a CPU, but it has first derivatives only, by the parameters only: `inputs` that
    require a gradient, and `create_graph`, are errors. Both give the same numbers up to rounding.
    """
    flat = [parameters[f"{name}.{i}.{what}"] for i in range(layers) for what in ("weight", "bias")]
    if differentiable:
        return _plain_mlp(ACTIVATIONS[activation], inputs, flat)
    if inputs.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(
            "the inputs of a network require a gradient, and the fast path gives them none: "
            "call mlp with differentiable=True"
        )
    outputs: Tensor = _Mlp.apply(ACTIVATIONS[activation], inputs, *flat)  # type: ignore[no-untyped-call]
    return outputs


def _plain_mlp(activation: Activation, inputs: Tensor, flat: Sequence[Tensor]) -> Tensor:
    """What `_Mlp` returns, composed of torch's own functions: [P, R, in] to [P, R, out]."""
    hidden = inputs
    for i, (weight, bias) in enumerate(zip(flat[::2], flat[1::2], strict=True)):
        below = activation.plain(hidden) if i else hidden
        hidden = torch.baddbmm(bias.unsqueeze(1), below, weight)
    return hidden


class _Mlp(torch.autograd.Function):
    """The same as the obvious composition of `baddbmm` and activations, in half the time on a CPU.

    It goes through all layers with some lifetimes before it turns to the next, so that their
    numbers stay in the cache; and it multiplies the last, narrow layer the other way round, four
    times as fast.
    """

    @staticmethod
    def forward(ctx: Any, activation: Activation, inputs: Tensor, *flat: Tensor) -> Tensor:
        weights, biases = flat[::2], flat[1::2]
        rows = inputs.shape[:2]
        hidden = [inputs.new_empty(*rows, weight.shape[2]) for weight in weights[:-1]]
        outputs = inputs.new_empty(rows[0], weights[-1].shape[2], rows[1])
        last, last_bias = weights[-1].transpose(1, 2).contiguous(), biases[-1].unsqueeze(2)
        for part in _parts(inputs, weights):
            below = inputs[part]
            for weight, bias, above in zip(weights, biases, hidden, strict=False):
                torch.baddbmm(bias[part].unsqueeze(1), below, weight[part], out=above[part])
                below = activation.apply(above[part])
            torch.baddbmm(last_bias[part], last[part], below.transpose(1, 2), out=outputs[part])
        ctx.activation = activation
        ctx.save_for_backward(inputs, *weights, *hidden)
        return outputs.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # as create_graph asks; once_differentiable can let it pass
            raise RuntimeError(
                "the fast path of a network has no second derivative: "
                "call mlp with differentiable=True"
            )
        inputs, *saved = ctx.saved_tensors
        layers = (len(saved) + 1) // 2
        weights, activations = saved[:layers], [inputs, *saved[layers:]]
        gradient = gradient.transpose(1, 2).contiguous()  # [P, out, R]
        last = inputs.new_empty(len(inputs), gradient.shape[1], weights[-1].shape[1])
        of_weights = [torch.empty_like(weight) for weight in weights[:-1]] + [last.transpose(1, 2)]
        of_biases = [torch.empty_like(weight[:, 0]) for weight in weights]
        for part in _parts(inputs, weights):
            torch.bmm(gradient[part], activations[-1][part], out=last[part])
            torch.sum(gradient[part], 2, out=of_biases[-1][part])
            error = gradient[part].transpose(1, 2)
            for i in reversed(range(1, layers)):
                above = activations[i][part]
                error = torch.bmm(error, weights[i][part].transpose(1, 2))
                ctx.activation.backward(error, above)
                below = activations[i - 1][part].transpose(1, 2)
                torch.bmm(below, error, out=of_weights[i - 1][part])
                torch.sum(error, 1, out=of_biases[i - 1][part])
        pairs = zip(of_weights, of_biases, strict=True)
        return None, None, *(gradient for pair in pairs for gradient in pair)


def _parts(inputs: Tensor, weights: Sequence[Tensor]) -> Iterator[slice]:
    """The lifetimes that go through all layers together.

    None goes alone: BLAS multiplies the single row of a single matrix by another routine, which
    rounds otherwise, and a lifetime would depend on its batch.
    """
    lifetimes, rows, _ = inputs.shape
    if inputs.is_cpu:
        widest = max(weight.shape[2] for weight in weights)
        together = max(2, CACHED // (rows * widest))
    else:
        together = lifetimes
    first = 0
    while first < lifetimes:
        last = lifetimes if lifetimes - first <= together + 1 else first + together
        yield slice(first, last)
        first = last
