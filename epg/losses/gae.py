"""Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438).

Shape letters: P lifetimes, M new rows, O observation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from epg.agents.actor_critic import ActorCritic, Experience

EPSILON = 1e-8


@dataclass(frozen=True)
class Gae:
    """Advantages of the newest M steps: γ, λ."""

    discount: float
    smoothing: float

    @torch.no_grad()
    def advantages(
        self, agents: ActorCritic, experience: Experience, observations: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Advantages and their value targets, each [P, M].

        observations: [P, M, O] normalised, the newest.
        """
        # what follows each step, where nothing follows it, and where the sum is cut: [P, M]
        new = experience.new
        values = agents.values(observations)
        following = self.following(agents, experience, values)
        ended = self.ended(experience).to(values.dtype)
        cut = (new.terminated | new.truncated).to(values.dtype)
        # errors of single steps, summed from the newest to the oldest
        errors = new.rewards + self.discount * (1 - ended) * following - values
        keep = self.discount * self.smoothing * (1 - cut)
        backwards = [errors[:, -1]]
        steps = zip(errors.unbind(1)[-2::-1], keep.unbind(1)[-2::-1], strict=True)
        for error, kept in steps:
            backwards.append(torch.addcmul(error, kept, backwards[-1]))
        advantages = torch.stack(backwards[::-1], 1)
        return advantages, advantages + values

    def following(self, agents: ActorCritic, experience: Experience, values: Tensor) -> Tensor:
        """[P, M] the value of what each step led to."""
        return agents.values(experience.next_observations)

    def ended(self, experience: Experience) -> Tensor:
        """[P, M] bool: after which steps nothing follows: where the MDP ended, not the horizon."""
        return experience.new.terminated

    def standardised(
        self, agents: ActorCritic, experience: Experience, observations: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same with advantages of mean 0 and standard deviation 1 in each lifetime."""
        advantages, targets = self.advantages(agents, experience, observations)
        spread = self.spread(advantages)
        return (advantages - advantages.mean(1, keepdim=True)) / spread, targets

    def spread(self, advantages: Tensor) -> Tensor:
        """[P, 1] their standard deviation, never 0."""
        return advantages.std(1, keepdim=True, correction=0) + EPSILON
