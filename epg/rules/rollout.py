"""What agents lived between two updates, as rules read it.

Shape letters: P agents, T steps, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from epg.agents.buffer import Transitions


@dataclass(frozen=True)
class Rollout:
    """T steps of each of P agents, oldest first; several short stretches may follow each other."""

    observations: Tensor
    """[P, T, O]"""
    actions: Tensor
    """[P, T, A], or [P, T] int64 if discrete"""
    rewards: Tensor
    """[P, T]"""
    going_on: Tensor
    """[P, T] 0 where the MDP ended with the step, else 1"""
    joined: Tensor
    """[P, T] bool: whether the next row is the step that followed"""
    next_observations: Tensor
    """[P, T, O] what the action led to, also where an episode ended"""
    behaviour: Tensor | None = None
    """[P, T] the log-probability of the action by the policy that took it; None: the present one"""
    recent: Tensor | None = None
    """[P, R] mean rewards a step of the newest R rollouts before this one, oldest first"""
    truncated: Tensor | None = None
    """[P, T] 1 where a time limit cut the episode, else 0; None: known from `joined` alone, that is
    of all but the last row"""

    @classmethod
    def of(
        cls, new: Transitions, behaviour: Tensor | None = None, recent: Tensor | None = None
    ) -> Rollout:
        """Of the newest steps of a life."""
        joined = ~(new.terminated | new.truncated)
        joined[:, -1] = False
        return cls(
            new.observations, new.actions, new.rewards, (~new.terminated).to(new.rewards.dtype),
            joined, new.next_observations, behaviour, recent,
            new.truncated.to(new.rewards.dtype),
        )  # fmt: skip

    def half(self, which: int) -> Rollout:
        """The first half of the steps (0), or the second (1)."""
        middle = self.rewards.shape[1] // 2
        rows = slice(None, middle) if which == 0 else slice(middle, None)
        joined = self.joined[:, rows].clone()
        joined[:, -1] = False
        behaviour = None if self.behaviour is None else self.behaviour[:, rows]
        truncated = None if self.truncated is None else self.truncated[:, rows]
        return Rollout(
            self.observations[:, rows], self.actions[:, rows], self.rewards[:, rows],
            self.going_on[:, rows], joined, self.next_observations[:, rows], behaviour, self.recent,
            truncated,
        )  # fmt: skip

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Rollout:
        """The same function of all of its tensors."""
        fields: dict[str, Any] = {
            name: None if tensor is None else change(tensor) for name, tensor in vars(self).items()
        }
        return Rollout(**fields)


def next_rows(rows: Tensor, joined: Tensor, last: Tensor) -> Tensor:
    """[P, T] what stands a row later where rows are joined, elsewhere `last` [P, T]."""
    shifted = torch.cat((rows[:, 1:], rows[:, -1:]), 1)
    return torch.where(joined, shifted, last)
