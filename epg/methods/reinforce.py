"""REINFORCE as a way of learning: one step an update, on all that the policy of now has lived."""

from __future__ import annotations

from typing import ClassVar

from epg.agents.loss import Loss
from epg.config import Setup
from epg.losses.reinforce import Reinforce
from epg.methods.base import Card, LossAlgorithm, unusual


class ReinforceMethod(LossAlgorithm):
    """Policy gradient with a value net for its baseline."""

    card = Card(
        learns="a policy and its value net",
        how="by hand",
        agents="policy gradients; continuous or discrete actions",
        paper="Williams 1992; advantages by Schulman et al. 2016, arXiv 1506.02438",
    )
    tuned_as = "reinforce"
    searched: ClassVar[tuple[str, ...]] = (
        "steps_per_update",
        "learning_rate",
        "discount",
        "gae_lambda",
        "schedule",
    )

    def adapt(self, setup: Setup) -> Setup:
        return setup.change(minibatch=setup.lifetime.steps_per_update, passes=1)

    def about(self, setup: Setup) -> str:
        learner = setup.learner
        return f"lr {learner.learning_rate:g}, one step an update{unusual(learner)}"

    def loss(self, setup: Setup) -> Loss:
        return Reinforce(setup.learner.discount, setup.learner.gae_lambda)
