"""PPO as a way of learning: the hand-made loss that all others are compared with."""

from __future__ import annotations

from typing import ClassVar

from epg.agents.loss import Loss
from epg.config import Setup
from epg.losses.ppo import Ppo
from epg.methods.base import Card, LossAlgorithm


class PpoMethod(LossAlgorithm):
    """Proximal policy optimisation, the clipped form with a value net."""

    card = Card(
        learns="a policy and its value net",
        how="by hand",
        agents="policy gradients; continuous or discrete actions",
        paper="Schulman et al. 2017, arXiv 1707.06347",
    )
    tuned_as = "ppo"
    searched: ClassVar[tuple[str, ...]] = (*LossAlgorithm.searched, "clip")

    def loss(self, setup: Setup) -> Loss:
        return Ppo.of(setup.learner)
