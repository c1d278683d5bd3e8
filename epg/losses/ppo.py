"""PPO, the clipped form with a value net (Schulman et al. 2017, arXiv 1707.06347).

Shape letters: P lifetimes, M new rows, B minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from epg.agents.actor_critic import ActorCritic, Experience
from epg.agents.loss import Objective
from epg.agents.policy_gradient import LearnerSettings
from epg.losses.base import take_rows
from epg.losses.gae import Gae


@dataclass(frozen=True)
class Ppo:
    """−min(r·A, clip(r)·A) + kl_weight·KL(old‖new) + (V − R)², means over the minibatch."""

    discount: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    kl_weight: float = 0.001
    history: int = 0

    @classmethod
    def of(cls, learner: LearnerSettings) -> Self:
        """As a configuration says."""
        return cls(learner.discount, learner.gae_lambda, learner.clip)

    def gae(self) -> Gae:
        """How advantages are estimated."""
        return Gae(self.discount, self.gae_lambda)

    def objective(self, agents: ActorCritic, experience: Experience) -> Objective:
        # what all minibatches share: advantages, targets and the policy before the update, [P, M]
        new = experience.new
        count = new.rewards.shape[1]
        observations = experience.observations[:, -count:].contiguous()
        advantages, returns = self.gae().standardised(agents, experience, observations)
        distribution = agents.distribution
        old_outputs = experience.old_outputs
        old_log_prob = distribution.log_prob(old_outputs, new.actions)

        def ppo(outputs: Tensor, rows: Tensor) -> Tensor:
            now = take_rows(outputs[:, -count:], rows)
            log_prob = distribution.log_prob(now, take_rows(new.actions, rows))
            ratio = torch.exp(log_prob - take_rows(old_log_prob, rows))
            advantage = take_rows(advantages, rows)
            clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
            surrogate = torch.minimum(ratio * advantage, clipped * advantage)
            kl = distribution.kl(take_rows(old_outputs, rows), now)
            error = agents.values(take_rows(observations, rows)) - take_rows(returns, rows)
            return (-surrogate + self.kl_weight * kl + error**2).mean(1)

        return ppo
