"""Agents from which reward is kept: what they still come to, they do not owe to it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from epg.agents.actor_critic import ActorCritic, Experience
from epg.agents.age import BEGINNING, Age
from epg.agents.buffer import Buffer, Transitions


class BlindActorCritic(ActorCritic):
    """Sees no reward and no end of an episode, and values nothing, so that all advantages are 0."""

    def remember(self, buffer: Buffer, new: Transitions, age: Age = BEGINNING) -> Experience:
        nothing = replace(
            new,
            rewards=torch.zeros_like(new.rewards),
            terminated=torch.zeros_like(new.terminated),
            truncated=torch.zeros_like(new.truncated),
        )
        return super().remember(buffer, nothing, age)

    def values(self, observations: Tensor) -> Tensor:
        return observations.new_zeros(observations.shape[:-1])
