"""P policies as they stand, made ready to act many times.

Shape letters: P lifetimes, R rows, O observation, A action.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from epg.agents.distributions import Distribution
from epg.agents.network import ACTIVATIONS, Parameters


class Actor:
    """It shares the parameters of its agents, and is good until they learn.

    A step is a dozen operations on small arrays, and NumPy starts one in a third of the time that
    torch needs. On the CPU all arrays are NumPy's views of the tensors; elsewhere they are tensors.
    """

    def __init__(
        self,
        parameters: Parameters,
        layers: int,
        normalise: tuple[Tensor, Tensor],
        distribution: Distribution,
        activation: str,
    ) -> None:
        """parameters: of a network "policy" of so many layers; normalise: mean and scale of
        observations, each [P, 1, O]."""
        self._on_cpu = next(iter(parameters.values())).is_cpu
        chosen = ACTIVATIONS[activation]
        self._activate: Any = chosen.array if self._on_cpu else chosen.tensor
        self._mean, self._scale = map(self._array, normalise)
        self._layers = [
            (
                self._array(parameters[f"policy.{i}.weight"]),
                self._array(parameters[f"policy.{i}.bias"].unsqueeze(1)),
            )
            for i in range(layers)
        ]
        self._log_std = parameters.get("policy.log_std")
        self._distribution = distribution

    @torch.no_grad()
    def spread(self, noise: Tensor) -> Any:
        """Noise [P, T, …] of T rows as it is added to what the policies say of each: an array."""
        return self._array(self._distribution.spread(noise, self._log_std))

    def act(self, observations: Tensor, spread: Any) -> Tensor:
        """Sampled actions for raw observations [P·R, O] and a spread [P, R, …].

        [P·R, A] float32, or [P·R] int64.
        """
        rows = self._array(observations).reshape(*spread.shape[:2], -1)
        hidden = (self._single(rows) - self._mean) * self._scale
        last = len(self._layers) - 1
        for i, (weight, bias) in enumerate(self._layers):
            hidden = hidden @ weight
            hidden += bias
            if i < last:
                self._activate(hidden)
        actions = self._distribution.sample(hidden, spread)
        actions = actions.reshape(len(observations), *actions.shape[2:])
        return torch.from_numpy(actions) if self._on_cpu else actions

    def _array(self, tensor: Tensor) -> Any:
        tensor = tensor.detach()
        return tensor.numpy() if self._on_cpu else tensor

    def _single(self, array: Any) -> Any:
        return array.astype(np.float32) if self._on_cpu else array.to(torch.float32)
