"""A small net that judges single steps by what their action was worth: it fits any task.

Shape letters: P lifetimes, B minibatch, F inputs, H hidden units.
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
from epg.losses.base import LearnedLoss
from epg.losses.gae import Gae
from epg.losses.inputs import INPUTS, StepInputs, check_inputs
from epg.settings import Fraction, Named


class PerStep(LearnedLoss):
    """h(x)·log r − c·(k₀ + k₁·(2n/N − 1))·H + (V − R)², means over the minibatch.

    x are the inputs of a step, h a net with one hidden layer, r the ratio of the probabilities of
    its action now and before the update, H the policy's entropy; φ is h, k₀ and k₁.
    """

    sized = False

    class Settings(Named):
        """What the net sees, and its size."""

        inputs: tuple[str, ...] = Field(
            tuple(INPUTS), strict=False, min_length=1, max_length=64,
            description=f"what the net sees of a step: {', '.join(INPUTS)}",
        )  # fmt: skip
        units: int = Field(16, gt=0, le=10_000, description="hidden units of the net, tanh")
        entropy: float = Field(
            0.1, ge=0, le=1e6, description="c, the unit of the learned weight of the entropy"
        )
        discount: Fraction = Field(0.99, description="γ of the advantages")
        gae_lambda: Fraction = Field(0.95, description="λ of the advantages")

    def __init__(self, settings: Any, spec: AgentSpec, buffer: int) -> None:
        super().__init__(settings, spec, buffer)
        check_inputs(settings.inputs, "method.loss.inputs")
        self.inputs: tuple[str, ...] = settings.inputs

    @property
    def shapes(self) -> Shapes:
        units = self.settings.units
        return {
            "hidden.weight": (units, len(self.inputs)),
            "hidden.bias": (units,),
            "output.weight": (1, units),
            "output.bias": (1,),
            "entropy": (2,),
        }

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """The first layer normal with std 1/√F, all else 0: beside PPO it adds nothing at first."""
        drawn = {name: np.zeros(shape, np.float32) for name, shape in self.shapes.items()}
        hidden = rng.standard_normal(self.shapes["hidden.weight"], dtype=np.float32)
        return drawn | {"hidden.weight": hidden / np.float32(math.sqrt(len(self.inputs)))}

    def residual(self, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        zero = ("output.weight", "output.bias", "entropy")
        return params | {name: np.zeros_like(params[name]) for name in zero}

    def bind(self, params: Parameters) -> Loss:
        return PerStepLoss(self, params)

    @property
    def removable(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.inputs

    def without(self, params: Parameters, name: str) -> Parameters:
        """The weights that the input is multiplied with are 0."""
        hidden = params["hidden.weight"].clone()
        hidden[:, :, self.inputs.index(name)] = 0
        return params | {"hidden.weight": hidden}


class PerStepLoss:
    """P losses, one for each agent; params: each [P, *shape]."""

    history = 0

    def __init__(self, layout: PerStep, params: Parameters) -> None:
        self.layout = layout
        self.params = params

    def objective(self, agents: ActorCritic, experience: Experience) -> Objective:
        settings, params = self.layout.settings, self.params
        gae = Gae(settings.discount, settings.gae_lambda)
        steps = StepInputs(agents, experience, gae)
        bonus = params["entropy"][:, :1] + params["entropy"][:, 1:] * (
            2 * experience.age.progress - 1
        )

        def learned(outputs: Tensor, rows: Tensor) -> Tensor:
            inputs = steps.of(outputs, rows)
            judged = self._judge(torch.stack([inputs[name] for name in self.layout.inputs], -1))
            entropy = settings.entropy * bonus * inputs["entropy"]
            each: Tensor = judged * inputs["log_ratio"] - entropy + steps.value_error(rows)
            return each.mean(1)

        return learned

    def _judge(self, inputs: Tensor) -> Tensor:
        """h of the inputs [P, B, F]: [P, B]."""
        w = self.params
        hidden = torch.baddbmm(
            w["hidden.bias"].unsqueeze(1), inputs, w["hidden.weight"].transpose(1, 2)
        )
        output = torch.baddbmm(
            w["output.bias"].unsqueeze(1), hidden.tanh(), w["output.weight"].transpose(1, 2)
        )
        judged: Tensor = output.squeeze(-1)
        return judged
