"""REINFORCE with a value net for its baseline (Williams 1992; advantages by GAE).

Shape letters: P lifetimes, M new rows, B minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from epg.agents.actor_critic import ActorCritic, Experience
from epg.agents.loss import Objective
from epg.losses.base import take_rows
from epg.losses.gae import Gae


@dataclass(frozen=True)
class Reinforce:
    """−log π·A + (V − R)², means over the minibatch.

    On-policy where an update is one step down it, over all M: minibatch M, one pass.
    """

    discount: float = 0.99
    gae_lambda: float = 0.95
    history: int = 0

    def objective(self, agents: ActorCritic, experience: Experience) -> Objective:
        new = experience.new
        count = new.rewards.shape[1]
        observations = experience.observations[:, -count:].contiguous()
        gae = Gae(self.discount, self.gae_lambda)
        advantages, targets = gae.standardised(agents, experience, observations)

        def reinforce(outputs: Tensor, rows: Tensor) -> Tensor:
            now = take_rows(outputs[:, -count:], rows)
            log_prob = agents.distribution.log_prob(now, take_rows(new.actions, rows))
            error = agents.values(take_rows(observations, rows)) - take_rows(targets, rows)
            return (-log_prob * take_rows(advantages, rows) + error**2).mean(1)

        return reinforce
