"""PPO, the clipped form with a value net (Schulman et al. 2017, arXiv 1707.06347).

Shape letters: P lifetimes, M new rows, B minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from epg.agents.agents import Agents, Experience
from epg.losses.base import Objective, pick

EPSILON = 1e-8


@dataclass(frozen=True)
class Ppo:
    """−min(r·A, clip(r)·A) + kl_weight·KL(old‖new) + (V − R)², means over the minibatch.

    With `reference` the released EPG's advantages: the last step bootstraps with its own value,
    a time limit counts as a termination, nothing guards a standard deviation of 0.
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
        advantages, returns = self.advantages(agents, experience, observations)
        spread = advantages.std(1, keepdim=True, correction=0)
        spread = spread if self.reference else spread + EPSILON
        advantages = (advantages - advantages.mean(1, keepdim=True)) / spread
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

    @torch.no_grad()
    def advantages(
        self, agents: Agents, experience: Experience, observations: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Generalised advantages and their value targets, each [P, M] (arXiv 1506.02438).

        observations: [P, M, O] normalised, the newest.
        """
        new = experience.new
        values = agents.values(observations)
        if self.reference:
            following = torch.cat((values[:, 1:], values[:, -1:]), dim=1)
            ended = (new.terminated | new.truncated).to(values.dtype)
            cut = ended
        else:
            following = agents.values(experience.next_observations)
            ended = new.terminated.to(values.dtype)
            cut = (new.terminated | new.truncated).to(values.dtype)
        errors = new.rewards + self.discount * (1 - ended) * following - values
        keep = self.discount * self.gae_lambda * (1 - cut)
        backwards = [errors[:, -1]]
        steps = zip(errors.unbind(1)[-2::-1], keep.unbind(1)[-2::-1], strict=True)
        for error, kept in steps:
            backwards.append(torch.addcmul(error, kept, backwards[-1]))
        advantages = torch.stack(backwards[::-1], 1)
        return advantages, advantages + values
