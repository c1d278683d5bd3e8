"""DPO: policy optimisation with a drift that was discovered by evolution and written down by hand
(Lu et al. 2022, arXiv 2210.05639, section 5).

Shape letters: P lifetimes, M new rows, B minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from epg.agents.actor_critic import ActorCritic, Experience
from epg.agents.loss import Loss, Objective
from epg.config import Setup
from epg.losses.base import take_rows
from epg.losses.gae import Gae
from epg.methods.base import Card, LossAlgorithm

ALPHA, BETA = 2.0, 0.6
"""The paper's, of the drift where the advantage is positive, and where it is not."""


def drift(log_ratio: Tensor, advantage: Tensor) -> Tensor:
    """What is taken from r·A for going far from the old policy: ≥ 0, and 0 with its slope at r = 1.

    log_ratio: of the probabilities of an action, new over old; all of one shape.
    """
    gain = (torch.exp(log_ratio) - 1) * advantage
    loss = log_ratio * advantage
    return torch.where(
        advantage >= 0,
        torch.relu(gain - ALPHA * torch.tanh(gain / ALPHA)),
        torch.relu(loss - BETA * torch.tanh(loss / BETA)),
    )


@dataclass(frozen=True)
class Dpo:
    """−(r·A − drift) + (V − R)², means over the minibatch."""

    discount: float = 0.99
    gae_lambda: float = 0.95
    history: int = 0

    def objective(self, agents: ActorCritic, experience: Experience) -> Objective:
        new, distribution = experience.new, agents.distribution
        count = new.rewards.shape[1]
        observations = experience.observations[:, -count:].contiguous()
        gae = Gae(self.discount, self.gae_lambda)
        advantages, targets = gae.standardised(agents, experience, observations)
        old_log_prob = distribution.log_prob(experience.old_outputs, new.actions)

        def dpo(outputs: Tensor, rows: Tensor) -> Tensor:
            now = take_rows(outputs[:, -count:], rows)
            log_prob = distribution.log_prob(now, take_rows(new.actions, rows))
            log_ratio = log_prob - take_rows(old_log_prob, rows)
            advantage = take_rows(advantages, rows)
            surrogate = torch.exp(log_ratio) * advantage - drift(log_ratio, advantage)
            error = agents.values(take_rows(observations, rows)) - take_rows(targets, rows)
            return (-surrogate + error**2).mean(1)

        return dpo


class DpoMethod(LossAlgorithm):
    """Discovered policy optimisation: PPO's clipping replaced by a smooth drift."""

    card = Card(
        learns="a policy and its value net",
        how="by hand",
        agents="policy gradients; continuous or discrete actions",
        paper="Lu et al. 2022, arXiv 2210.05639",
    )
    tuned_as = "dpo"

    def loss(self, setup: Setup) -> Loss:
        return Dpo(setup.learner.discount, setup.learner.gae_lambda)
