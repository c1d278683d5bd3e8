"""What agents remember: the newest N transitions of each lifetime, oldest first.

Shape letters: P lifetimes, W environments, N rows, M new rows per update, O observation, A action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from epg.tasks.base import Step


@dataclass(frozen=True)
class Transitions:
    """M steps of each lifetime, oldest first."""

    observations: Tensor
    """[P, M, O] float32, as observed"""
    actions: Tensor
    """[P, M, A] float32, or [P, M] int64 if discrete"""
    rewards: Tensor
    """[P, M] float32"""
    terminated: Tensor
    """[P, M] bool"""
    truncated: Tensor
    """[P, M] bool"""
    next_observations: Tensor
    """[P, M, O] float32: what the action led to, also at the end of an episode"""
    last: Step | None = None
    """the newest answer of the environments, with what is acted on next"""

    def of_agents(self, environments: int) -> Transitions:
        """The same rows of P agents, environment by environment, of P·W environments."""
        if environments == 1:
            return self
        rows = {
            name: rows.unflatten(0, (-1, environments)).flatten(1, 2)
            for name, rows in vars(self).items()
            if name != "last"
        }
        return Transitions(**rows, last=self.last)


class Buffer:
    """The newest N transitions; zeros in front while fewer were lived."""

    def __init__(
        self, lifetimes: int, length: int, observation_size: int, action_size: int, discrete: bool,
        device: str = "cpu",
    ) -> None:  # fmt: skip
        shape = (lifetimes, length)
        self.length = length
        self.filled = 0
        self.observations = torch.zeros(*shape, observation_size, device=device)
        self.actions = (
            torch.zeros(*shape, dtype=torch.int64, device=device)
            if discrete
            else torch.zeros(*shape, action_size, device=device)
        )
        self.rewards = torch.zeros(*shape, device=device)
        self.dones = torch.zeros(*shape, device=device)

    def append(self, new: Transitions) -> None:
        """Take in M ≤ N new transitions; as many of the oldest leave."""
        rows = new.rewards.shape[1]
        self.observations = _push(self.observations, new.observations)
        self.actions = _push(self.actions, new.actions)
        self.rewards = _push(self.rewards, new.rewards)
        self.dones = _push(self.dones, (new.terminated | new.truncated).to(torch.float32))
        self.filled = min(self.length, self.filled + rows)


def _push(rows: Tensor, new: Tensor) -> Tensor:
    return torch.cat((rows[:, new.shape[1] :], new), dim=1)
