"""Action distributions behind one interface, for any leading shape.

A policy's `outputs` are what its network says, [..., K]: for a Gaussian the mean and the log
standard deviation (K = 2A), for a categorical the log-probabilities (K = A).
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


class Distribution(Protocol):
    """What policies, losses and lifetimes need of an action distribution."""

    action_size: int
    """Dimensions of a continuous action, or the number of discrete ones."""
    output_size: int
    """K, the policy outputs per row."""
    discrete: bool

    def features(self, outputs: Tensor) -> Tensor:
        """What a learned loss is shown of the policy, [..., K]."""

    def encode(self, actions: Tensor) -> Tensor:
        """Actions as features, [..., A] float32."""

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """Log-density or log-probability of the actions, [...]."""

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        """KL(old || new), [...]."""

    def entropy(self, outputs: Tensor) -> Tensor:
        """Entropy in nats, [...]."""

    def relative_entropy(self, outputs: Tensor) -> Tensor:
        """Entropy above that of a policy that knows nothing, in nats a dimension, [...]."""

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """The chance in actions, drawn ahead: [*shape, …] for `sample`."""

    def spread(self, noise: Tensor, log_std: Tensor | None) -> Tensor:
        """Noise [P, R, …] in the units of what the policy's network says; log_std [P, A]."""

    def sample(self, head: Any, spread: Any) -> Any:
        """Actions, a function of what the network says, [..., A], and of noise made ready.

        All of them arrays of NumPy, or all of them tensors.
        """


class Gaussian:
    """Diagonal normal with a state-independent log standard deviation."""

    discrete = False

    def __init__(self, action_size: int) -> None:
        self.action_size = action_size
        self.output_size = 2 * action_size

    def features(self, outputs: Tensor) -> Tensor:
        return outputs

    def encode(self, actions: Tensor) -> Tensor:
        return actions

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        mean, log_std = outputs.chunk(2, dim=-1)
        scaled = (actions - mean) * torch.exp(-log_std)
        return -(0.5 * scaled**2 + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        mean0, log_std0 = old.chunk(2, dim=-1)
        mean1, log_std1 = new.chunk(2, dim=-1)
        ratio = (torch.exp(2 * log_std0) + (mean0 - mean1) ** 2) / (2 * torch.exp(2 * log_std1))
        return (log_std1 - log_std0 + ratio - 0.5).sum(-1)

    def entropy(self, outputs: Tensor) -> Tensor:
        log_std = outputs.chunk(2, dim=-1)[1]
        return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def relative_entropy(self, outputs: Tensor) -> Tensor:
        return outputs.chunk(2, dim=-1)[1].mean(-1)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.standard_normal((*shape, self.action_size), dtype=np.float32)

    def spread(self, noise: Tensor, log_std: Tensor | None) -> Tensor:
        assert log_std is not None
        return torch.exp(log_std).unsqueeze(1) * noise

    def sample(self, head: Any, spread: Any) -> Any:
        return head + spread


class Categorical:
    """A probability for each of A discrete actions."""

    discrete = True

    def __init__(self, action_size: int) -> None:
        self.action_size = action_size
        self.output_size = action_size

    def features(self, outputs: Tensor) -> Tensor:
        return torch.exp(outputs)

    def encode(self, actions: Tensor) -> Tensor:
        return functional.one_hot(actions, self.action_size).to(torch.float32)

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        return outputs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        return (torch.exp(old) * (old - new)).sum(-1)

    def entropy(self, outputs: Tensor) -> Tensor:
        return -(torch.exp(outputs) * outputs).sum(-1)

    def relative_entropy(self, outputs: Tensor) -> Tensor:
        return self.entropy(outputs) - math.log(self.action_size)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.random(shape, dtype=np.float32)

    def spread(self, noise: Tensor, log_std: Tensor | None) -> Tensor:
        return noise

    def sample(self, head: Any, spread: Any) -> Any:
        if isinstance(head, np.ndarray):
            return self.sample(torch.from_numpy(head), torch.from_numpy(spread)).numpy()
        above = functional.softmax(head, -1).cumsum(-1) <= spread.unsqueeze(-1)
        return above.sum(-1).clamp(max=self.action_size - 1)


def distribution_of(discrete: bool, action_size: int) -> Distribution:
    """The distribution that fits a task's actions."""
    return Categorical(action_size) if discrete else Gaussian(action_size)
