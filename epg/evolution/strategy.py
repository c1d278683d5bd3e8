"""The evolution strategy: PGPE's gradient at a scheduled σ, followed by EvoTorch's optimisers.

PGPE: Sehnke et al. 2010; ClipUp: Toklu et al. 2020 (arXiv 2008.02387).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from evotorch.algorithms.functional import adam, clipup
from evotorch.algorithms.functional.funcadam import adam_tell
from evotorch.algorithms.functional.funcclipup import clipup_tell
from torch import Tensor

from epg.chunk import draw_epsilon
from epg.config import Evolution

OPTIMIZERS = {"adam": (adam, adam_tell), "clipup": (clipup, clipup_tell)}
MOVING = {"adam": ("center", "m", "v", "t"), "clipup": ("center", "velocity")}
"""What of an optimiser's state changes from step to step; the rest is configuration."""


class Strategy:
    """φ and what moves it. Its whole state is `tensors()`."""

    def __init__(self, settings: Evolution, phi: Tensor) -> None:
        self.settings = settings
        self.gradient = torch.zeros_like(phi)
        """the newest ES gradient, before weight decay; ascent goes along it"""
        start, self._tell = OPTIMIZERS[settings.optimizer]
        more = (
            {"beta1": settings.beta1, "beta2": settings.beta2}
            if settings.optimizer == "adam"
            else {"momentum": settings.momentum}
        )
        self._state = start(center_init=phi, center_learning_rate=1.0, **more)

    @property
    def phi(self) -> Tensor:
        """[size] float32"""
        center: Tensor = self._state.center
        return center

    def step(self, generation: int, noise: np.ndarray, weights: np.ndarray) -> None:
        """Move φ: ε of all pairs [n, size], weights [n, 2] of the fitness of φ + σε and φ − σε.

        The gradient is PGPE's, the mean over pairs of σε times half the difference of the weights.
        Where no pair prefers a sign nothing moves, momentum and decay included.
        """
        if (weights[:, 0] == weights[:, 1]).all():
            self.gradient = torch.zeros_like(self.phi)
            return
        sigma = self.settings.sigma.at(generation)
        rate = self.settings.learning_rate.at(generation)
        self._state = self._state._replace(center_learning_rate=torch.tensor(rate))
        if self.settings.optimizer == "clipup":
            speed = self.settings.max_speed or 2 * rate
            self._state = self._state._replace(max_speed=torch.tensor(speed))
        preference = sigma * (weights[:, 0] - weights[:, 1]) / (2 * len(weights))
        self.gradient = torch.from_numpy(preference.astype(np.float32)) @ torch.from_numpy(noise)
        decay = self.settings.weight_decay * sigma * self.phi
        self._state = self._tell(self._state, follow_grad=self.gradient - decay)

    def tensors(self) -> dict[str, Tensor]:
        """All that must be kept to go on."""
        moving = MOVING[self.settings.optimizer]
        return {name: getattr(self._state, name) for name in moving} | {"gradient": self.gradient}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from `tensors()` of before."""
        self.gradient = tensors["gradient"]
        moving = {name: tensors[name] for name in MOVING[self.settings.optimizer]}
        self._state = self._state._replace(**moving)


class Noise:
    """The ε of all pairs of a generation, drawn while the farm is at work."""

    def __init__(self, seed: int, generation: int, pairs: int, size: int) -> None:
        self._seed, self._generation = seed, generation
        self._drawn = np.empty((pairs, size), dtype=np.float32)
        self._count = 0

    def draw_ahead(self, pairs: int) -> None:
        """Draw some more, if any are left."""
        last = min(self._count + pairs, len(self._drawn))
        for pair in range(self._count, last):
            self._drawn[pair] = draw_epsilon(
                self._seed, self._generation, pair, self._drawn.shape[1]
            )
        self._count = last

    def of(self, pairs: Sequence[int]) -> np.ndarray:
        """Those of some pairs, ascending: [len(pairs), size] float32; no copy if it is all."""
        self.draw_ahead(len(self._drawn))
        return self._drawn if len(pairs) == len(self._drawn) else self._drawn[pairs]


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two vectors; NaN if one of them is 0."""
    norms = float(a.norm() * b.norm())
    return float(a @ b) / norms if norms else math.nan
