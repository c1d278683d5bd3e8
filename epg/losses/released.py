"""Losses as the released EPG code has them: its defects 8, 10 and 12 (docs/released-epg.md).

Shape letters: P lifetimes, M new rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from epg.agents.actor_critic import ActorCritic, Experience
from epg.losses.gae import Gae
from epg.losses.ppo import Ppo
from epg.losses.temporal_conv import TemporalConv


class ReleasedGae(Gae):
    """The last step bootstraps with its own value, and a time limit counts as a termination.

    Nothing guards a standard deviation of 0.
    """

    def following(self, agents: ActorCritic, experience: Experience, values: Tensor) -> Tensor:
        return torch.cat((values[:, 1:], values[:, -1:]), dim=1)

    def ended(self, experience: Experience) -> Tensor:
        return experience.new.terminated | experience.new.truncated

    def spread(self, advantages: Tensor) -> Tensor:
        return advantages.std(1, keepdim=True, correction=0)


class ReleasedPpo(Ppo):
    """PPO on those advantages."""

    def gae(self) -> Gae:
        return ReleasedGae(self.discount, self.gae_lambda)


class ReleasedTemporalConv(TemporalConv):
    """Sees a constant signal besides, and judges the oldest M rows of the buffer."""

    inputs = ("observation", "action", "reward", "auxiliary", "done")
    oldest = True
