"""Losses added with weights: EPG's (1 − α)·L_φ + α·L_PPO (Houthooft et al. 2018, section 3.3)."""

from __future__ import annotations

from torch import Tensor

from epg.agents.agents import Agents, Experience
from epg.losses.base import Loss, Objective


class Mixture:
    """The weighted sum of several losses; one of weight 0 is not computed at all."""

    def __init__(self, parts: list[tuple[float, Loss]]) -> None:
        self.parts = [(weight, loss) for weight, loss in parts if weight != 0.0]
        self.history = max(loss.history for _, loss in self.parts)

    def objective(self, agents: Agents, experience: Experience) -> Objective:
        parts = [(weight, loss.objective(agents, experience)) for weight, loss in self.parts]

        def mixed(outputs: Tensor, rows: Tensor) -> Tensor:
            terms = [weight * part(outputs, rows) for weight, part in parts]
            return sum(terms[1:], start=terms[0])

        return mixed
