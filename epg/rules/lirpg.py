"""LIRPG: an agent learns by rewards of its own besides those of the task, and these are learned by
what the task's reward says of the outcome (Zheng, Oh & Singh 2018, arXiv 1804.06459).

Shape letters: P agents, T steps, A actions, H units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from epg.agents.network import Parameters
from epg.agents.optimizers import norms_of
from epg.rules.a2c import A2c
from epg.rules.networks import HeadedNetworks
from epg.rules.returns import lambda_returns
from epg.rules.rollout import Rollout
from epg.rules.rule import Fixed, Update


@dataclass(frozen=True)
class Lirpg(A2c):
    """A2C down rewards of which part is the agent's own.

    η: a network "intrinsic" of layers as the policy's, with heads `reward` (one number an action)
    and `value` (of the task's reward alone), each leaf [P, …].
    """

    same_rollout = True
    task_share: float = 1.0
    """of the task's reward in what agents learn by"""
    own_share: float = 0.01
    """of their own"""
    outer_value_weight: float = 0.1

    @property
    def intrinsic(self) -> HeadedNetworks:
        """The network of η."""
        size = self.distribution.action_size + (not self.distribution.discrete)
        return HeadedNetworks(
            self.networks.observation_size, self.distribution, self.networks.hidden,
            self.networks.activation, {"reward": size, "value": 1}, (),
        )  # fmt: skip

    def init_eta(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        drawn = self.intrinsic.init(rng)
        return {name: array for name, array in drawn.items() if not name.endswith("log_std")}

    def shown(self, eta: Parameters, rollout: Rollout | None = None) -> dict[str, Tensor]:
        return {"reward_weights_norm": norms_of({"": eta["reward.weight"]})}

    def own_rewards(self, eta: Parameters, rollout: Rollout) -> Tensor:
        """[P, T] in (−1, 1): one for each discrete action, or linear in a continuous one within
        the tanh."""
        features = self.intrinsic.features(eta, rollout.observations)
        said = self.intrinsic.head(eta, "reward", features)
        if self.distribution.discrete:
            return torch.tanh(said.gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1))
        return torch.tanh((said[..., :-1] * rollout.actions).sum(-1) + said[..., -1])

    def task_values(self, eta: Parameters, observations: Tensor) -> Tensor:
        """[P, R] of the task's reward alone."""
        return self.intrinsic.value(eta, self.intrinsic.features(eta, observations))

    def returns(self, eta: Parameters, theta: Parameters, rollout: Rollout) -> Tensor:
        """[P, T] of both rewards together."""
        rewards = self.task_share * rollout.rewards
        if eta:
            rewards = rewards + self.own_share * self.own_rewards(eta, rollout)
        return lambda_returns(
            rewards, self.discount * rollout.going_on,
            self.values({}, theta, rollout.next_observations), rollout.joined, self.smoothing,
        )  # fmt: skip

    def outer(
        self, eta: Parameters, learned: Parameters, fixed: Fixed, rollouts: Sequence[Rollout],
        update: Update,
    ) -> Tensor:  # fmt: skip
        """The task's advantages times π_θ′/π_θ on the rollout that was learned from, and the
        squared errors of the value that they come from."""
        rollout = rollouts[-1]
        targets = lambda_returns(
            rollout.rewards, self.discount * rollout.going_on,
            self.task_values(fixed.eta, rollout.next_observations), rollout.joined, self.smoothing,
        )  # fmt: skip
        advantages = targets - self.task_values(fixed.eta, rollout.observations)
        before = self.distribution.log_prob(
            self.outputs({}, fixed.start, rollout.observations), rollout.actions
        )
        after = self.distribution.log_prob(
            self.outputs({}, learned, rollout.observations), rollout.actions
        )
        errors = (targets - self.task_values(eta, rollout.observations)).square() / 2
        return (self.outer_value_weight * errors - advantages * torch.exp(after - before)).mean(1)
