"""STAC and STACX: an actor-critic with V-trace whose every coefficient is learned, with heads of
other coefficients that shape what it sees (Zahavy et al. 2020, arXiv 2002.12928).

Shape letters: P agents, T steps, N heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from epg.agents.network import Parameters
from epg.rules.networks import HeadedNetworks
from epg.rules.returns import bootstrapped, vtrace
from epg.rules.rollout import Rollout
from epg.rules.rule import Fixed, Rule, Update

NAMES = (
    "discount", "smoothing", "policy_weight", "value_weight", "entropy_weight", "leak_ratio",
    "leak_trace",
)  # fmt: skip
"""γ, λ, g_p, g_v, g_e, α_ρ, α_c: each the sigmoid of a free number."""
WEIGHTS = ("policy_weight", "value_weight", "entropy_weight")
"""Of which each is also times its outer value."""
MOST = 20.0
"""Of the logarithm of a ratio π/μ: beyond float32's range a leak of 0 times it is no number."""
START = 4.6
"""Of free numbers, whose sigmoid is 0.99 (recalled, not read in the paper)."""


def heads(count: int) -> tuple[tuple[str, ...], dict[str, int]]:
    """Names of so many policies, and the sizes of their values."""
    return tuple(f"policy{n}" for n in range(count)), {f"value{n}": 1 for n in range(count)}


@dataclass(frozen=True)
class Stacx(Rule):
    """V-trace actor-critics on one torso, of which the first acts.

    η: free numbers by the names in `learned`, each [P, N], for N heads.
    """

    networks: HeadedNetworks
    learned: tuple[str, ...] = NAMES
    outer_values: Mapping[str, float] = field(
        default_factory=lambda: {
            "discount": 0.995, "smoothing": 1.0, "policy_weight": 1.0, "value_weight": 0.25,
            "entropy_weight": 0.01, "leak_ratio": 1.0, "leak_trace": 1.0,
        }
    )  # fmt: skip
    """of the first head in what η is judged by, and of all where they are not learned"""
    kl_weight: float = 1.0
    """of how far an update took the policy, in what η is judged by"""
    tie_leak: bool = False
    """whether ρ and c leak alike"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "distribution", self.networks.distribution)

    @property
    def count(self) -> int:
        """N"""
        return len(self.networks.policies)

    # What is learned

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return self.networks.init(rng)

    def init_eta(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        learned = [n for n in self.learned if not (n == "leak_trace" and self.tie_leak)]
        return {name: np.full(self.count, START, np.float32) for name in learned}

    def coefficient(self, eta: Parameters, name: str, head: int) -> Tensor | float:
        """[P, 1], or one number for all."""
        if name == "leak_trace" and self.tie_leak:
            name = "leak_ratio"
        if name not in eta:
            return self.outer_values[name]
        scale = self.outer_values[name] if name in WEIGHTS else 1.0
        return scale * torch.sigmoid(eta[name][:, head : head + 1])

    def shown(self, eta: Parameters, rollout: Rollout | None = None) -> dict[str, Tensor]:
        return {name: torch.as_tensor(self.coefficient(eta, name, 0)).squeeze(1) for name in eta}

    # How θ is read

    def outputs(self, eta: Parameters, theta: Parameters, observations: Tensor) -> Tensor:
        features = self.networks.features(theta, observations)
        return self.networks.outputs(theta, features, self.networks.policies[0])

    def acting(self, eta: Parameters, theta: Parameters) -> Parameters:
        return self.networks.acting(theta)

    # What agents go down, and what η goes down

    def loss(
        self, eta: Parameters, theta: Parameters, frozen: Parameters, rollout: Rollout
    ) -> Tensor:
        total: Tensor | float = 0.0
        for head in range(self.count):
            total = total + self._loss_of(eta, head, theta, frozen, rollout)
        assert isinstance(total, Tensor)
        return total

    def _loss_of(
        self, eta: Parameters, head: int, theta: Parameters, frozen: Parameters, rollout: Rollout
    ) -> Tensor:
        """[P] of one head."""
        networks, name = self.networks, self.networks.policies[head]

        def now(coefficient: str) -> Tensor | float:
            return self.coefficient(eta, coefficient, head)

        # what every step should have been worth, of constants
        seen = networks.features(frozen, rollout.observations)
        after = networks.features(frozen, rollout.next_observations)
        values = networks.value(frozen, seen, f"value{head}")
        following = networks.value(frozen, after, f"value{head}")
        constant = networks.outputs(frozen, seen, name)
        log_mu = rollout.behaviour
        if log_mu is None:  # the first head acted, as it is
            acted = networks.outputs(frozen, seen, networks.policies[0])
            log_mu = self.distribution.log_prob(acted, rollout.actions).detach()
        log_ratios = self.distribution.log_prob(constant, rollout.actions) - log_mu
        ratios = torch.exp(log_ratios.clamp(max=MOST))
        discounts = now("discount") * rollout.going_on
        leak = (now("leak_ratio"), now("leak_trace"))
        targets, weights = vtrace(
            values, following, rollout.rewards, discounts, rollout.joined, ratios,
            now("smoothing"), leak,
        )  # fmt: skip
        worth = bootstrapped(rollout.rewards, discounts, targets, values, following, rollout.joined)
        advantages = weights * (worth - values)
        # what moves
        features = networks.features(theta, rollout.observations)
        outputs = networks.outputs(theta, features, name)
        log_probs = self.distribution.log_prob(outputs, rollout.actions)
        errors = targets - networks.value(theta, features, f"value{head}")
        rows = (
            now("value_weight") / 2 * errors.square()
            - now("policy_weight") * advantages * log_probs
            - now("entropy_weight") * self.distribution.entropy(outputs)
        )
        return rows.mean(1)

    def outer(
        self, eta: Parameters, learned: Parameters, fixed: Fixed, rollouts: Sequence[Rollout],
        update: Update,
    ) -> Tensor:  # fmt: skip
        """The first head's loss at outer values on the next rollout, targets constant, and the
        divergence from the policy of before."""
        rollout = rollouts[-1]
        total = self._loss_of({}, 0, learned, fixed.theta, rollout)
        after = self.outputs(eta, learned, rollout.observations)
        before = self.outputs(eta, fixed.start, rollout.observations)
        # the direction is the survey's: from what it has become to what it was
        return total + self.kl_weight * self.distribution.kl(after, before).mean(1)
