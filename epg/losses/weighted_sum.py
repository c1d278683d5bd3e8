"""Losses added with weights: EPG's (1 − α)·L_φ + α·L_PPO (Houthooft et al. 2018, section 3.3)."""

from __future__ import annotations

from torch import Tensor

from epg.agents.actor_critic import ActorCritic, Experience
from epg.agents.loss import Loss, Objective


class WeightedSum:
    """The weighted sum of several losses; one of weight 0 is not computed at all."""

    def __init__(self, parts: list[tuple[float, Loss]]) -> None:
        self.parts = [(weight, loss) for weight, loss in parts if weight != 0.0]
        self.history = max(loss.history for _, loss in self.parts)

    def objective(self, agents: ActorCritic, experience: Experience) -> Objective:
        parts = [(weight, loss.objective(agents, experience)) for weight, loss in self.parts]

        def weighted(outputs: Tensor, rows: Tensor) -> Tensor:
            terms = [weight * part(outputs, rows) for weight, part in parts]
            return sum(terms[1:], start=terms[0])

        return weighted


class Fading:
    """w·L + (1 − w)·other, w = weight/(1 + u/updates) after u updates of a life."""

    def __init__(self, weight: float, loss: Loss, other: Loss, updates: float) -> None:
        self.weight, self.loss, self.other = weight, loss, other
        self.updates = updates
        self.history = max(loss.history, other.history)

    def objective(self, agents: ActorCritic, experience: Experience) -> Objective:
        weight = self.weight / (1 + experience.age.update / self.updates)
        parts = [(weight, self.loss), (1 - weight, self.other)]
        return WeightedSum(parts).objective(agents, experience)
