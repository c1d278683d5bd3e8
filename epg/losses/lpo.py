"""A learned drift: how far each action's probability may move (Lu et al. 2022, 2210.05639).

Shape letters: P lifetimes, B minibatch, F features, H hidden units.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from epg.agents.actor_critic import ActorCritic, Experience
from epg.agents.loss import Loss, Objective
from epg.agents.network import Parameters
from epg.agents.spec import AgentSpec, Shapes
from epg.errors import UserError
from epg.losses.base import LearnedLoss
from epg.losses.gae import Gae
from epg.losses.inputs import StepInputs
from epg.settings import Fraction, Named

FEATURES = ("ratio", "ratio_squared", "log_ratio", "log_ratio_squared")
"""Functions of the ratio r that are 0 where r is 1; each stands there alone and times A."""
AGES = ("progress", "log_length")
"""What each of these may be multiplied with besides."""
FLAT = 1e-6
"""Below which the net's output is no drift, so that around r = 1 there is none."""


class Lpo(LearnedLoss):
    """−r·A + drift(r, A, age) + (V − R)², means over the minibatch.

    drift = ReLU(f(x) − 1e-6), f a net of one hidden layer without biases, of x that are 0 where r
    is 1: there the drift and its first derivative vanish, as mirror learning asks (section 3).
    """

    sized = False

    class Settings(Named):
        """What the drift hangs on, and the size of its net."""

        inputs: tuple[str, ...] = Field(
            AGES, strict=False, max_length=2,
            description="what the drift hangs on besides r and A: progress, log_length",
        )  # fmt: skip
        units: int = Field(16, gt=0, le=10_000, description="hidden units of the net, tanh")
        discount: Fraction = Field(0.99, description="γ of the advantages")
        gae_lambda: Fraction = Field(0.95, description="λ of the advantages")

    def __init__(self, settings: Any, spec: AgentSpec, buffer: int) -> None:
        super().__init__(settings, spec, buffer)
        self.ages: tuple[str, ...] = settings.inputs
        if not set(self.ages) <= set(AGES) or len(set(self.ages)) < len(self.ages):
            raise UserError(
                f"method.loss.inputs: found {', '.join(self.ages)}, allowed: {', '.join(AGES)}"
            )

    @property
    def shapes(self) -> Shapes:
        units = self.settings.units
        features = len(FEATURES) * 2 * (1 + len(self.ages))
        return {"hidden.weight": (units, features), "output.weight": (1, units)}

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """The first layer normal with std 1/√F, the second 0: no drift at first."""
        hidden = rng.standard_normal(self.shapes["hidden.weight"], dtype=np.float32)
        return {
            "hidden.weight": hidden / np.float32(math.sqrt(hidden.shape[1])),
            "output.weight": np.zeros(self.shapes["output.weight"], np.float32),
        }

    def residual(self, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return params | {"output.weight": np.zeros_like(params["output.weight"])}

    def bind(self, params: Parameters) -> Loss:
        return LpoLoss(self, params)


class LpoLoss:
    """P losses, one for each agent; params: each [P, *shape]."""

    history = 0

    def __init__(self, layout: Lpo, params: Parameters) -> None:
        self.layout = layout
        self.params = params

    def objective(self, agents: ActorCritic, experience: Experience) -> Objective:
        settings = self.layout.settings
        steps = StepInputs(agents, experience, Gae(settings.discount, settings.gae_lambda))

        def learned(outputs: Tensor, rows: Tensor) -> Tensor:
            inputs = steps.of(outputs, rows)
            moved = (inputs["ratio"] + 1) * inputs["advantage"]
            return (self.drift(inputs) - moved + steps.value_error(rows)).mean(1)

        return learned

    def drift(self, inputs: dict[str, Tensor]) -> Tensor:
        """[P, B], never below 0."""
        of_ratio = [
            inputs["ratio"], inputs["ratio"].square(),
            inputs["log_ratio"], inputs["log_ratio_squared"],
        ]  # fmt: skip
        features = of_ratio + [feature * inputs["advantage"] for feature in of_ratio]
        aged = [f * inputs[age] for age in self.layout.ages for f in features]
        x = torch.stack(features + aged, -1)
        hidden = (x @ self.params["hidden.weight"].transpose(1, 2)).tanh()
        output = (hidden @ self.params["output.weight"].transpose(1, 2)).squeeze(-1)
        return torch.relu(output - FLAT)
