"""Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438).

Shape letters: P lifetimes, M new rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from epg.agents.agents import Agents, Experience

EPSILON = 1e-8


@dataclass(frozen=True)
class Gae:
    """Advantages of the newest M steps: γ, λ.

    With `reference` the released EPG's: the last step bootstraps with its own value, a time limit
    counts as a termination, nothing guards a standard deviation of 0.
    """

    discount: float
    smoothing: float
    reference: bool = False

    @torch.no_grad()
    def advantages(
        self, agents: Agents, experience: Experience, observations: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Advantages and their value targets, each [P, M].

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
        keep = self.discount * self.smoothing * (1 - cut)
        backwards = [errors[:, -1]]
        steps = zip(errors.unbind(1)[-2::-1], keep.unbind(1)[-2::-1], strict=True)
        for error, kept in steps:
            backwards.append(torch.addcmul(error, kept, backwards[-1]))
        advantages = torch.stack(backwards[::-1], 1)
        return advantages, advantages + values

    def standardised(
        self, agents: Agents, experience: Experience, observations: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same with advantages of mean 0 and standard deviation 1 in each lifetime."""
        advantages, targets = self.advantages(agents, experience, observations)
        spread = advantages.std(1, keepdim=True, correction=0)
        spread = spread if self.reference else spread + EPSILON
        return (advantages - advantages.mean(1, keepdim=True)) / spread, targets
