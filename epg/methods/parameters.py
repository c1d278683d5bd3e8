"""How the parameters of a loss, and of an initial policy where one evolves, make one vector φ.

Shape letters: P lifetimes, D parameters of the loss, n of a policy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from epg.agents.network import Parameters
from epg.agents.spec import Shapes


@dataclass(frozen=True)
class ParameterSpec:
    """The layout of φ: first the loss, then the initial policy, which is empty if none evolves."""

    loss: Shapes
    policy: Shapes

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of everything in φ, in order."""
        return {**self.loss, **self.policy}

    @cached_property
    def size(self) -> int:
        """Length of φ."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def split(self, phi: Tensor) -> tuple[Parameters, Tensor | None]:
        """φ [P, size] to the losses' parameters by name, views of [P, *shape], and policies [P, n].

        The policies are None if none evolves.
        """
        *pieces, policy = phi.split(
            [*(math.prod(shape) for shape in self.loss.values()),
             sum(math.prod(shape) for shape in self.policy.values())], dim=1,
        )  # fmt: skip
        named = {
            name: piece.reshape(len(phi), *shape)
            for (name, shape), piece in zip(self.loss.items(), pieces, strict=True)
        }
        return named, policy if self.policy else None

    def name(self, phi: Tensor) -> dict[str, Tensor]:
        """φ [size] as tensors by name."""
        pieces = phi.split([math.prod(shape) for shape in self.shapes.values()])
        return {
            name: piece.reshape(shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def flatten(self, named: Mapping[str, Tensor]) -> Tensor:
        """The inverse of `name`."""
        return torch.cat([named[name].reshape(-1) for name in self.shapes])
