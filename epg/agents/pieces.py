"""Pieces of episodes as off-policy agents replay them (MetaGenRL, arXiv 1910.04098, appendix).

Shape letters: P agents, B pieces, T steps, O observation, A action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pieces:
    """B pieces of T steps for each of P agents; zeros behind what a shorter episode has."""

    observations: Tensor
    """[P, B, T, O]"""
    actions: Tensor
    """[P, B, T, A]"""
    rewards: Tensor
    """[P, B, T]"""
    ended: Tensor
    """[P, B, T] 1 where nothing followed a step"""
    next_observations: Tensor
    """[P, B, T, O]"""
    lengths: Tensor
    """[P, B] steps that were lived, 1 to T"""

    @property
    def mask(self) -> Tensor:
        """[P, B, T] 1 where a step was lived."""
        steps = torch.arange(self.rewards.shape[2], device=self.lengths.device)
        return (steps < self.lengths.unsqueeze(-1)).to(self.rewards.dtype)

    def part(self, first: int, count: int) -> Pieces:
        """Some of each agent's pieces."""
        chosen = slice(first, first + count)
        return Pieces(*(getattr(self, name)[:, chosen] for name in self.__dataclass_fields__))
