"""BMG: what is learned is judged by how near it came to where the agent is some updates later
(Flennerhag et al. 2022, arXiv 2109.04504), here of the weight of entropy.

Shape letters: P agents, R newest rollouts, H hidden units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from epg.agents.network import Parameters
from epg.rules.a2c import LEAST, A2c
from epg.rules.rollout import Rollout
from epg.rules.rule import Fixed, Update

SEEN = 10
"""R, rollouts whose mean rewards the weight may hang on."""
WEIGHT = "entropy"


@dataclass(frozen=True)
class LearnedEntropy(A2c):
    """A2C, the weight of whose entropy is learned, judged by the policy gradient as usual.

    η: `entropy` [P], whose softplus is the weight; with `units` a network of the newest rewards in
    its place: entropy.0.weight [P, R, H], …
    """

    units: int = 0
    """H; 0: one number"""

    def init_eta(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        least = max(self.entropy_weight, LEAST)
        free = least + math.log(-math.expm1(-least))  # whose softplus it is
        if not self.units:
            return {WEIGHT: np.array(free, np.float32)}
        first = rng.standard_normal((SEEN, self.units)) / math.sqrt(SEEN)
        last = 0.1 * rng.standard_normal(self.units) / math.sqrt(self.units)
        return {
            f"{WEIGHT}.0.weight": first.astype(np.float32),
            f"{WEIGHT}.0.bias": np.zeros(self.units, np.float32),
            f"{WEIGHT}.1.weight": last.astype(np.float32),
            f"{WEIGHT}.1.bias": np.array(free, np.float32),
        }

    def entropy_of_loss(self, eta: Parameters, rollout: Rollout | None) -> Tensor | float:
        if not eta:
            return self.entropy_weight
        if not self.units:
            return functional.softplus(eta[WEIGHT])
        assert rollout is not None
        assert rollout.recent is not None
        below = torch.bmm(rollout.recent.unsqueeze(1), eta[f"{WEIGHT}.0.weight"]).squeeze(1)
        hidden = torch.tanh(below + eta[f"{WEIGHT}.0.bias"])
        free = (hidden * eta[f"{WEIGHT}.1.weight"]).sum(1) + eta[f"{WEIGHT}.1.bias"]
        return functional.softplus(free)

    def shown(self, eta: Parameters, rollout: Rollout | None = None) -> dict[str, Tensor]:
        if not eta:
            return {}
        if rollout is None and self.units:
            return {"entropy_weight": functional.softplus(eta[f"{WEIGHT}.1.bias"])}
        return {"entropy_weight": torch.as_tensor(self.entropy_of_loss(eta, rollout))}


@dataclass(frozen=True)
class Bmg(LearnedEntropy):
    """The same, judged by how far the policy still is from a target: the agent some updates later,
    the last of them without entropy."""

    ahead: int = 7
    """L, updates from what is judged to the target"""

    def target(self, fixed: Fixed, rollouts: Sequence[Rollout], update: Update) -> Parameters:
        """Where the agent is after L more updates, the last one a plain actor-critic's."""
        theta, moments = fixed.theta, fixed.moments
        for rollout in rollouts[:-1]:
            theta, moments = update(fixed.eta, theta, moments, rollout, graph=False)
        plain = Update(_plain(self), update.optimizer, update.clip)
        return plain({}, theta, moments, rollouts[-1], graph=False)[0]

    def outer(
        self, eta: Parameters, learned: Parameters, fixed: Fixed, rollouts: Sequence[Rollout],
        update: Update,
    ) -> Tensor:  # fmt: skip
        """KL(target ‖ θ_K) in what the policies say on the last rollout."""
        target = self.target(fixed, rollouts[:-1], update)
        seen = rollouts[-1].observations
        wanted = self.outputs({}, target, seen)
        return self.distribution.kl(wanted, self.outputs({}, learned, seen)).mean(1)


def _plain(rule: A2c) -> A2c:
    """Without entropy, nothing learned."""
    return A2c(
        rule.networks, rule.discount, rule.smoothing, value_weight=rule.value_weight,
        entropy_weight=0.0,
    )  # fmt: skip
