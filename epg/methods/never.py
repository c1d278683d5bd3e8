"""The way not to learn: what agents come to as they are at first."""

from __future__ import annotations

from typing import ClassVar

from epg.config import Setup
from epg.methods.base import Card, LossAlgorithm


class Never(LossAlgorithm):
    """Agents that act as they do at first: the floor of every comparison."""

    card = Card(
        learns="nothing",
        how="by hand",
        agents="policy gradients; continuous or discrete actions",
        paper="–",
    )

    searched: ClassVar[tuple[str, ...]] = ()

    def about(self, setup: Setup) -> str:
        return "agents as they are at first"

    def loss(self, setup: Setup) -> None:
        return None
