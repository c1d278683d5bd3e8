"""Steps of optimisers for P agents at once, out of place, which can be differentiated themselves.

Parameters, gradients and states are tensors by name, each [P, …], and agents never mix. A learning
rate is one number for all or a tensor [P]. The formulas are those of torch.optim.

Shape letters: P agents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from epg.agents.network import Parameters

State = dict[str, Tensor]
"""Flat: "<kind>.<name of the parameter>", each [P, …], and Adam's "step", a scalar."""
Stepped = tuple[Parameters, State]

Denominator = Literal["stopped", "smooth", "exact"]
"""How the root of the mean square v divides a step, and what flows back through it.

exact: sqrt(v) + ε and its full gradient, NaN or infinite where all gradients so far were exactly 0.
stopped: the same number held constant; meta-gradients leave out how the denominator changes.
smooth: sqrt(v + ε²), not the number of torch, and its full gradient, finite while ε² is not 0.
In all three a step's slope by a gradient near 0 is about learning_rate / ε, large for a small ε.
"""


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent, as torch.optim.SGD."""

    learning_rate: float | Tensor
    momentum: float = 0.0

    def init(self, parameters: Parameters) -> State:
        """The state before the first step: "velocity" if there is momentum, else empty."""
        return _zeros("velocity", parameters) if self.momentum else {}

    def step(self, parameters: Parameters, state: State, gradients: Parameters) -> Stepped:
        """New parameters and state, each leaf [P, …] as before."""
        moved, after = {}, {}
        for name, parameter in parameters.items():
            direction = gradients[name]
            if self.momentum:
                direction = self.momentum * state[f"velocity.{name}"] + direction
                after[f"velocity.{name}"] = direction
            moved[name] = parameter - _fit(self.learning_rate, parameter) * direction
        return moved, after


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015, arXiv 1412.6980), as torch.optim.Adam."""

    learning_rate: float | Tensor
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    denominator: Denominator = "stopped"

    def init(self, parameters: Parameters) -> State:
        """The state before the first step: "mean", "square" and the count "step"."""
        return _zeros("mean", parameters) | _zeros("square", parameters) | {"step": torch.tensor(0)}

    def step(self, parameters: Parameters, state: State, gradients: Parameters) -> Stepped:
        """New parameters and state, each leaf [P, …] as before."""
        moved, after = {}, {"step": state["step"] + 1}
        step = int(after["step"])
        for name, parameter in parameters.items():
            mean = self.beta1 * state[f"mean.{name}"] + (1 - self.beta1) * gradients[name]
            seen = constant(gradients[name]) if self.denominator == "stopped" else gradients[name]
            square = self.beta2 * state[f"square.{name}"] + (1 - self.beta2) * seen.square()
            divisor = _divisor(square / (1 - self.beta2**step), self.epsilon, self.denominator)
            direction = mean / (1 - self.beta1**step) / divisor
            moved[name] = parameter - _fit(self.learning_rate, parameter) * direction
            after |= {f"mean.{name}": mean, f"square.{name}": square}
        return moved, after


@dataclass(frozen=True)
class RmsProp:
    """RMSProp (Tieleman & Hinton 2012, Coursera lecture 6.5), as torch.optim.RMSprop."""

    learning_rate: float | Tensor
    decay: float = 0.99
    epsilon: float = 1e-8
    denominator: Denominator = "stopped"

    def init(self, parameters: Parameters) -> State:
        """The state before the first step: "square"."""
        return _zeros("square", parameters)

    def step(self, parameters: Parameters, state: State, gradients: Parameters) -> Stepped:
        """New parameters and state, each leaf [P, …] as before."""
        moved, after = {}, {}
        for name, parameter in parameters.items():
            seen = constant(gradients[name]) if self.denominator == "stopped" else gradients[name]
            square = self.decay * state[f"square.{name}"] + (1 - self.decay) * seen.square()
            direction = gradients[name] / _divisor(square, self.epsilon, self.denominator)
            moved[name] = parameter - _fit(self.learning_rate, parameter) * direction
            after[f"square.{name}"] = square
        return moved, after


def clip_by_norm(gradients: Parameters, norm: float, epsilon: float = 1e-6) -> Parameters:
    """Gradients [P, …], each agent's scaled as by torch.nn.utils.clip_grad_norm_ for it alone;
    epsilon: that is added to their norm there; 0 as in tf.clip_by_global_norm."""
    square = norms_of(gradients, square=True)
    kept = (square.sqrt() + epsilon <= norm) | (square == 0)  # not NaN, which stays NaN
    # No root is taken of what is kept, so gradients of 0 have finite derivatives of any order.
    scale = torch.where(kept, 1.0, norm / (torch.where(kept, 1.0, square).sqrt() + epsilon))
    return {name: gradient * _fit(scale, gradient) for name, gradient in gradients.items()}


def norms_of(leaves: Parameters, square: bool = False) -> Tensor:
    """[P] the norm of all leaves of an agent together, or its square.

    Leaf by leaf: torch's sum over a stack of them rounds otherwise in other batches.
    """
    total: Tensor | float = 0.0
    for leaf in leaves.values():
        total = total + leaf.reshape(len(leaf), -1).square().sum(1)
    assert isinstance(total, Tensor)
    return total if square else total.sqrt()


def constant(tensor: Tensor) -> Tensor:
    """The same numbers, through which nothing is differentiated, neither backwards nor forwards."""
    primal: Tensor = forward_ad.unpack_dual(tensor).primal
    return primal.detach()


def _zeros(kind: str, parameters: Parameters) -> State:
    return {f"{kind}.{name}": torch.zeros_like(parameter) for name, parameter in parameters.items()}


def _fit(numbers: float | Tensor, leaf: Tensor) -> float | Tensor:
    """Numbers [P] in the dtype of a leaf [P, …] and with its number of axes: [P, 1, …]."""
    shape = (-1, *[1] * (leaf.ndim - 1))
    return numbers.to(leaf).reshape(shape) if isinstance(numbers, Tensor) else numbers


def _divisor(square: Tensor, epsilon: float, kind: Denominator) -> Tensor:
    return (square + epsilon**2).sqrt() if kind == "smooth" else square.sqrt() + epsilon
