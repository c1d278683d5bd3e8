"""The evolution strategy: EvoTorch's functional PGPE with ours for fitness shaping and noise.

PGPE: Sehnke et al. 2010; ClipUp: Toklu et al. 2020 (arXiv 2008.02387).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from evotorch.algorithms.functional import adam, clipup, pgpe, pgpe_tell
from evotorch.algorithms.functional.funcadam import adam_ask, adam_tell
from evotorch.algorithms.functional.funcclipup import clipup_ask, clipup_tell
from torch import Tensor

from epg.config import Evolution

OPTIMIZERS = {"adam": (adam, adam_ask, adam_tell), "clipup": (clipup, clipup_ask, clipup_tell)}
MOVING = {"adam": ("center", "m", "v", "t"), "clipup": ("center", "velocity")}
"""What of an optimiser's state changes from step to step; the rest is configuration."""


class Strategy:
    """φ and what moves it. Its whole state is `tensors()`."""

    def __init__(self, settings: Evolution, phi: Tensor) -> None:
        self.settings = settings
        self.gradient = torch.zeros_like(phi)
        """the newest ES gradient, before weight decay; ascent goes along it"""
        start, ask, tell = OPTIMIZERS[settings.optimizer]

        def tell_with_decay(state: Any, *, follow_grad: Tensor) -> Any:
            self.gradient = follow_grad
            sigma = float(self._pgpe.stdev[0])
            return tell(state, follow_grad=follow_grad - settings.weight_decay * sigma * ask(state))

        self._pgpe = pgpe(
            center_init=phi,
            center_learning_rate=1.0,
            stdev_learning_rate=0.0,
            stdev_init=1.0,
            objective_sense="max",
            ranking_method="raw",
            optimizer=(start, ask, tell_with_decay),
            optimizer_config=(
                {"beta1": settings.beta1, "beta2": settings.beta2}
                if settings.optimizer == "adam"
                else {"momentum": settings.momentum}
            ),
        )

    @property
    def phi(self) -> Tensor:
        """[size] float32"""
        center: Tensor = self._pgpe.optimizer_state.center
        return center

    def step(self, generation: int, candidates: np.ndarray, weights: np.ndarray) -> None:
        """Move φ: candidates [n, 2, size] as they were evaluated, weights [n, 2] of their fitness.

        Where no pair prefers a sign nothing moves, momentum and decay included.
        """
        if (weights[:, 0] == weights[:, 1]).all():
            self.gradient = torch.zeros_like(self.phi)
            return
        sigma = self.settings.sigma.at(generation)
        rate = self.settings.learning_rate.at(generation)
        optimizer = self._pgpe.optimizer_state
        optimizer = optimizer._replace(center_learning_rate=torch.tensor(rate))
        if self.settings.optimizer == "clipup":
            speed = self.settings.max_speed or 2 * rate
            optimizer = optimizer._replace(max_speed=torch.tensor(speed))
        self._pgpe = self._pgpe._replace(
            optimizer_state=optimizer, stdev=torch.full_like(self.phi, sigma)
        )
        self._pgpe = pgpe_tell(
            self._pgpe,
            torch.from_numpy(candidates.reshape(-1, candidates.shape[-1])),
            torch.from_numpy(weights.reshape(-1).astype(np.float32)),
        )

    def tensors(self) -> dict[str, Tensor]:
        """All that must be kept to go on."""
        moving = MOVING[self.settings.optimizer]
        state = {name: getattr(self._pgpe.optimizer_state, name) for name in moving}
        return state | {"gradient": self.gradient}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from `tensors()` of before."""
        moving = {name: tensors[name] for name in MOVING[self.settings.optimizer]}
        self.gradient = tensors["gradient"]
        self._pgpe = self._pgpe._replace(
            optimizer_state=self._pgpe.optimizer_state._replace(**moving)
        )


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two vectors; NaN if one of them is 0."""
    norms = float(a.norm() * b.norm())
    return float(a @ b) / norms if norms else math.nan
