"""Tanh networks, P of them at once.

Shape letters: P lifetimes, R rows.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

Parameters = dict[str, Tensor]
"""Parameters by name, each with a leading axis P."""


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


def mlp(parameters: Parameters, name: str, layers: int, inputs: Tensor) -> Tensor:
    """Tanh between layers, none after the last: [P, R, in] to [P, R, out]."""
    hidden = inputs
    for i in range(layers):
        bias = parameters[f"{name}.{i}.bias"].unsqueeze(1)
        hidden = torch.baddbmm(bias, hidden, parameters[f"{name}.{i}.weight"])
        if i < layers - 1:
            hidden = torch.tanh(hidden)
    return hidden
