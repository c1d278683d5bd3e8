"""The evolution strategy: PGPE's gradient at a scheduled σ, followed by an optimiser.

PGPE: Sehnke et al. 2010.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from pydantic import (
    Field,
    NonNegativeFloat,
    SerializeAsAny,
    field_validator,
    model_validator,
)
from torch import Tensor

from epg.errors import RunError
from epg.evolution.optimizer import make_optimizer
from epg.settings import Count, Named, Schedule, choose, constant


class EvolutionSettings(Named):
    """How an evolution strategy moves what evolves."""

    pairs: Count = Field(32, description="antithetic pairs in a generation")
    sigma: Schedule = Field(constant(0.05), description="σ, standard deviation of perturbations")
    shaping: SerializeAsAny[Named] = Field(
        "pair",
        validate_default=True,
        description="how fitness becomes weight: pair, by sign and rank of the difference within "
        "each pair; centered_rank, by the rank among all (needs task_draw: generation); or "
        "module:Class",
    )
    optimizer: SerializeAsAny[Named] = Field(
        "adam",
        validate_default=True,
        description="what moves φ: adam or {name: adam, beta1: …, beta2: …}; clipup or "
        "{name: clipup, momentum: …, max_speed: …}; or module:Class",
    )
    learning_rate: Schedule = Field(constant(0.02), description="of the optimizer")
    weight_decay: NonNegativeFloat = Field(
        0.0, description="L2 coefficient for a gradient in units of ε, as in the EPG paper"
    )

    @field_validator("shaping", "optimizer", mode="before")
    @classmethod
    def _chosen(cls, given: Any, info: Any) -> Named:
        return choose(info.field_name, given)

    @model_validator(mode="after")
    def _above_0(self) -> EvolutionSettings:
        if self.sigma.start <= 0 or self.sigma.end <= 0:
            raise ValueError("sigma must be above 0 at all times")
        return self


class Strategy:
    """φ and what moves it. Its whole state is `state_dict()`."""

    def __init__(self, settings: EvolutionSettings, phi: Tensor) -> None:
        self.settings = settings
        self.gradient = torch.zeros_like(phi)
        """the newest ES gradient, before weight decay; ascent goes along it"""
        self._optimizer = make_optimizer(settings.optimizer, phi)

    @property
    def phi(self) -> Tensor:
        """[size] float32"""
        return self._optimizer.phi

    def step(
        self, generation: int, noise: np.ndarray, weights: np.ndarray
    ) -> dict[str, float | None]:
        """Move φ: ε of all pairs [n, size], weights [n, 2] of the fitness of φ + σε and φ − σε.

        The gradient is PGPE's, the mean over pairs of σε times half the difference of the weights.
        Where no pair prefers a sign nothing moves, momentum and decay included.
        Columns of metrics.csv. Raises `RunError` if φ leaves the finite.
        """
        sigma = self.settings.sigma.at(generation)
        rate = self.settings.learning_rate.at(generation)
        norm, before = float(self.phi.norm()), self.gradient
        if (weights[:, 0] == weights[:, 1]).all():
            self.gradient = torch.zeros_like(self.phi)
        else:
            self._move(sigma, rate, noise, weights)
        if not torch.isfinite(self.phi).all():
            raise RunError(f"φ left the finite in generation {generation + 1}")
        turn = cosine(before, self.gradient)
        return {
            "gradient_cosine": turn if math.isfinite(turn) else None,
            "phi_norm": norm,
            "sigma": sigma,
            "learning_rate": rate,
        }

    def _move(self, sigma: float, rate: float, noise: np.ndarray, weights: np.ndarray) -> None:
        preference = sigma * (weights[:, 0] - weights[:, 1]) / (2 * len(weights))
        self.gradient = torch.from_numpy(preference.astype(np.float32)) @ torch.from_numpy(noise)
        decay = self.settings.weight_decay * sigma * self.phi
        self._optimizer.step(self.gradient - decay, rate)

    def state_dict(self) -> dict[str, Tensor]:
        """All that must be kept to go on."""
        return self._optimizer.state_dict() | {"gradient": self.gradient}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a state of before."""
        self.gradient = state["gradient"]
        self._optimizer.load_state_dict(state)


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two vectors; NaN if one of them is 0."""
    norms = float(a.norm() * b.norm())
    return float(a @ b) / norms if norms else math.nan
