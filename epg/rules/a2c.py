"""A2C as a rule, and what is learned of its return and entropy while it lives (Mnih et al. 2016,
arXiv 1602.01783; Xu, van Hasselt & Silver 2018, arXiv 1805.09801).

Shape letters: P agents, T steps, R rows, K policy outputs, E units of an embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from epg.agents.network import Parameters
from epg.rules.networks import HeadedNetworks
from epg.rules.returns import lambda_returns
from epg.rules.rollout import Rollout
from epg.rules.rule import Fixed, Rule, Update, entropy_of

EMBEDDING = "embedding"
OUTER_VALUE = "outer_value"
LEAST = 1e-3
"""From 0 and from 1 begins at least what is learned: a sigmoid is never either."""


def free_number(start: float) -> float:
    """Whose sigmoid is a number in 0 to 1, or next to it."""
    start = min(max(start, LEAST), 1 - LEAST)
    return math.log(start / (1 - start))


@dataclass(frozen=True)
class A2c(Rule):
    """Advantages times log-probabilities, squared errors of values, and entropy.

    η: free numbers of γ (`discount`) and λ (`smoothing`), of those in `learned`, each [P]; what is
    not learned stays as it is set.
    """

    networks: HeadedNetworks
    discount: float = 0.99
    """γ, at first if it is learned, and always in what η is judged by"""
    smoothing: float = 0.95
    """λ, likewise"""
    learned: tuple[str, ...] = ()
    """of discount, smoothing"""
    start: Mapping[str, float] = field(default_factory=dict)
    """what is learned at first, where it is not as above"""
    free: bool = False
    """whether η are γ and λ themselves, which may be anything, not what a sigmoid is of"""
    value_weight: float = 0.5
    entropy_weight: float = 0.01
    embedding: int = 0
    """E: policies and values see γ and λ through so many inputs; 0: they do not"""

    def __post_init__(self) -> None:
        if self.networks.context != self.embedding:
            raise ValueError(f"networks of context {self.networks.context}, not {self.embedding}")
        object.__setattr__(self, "distribution", self.networks.distribution)

    # What is learned

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        drawn = self.networks.init(rng)
        if self.embedding:
            weight = 0.1 * rng.standard_normal((len(self.learned), self.embedding))
            drawn[EMBEDDING] = weight.astype(np.float32)
        return drawn

    def init_eta(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {name: np.array(self._free(name), np.float32) for name in self.learned}

    def _free(self, name: str) -> float:
        start = float(self.start.get(name, getattr(self, name)))
        return start if self.free else free_number(start)

    def coefficient(self, eta: Parameters, name: str) -> Tensor | float:
        """[P, 1] γ or λ, or one number for all."""
        if name not in eta:
            return float(getattr(self, name))
        number = eta[name] if self.free else torch.sigmoid(eta[name])
        return number.unsqueeze(1)

    def shown(self, eta: Parameters, rollout: Rollout | None = None) -> dict[str, Tensor]:
        return {name: torch.as_tensor(self.coefficient(eta, name)).squeeze(1) for name in eta}

    # How θ is read

    def context(self, eta: Parameters, theta: Parameters) -> Tensor | None:
        """[P, E] what policies and values see of γ and λ, through which η gets no gradient."""
        if not self.embedding:
            return None
        numbers = [torch.as_tensor(self.coefficient(eta, name)) for name in self.learned]
        seen = torch.cat(numbers, 1).detach().unsqueeze(1)
        return torch.bmm(seen, theta[EMBEDDING]).squeeze(1)

    def features(self, eta: Parameters, theta: Parameters, observations: Tensor) -> Tensor:
        """[P, R, H]"""
        context = self.context(eta, theta)
        if context is not None:
            rows = context.unsqueeze(1).expand(-1, observations.shape[1], -1)
            observations = torch.cat((observations, rows), -1)
        return self.networks.features(theta, observations)

    def outputs(self, eta: Parameters, theta: Parameters, observations: Tensor) -> Tensor:
        return self.networks.outputs(theta, self.features(eta, theta, observations))

    def acting(self, eta: Parameters, theta: Parameters) -> Parameters:
        return self.networks.acting(theta, self.context(eta, theta))

    def values(
        self, eta: Parameters, theta: Parameters, rows: Tensor, head: str = "value"
    ) -> Tensor:
        """[P, R] of observations."""
        return self.networks.value(theta, self.features(eta, theta, rows), head)

    # What agents go down, and what η goes down

    def returns(self, eta: Parameters, theta: Parameters, rollout: Rollout) -> Tensor:
        """[P, T] g_η, with values of θ."""
        return lambda_returns(
            rollout.rewards,
            self.coefficient(eta, "discount") * rollout.going_on,
            self.values(eta, theta, rollout.next_observations),
            rollout.joined,
            self.coefficient(eta, "smoothing"),
        )

    def entropy_of_loss(self, eta: Parameters, rollout: Rollout | None) -> Tensor | float:
        """Weight of entropy, [P] or one number."""
        return self.entropy_weight

    def loss(
        self, eta: Parameters, theta: Parameters, frozen: Parameters, rollout: Rollout
    ) -> Tensor:
        targets = self.returns(eta, frozen, rollout)
        advantages = targets - self.values(eta, frozen, rollout.observations)
        features = self.features(eta, theta, rollout.observations)
        outputs = self.networks.outputs(theta, features)
        log_probs = self.distribution.log_prob(outputs, rollout.actions)
        errors = targets - self.networks.value(theta, features)
        total = (self.value_weight / 2 * errors.square() - advantages * log_probs).mean(1)
        total = total - self.entropy_of_loss(eta, rollout) * entropy_of(self.distribution, outputs)
        if OUTER_VALUE in self.networks.heads:
            found = self.networks.value(theta, features, OUTER_VALUE)
            errors = self.outer_returns(eta, frozen, rollout) - found
            total = total + self.value_weight / 2 * errors.square().mean(1)
        return total

    @property
    def outer_head(self) -> str:
        """Whose values η is judged with: of γ̄ and λ̄, where there is a head for them (Bonnet et
        al. 2022), else of those that are learned."""
        return OUTER_VALUE if OUTER_VALUE in self.networks.heads else "value"

    def outer_returns(self, eta: Parameters, theta: Parameters, rollout: Rollout) -> Tensor:
        """[P, T] g_η̄."""
        following = self.values(eta, theta, rollout.next_observations, self.outer_head)
        discounts = self.discount * rollout.going_on
        return lambda_returns(rollout.rewards, discounts, following, rollout.joined, self.smoothing)

    def outer(
        self, eta: Parameters, learned: Parameters, fixed: Fixed, rollouts: Sequence[Rollout],
        update: Update,
    ) -> Tensor:  # fmt: skip
        """The policy gradient's loss at γ̄ and λ̄ on the next rollout, no entropy, no values."""
        rollout = rollouts[-1]
        advantages = self.outer_returns(fixed.eta, fixed.theta, rollout) - self.values(
            fixed.eta, fixed.theta, rollout.observations, self.outer_head
        )
        outputs = self.outputs(fixed.eta, learned, rollout.observations)
        return -(advantages * self.distribution.log_prob(outputs, rollout.actions)).mean(1)
