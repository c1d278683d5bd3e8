"""PPO, the clipped form with a value net (Schulman et al. 2017, arXiv 1707.06347).

Shape letters: P lifetimes, M new rows, B minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from epg.agents.agents import Agents, Experience
from epg.losses.base import Objective, pick
from epg.losses.gae import Gae


@dataclass(frozen=True)
class Ppo:
    """−min(r·A, clip(r)·A) + kl_weight·KL(old‖new) + (V − R)², means over the minibatch.

    With `reference` the released EPG's advantages; see `Gae`.
    """

    discount: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    kl_weight: float = 0.001
    reference: bool = False
    history: int = 0

    def objective(self, agents: Agents, experience: Experience) -> Objective:
        new = experience.new
        count = new.rewards.shape[1]
        observations = experience.observations[:, -count:].contiguous()
        gae = Gae(self.discount, self.gae_lambda, self.reference)
        advantages, returns = gae.standardised(agents, experience, observations)
        distribution = agents.distribution
        old_outputs = experience.old_outputs
        old_log_prob = distribution.log_prob(old_outputs, new.actions)

        def ppo(outputs: Tensor, rows: Tensor) -> Tensor:
            now = pick(outputs[:, -count:], rows)
            log_prob = distribution.log_prob(now, pick(new.actions, rows))
            ratio = torch.exp(log_prob - pick(old_log_prob, rows))
            advantage = pick(advantages, rows)
            clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
            surrogate = torch.minimum(ratio * advantage, clipped * advantage)
            kl = distribution.kl(pick(old_outputs, rows), now)
            error = agents.values(pick(observations, rows)) - pick(returns, rows)
            return (-surrogate + self.kl_weight * kl + error**2).mean(1)

        return ppo
