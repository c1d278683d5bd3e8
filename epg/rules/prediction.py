"""A value function that learns by λ-returns whose γ and λ are learned, for each state if one likes
(Xu, van Hasselt & Silver 2018, arXiv 1805.09801).

Shape letters: P learners, T steps, D features, S states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from epg.agents.distributions import Categorical
from epg.agents.network import Parameters
from epg.rules.a2c import free_number
from epg.rules.returns import lambda_returns
from epg.rules.rollout import Rollout
from epg.rules.rule import Fixed, Rule, Update

VALUE = "value"


@dataclass(frozen=True)
class Prediction(Rule):
    """Linear values θ [P, D] of observations [P, T, D], which go down squared errors.

    η: free numbers of those in `learned`, each [P], or [P, S] with one for each state; which state
    a row enters, the rewards' place in `states` says.
    """

    features: int
    """D"""
    discount: float = 1.0
    smoothing: float = 1.0
    learned: tuple[str, ...] = ("discount", "smoothing")
    start: float | None = None
    """the free number that is learned, at first; None: that of what is set above"""
    states: Tensor | None = None
    """[T] int64: the state that each row of a rollout enters, if η is of states"""
    free: bool = False
    """whether η are γ and λ themselves"""
    distribution = Categorical(1)

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {VALUE: np.zeros(self.features, np.float32)}

    def init_eta(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        shape = () if self.states is None else (int(self.states.max()) + 1,)
        return {name: np.full(shape, self._free(name), np.float32) for name in self.learned}

    def _free(self, name: str) -> float:
        if self.start is not None:
            return self.start
        number = float(getattr(self, name))
        return number if self.free else free_number(number)

    def coefficient(self, eta: Parameters, name: str) -> Tensor | float:
        """[P, 1], [P, T] of the states entered, or one number for all."""
        if name not in eta:
            return float(getattr(self, name))
        numbers = eta[name] if self.free else torch.sigmoid(eta[name])
        return numbers.unsqueeze(1) if self.states is None else numbers[:, self.states]

    def values(self, theta: Parameters, rows: Tensor) -> Tensor:
        """[P, T]"""
        return (rows * theta[VALUE].unsqueeze(1)).sum(-1)

    def returns(self, eta: Parameters, theta: Parameters, rollout: Rollout) -> Tensor:
        """[P, T] g_η."""
        return lambda_returns(
            rollout.rewards, self.coefficient(eta, "discount") * rollout.going_on,
            self.values(theta, rollout.next_observations), rollout.joined,
            self.coefficient(eta, "smoothing"),
        )  # fmt: skip

    def loss(
        self, eta: Parameters, theta: Parameters, frozen: Parameters, rollout: Rollout
    ) -> Tensor:
        errors = self.returns(eta, frozen, rollout) - self.values(theta, rollout.observations)
        return errors.square().mean(1) / 2

    def outer(
        self, eta: Parameters, learned: Parameters, fixed: Fixed, rollouts: Sequence[Rollout],
        update: Update,
    ) -> Tensor:  # fmt: skip
        """Squared errors of values from g_η̄ on the next rollout, which counts as constant."""
        errors = self.returns({}, fixed.theta, rollouts[-1]) - self.values(
            learned, rollouts[-1].observations
        )
        return errors.square().mean(1)

    def outputs(self, eta: Parameters, theta: Parameters, observations: Tensor) -> Tensor:
        return torch.zeros(*observations.shape[:2], 1)

    def acting(self, eta: Parameters, theta: Parameters) -> Parameters:
        raise RuntimeError("values are predicted; nothing acts")
