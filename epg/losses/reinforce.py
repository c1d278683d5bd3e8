"""REINFORCE with a value net for its baseline (Williams 1992; advantages by GAE).

Shape letters: P lifetimes, M new rows, B minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from epg.agents.agents import Agents, Experience
from epg.losses.base import Objective, pick
from epg.losses.gae import Gae


@dataclass(frozen=True)
class Reinforce:
    """−log π·A + (V − R)², means over the minibatch.

    On-policy where an update is one step down it, over all M: minibatch M, one pass.
    """

    discount: float = 0.99
    gae_lambda: float = 0.95
    history: int = 0

    def objective(self, agents: Agents, experience: Experience) -> Objective:
        new = experience.new
        count = new.rewards.shape[1]
        observations = experience.observations[:, -count:].contiguous()
        gae = Gae(self.discount, self.gae_lambda)
        advantages, targets = gae.standardised(agents, experience, observations)

        def reinforce(outputs: Tensor, rows: Tensor) -> Tensor:
            now = pick(outputs[:, -count:], rows)
            log_prob = agents.distribution.log_prob(now, pick(new.actions, rows))
            error = agents.values(pick(observations, rows)) - pick(targets, rows)
            return (-log_prob * pick(advantages, rows) + error**2).mean(1)

        return reinforce
