"""REINFORCE from remembered actions: the policy comes nearer to those that were better than usual,
and away from the others (the off-policy baseline of Kirsch et al. 2020, arXiv 1910.04098).

Shape letters: P agents, B pieces, T steps, A action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from epg.agents.deterministic import DeterministicNetworks
from epg.agents.network import Parameters
from epg.agents.pieces import Pieces


@dataclass(frozen=True)
class WeightedActions:
    """What policies go down: the squared distance to remembered actions, times the advantage."""

    discount: float = 0.99
    gae_lambda: float = 0.97
    end_bonus: float = 0.0
    """that the end of an episode earns: 1 in MetaGenRL's released code (its defect D3)"""
    leak: bool = False
    """whether what stands behind a piece's end counts in its advantages, as in that code (D6)"""

    def __call__(self, networks: DeterministicNetworks, live: Parameters, pieces: Pieces) -> Tensor:
        """[P]"""
        return (pieces.mask * self.judge(networks, live, pieces)).mean((1, 2))

    def judge(self, networks: DeterministicNetworks, live: Parameters, pieces: Pieces) -> Tensor:
        """[P, B, T] the loss of every step, padding included."""
        actions = networks.act(live, pieces.observations)
        distance = (pieces.actions - actions).square().mean(-1)
        with torch.no_grad():
            advantages = self.advantages(pieces, networks.state_values(live, pieces))
        return distance * advantages

    def advantages(self, pieces: Pieces, values: Tensor) -> Tensor:
        """[P, B, T] by generalised advantage estimation; values: [P, B, T + 1]."""
        following = self.discount * (1 - pieces.ended) * values[..., 1:]
        residuals = pieces.rewards + following + self.end_bonus * pieces.ended - values[..., :-1]
        if not self.leak:
            residuals = residuals * pieces.mask
        advantage, found = torch.zeros_like(residuals[..., 0]), []
        for step in range(residuals.shape[-1] - 1, -1, -1):
            going_on = 1.0 if self.leak else 1 - pieces.ended[..., step]
            carried = self.discount * self.gae_lambda * going_on * advantage
            advantage = residuals[..., step] + carried
            found.append(advantage)
        return torch.stack(found[::-1], -1)
