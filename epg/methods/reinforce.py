"""REINFORCE as a way of learning: one step an update, on all that the policy of now has lived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from epg.agents.loss import Loss
from epg.config import Setup
from epg.losses.reinforce import Reinforce
from epg.methods.base import LEARNING_RATES, Card, LossAlgorithm


class ReinforceMethod(LossAlgorithm):
    """Policy gradient with a value net for its baseline."""

    card = Card(
        learns="a policy and its value net",
        how="by hand",
        agents="policy gradients; continuous or discrete actions",
        paper="Williams 1992; advantages by Schulman et al. 2016, arXiv 1506.02438",
    )
    tuned_as = "reinforce"
    searched: ClassVar[Mapping[str, Sequence[Any]]] = {"learning_rate": LEARNING_RATES}

    def adapt(self, setup: Setup) -> Setup:
        return setup.change(minibatch=setup.lifetime.steps_per_update, passes=1)

    def about(self, setup: Setup) -> str:
        return f"lr {setup.learner.learning_rate:g}, one step an update"

    def loss(self, setup: Setup) -> Loss:
        return Reinforce(setup.learner.discount, setup.learner.gae_lambda)
