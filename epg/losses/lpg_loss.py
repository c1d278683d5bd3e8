"""LPG's rule as a loss that can be named, learned by either way: evolved, or by its gradient (Oh et
al. 2020, arXiv 2007.08794; Jackson et al. 2024, arXiv 2402.05828, where it reads ages).

Shape letters: P agents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field, PositiveFloat
from torch import Tensor

from epg.agents.network import Parameters
from epg.agents.optimizers import Adam, Sgd
from epg.agents.spec import AgentSpec, Shapes
from epg.errors import UserError
from epg.losses.base import TeachingLoss
from epg.rules.lpg import Lpg, LpgNetworks
from epg.rules.lpg_agents import LpgAgents
from epg.rules.lpg_gradient import Apart, LpgGradient
from epg.seeds import LifetimeSeeds
from epg.settings import Count, Named
from epg.tasks.base import Task

PARTS = ("policy", "prediction")


@dataclass(frozen=True)
class Arm:
    """What agents may have of their own: rates as multiples of the usual ones, and α_y."""

    rate: float | Tensor = 1.0
    prediction_weight: float | Tensor | None = None
    """None: the usual one"""


class LpgLoss(TeachingLoss):
    """A rule that reads rollouts backwards and says what policies and predictions should become."""

    class Settings(Named):
        """The rule, and the agents that learn by it."""

        units: Count = Field(256, le=4096, description="of the backward GRU")
        embedded: Count = Field(16, le=4096, description="units that a prediction is read by")
        predictions: Count = Field(8, le=4096, description="m, numbers that an agent predicts")
        ages: bool = Field(
            False, description="whether the rule reads how far a life is, and how long it will be"
        )
        piece: Count = Field(16, description="T, steps that the rule reads at once")
        agents: Literal["fitting", "tables", "networks"] = Field(
            "fitting", description="tables where a task's observations are one-hot, networks "
            "elsewhere; or always the one or the other",
        )  # fmt: skip
        prediction_weight: PositiveFloat = Field(0.5, description="α_y, of predictions' own loss")
        table_rate: PositiveFloat = Field(40.0, description="of tables, by gradient descent")
        table_clip: PositiveFloat = Field(
            0.5, description="most that the norm of a table's gradient may be"
        )
        network_rate: PositiveFloat = Field(1e-3, description="of networks, by Adam")

    sized = False

    def __init__(self, settings: Any, spec: AgentSpec, buffer: int) -> None:
        super().__init__(settings, spec, buffer)
        if not spec.discrete:
            raise UserError("loss lpg: is for discrete actions, those of this task are not")

    @classmethod
    def at_rate(cls, settings: Any, learning_rate: float) -> Any:
        rates = {"table_rate": learning_rate, "network_rate": learning_rate}
        return settings.model_copy(update=rates)

    @property
    def shapes(self) -> Shapes:
        return self._rule(LpgNetworks(1, 1, (), self.settings.predictions), 1, Arm()).shapes

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        rule = self._rule(LpgNetworks(1, 1, (), self.settings.predictions), 1, Arm())
        return rule.init_eta(rng)

    def networks(self, task: Task, hidden: tuple[int, ...]) -> LpgNetworks:
        """Of its agents on a task. Raises `UserError` for tables without states to count."""
        kind = self.settings.agents
        if kind == "tables" and task.states is None:
            raise UserError(
                f"loss lpg: found tables for task {task.name}, whose observations are not one-hot; "
                "allowed: agents: networks, or fitting"
            )
        tables = task.states is not None and kind != "networks"
        sizes = task.observation_size, task.action_size
        return LpgNetworks(*sizes, () if tables else hidden, self.settings.predictions)

    @property
    def says(self) -> str:
        s = self.settings
        kinds = {
            "tables": f"tables by SGD at {s.table_rate:g}",
            "networks": f"networks by Adam at {s.network_rate:g}",
        }
        kind = kinds.get(s.agents) or " or ".join(kinds.values())
        return f"{kind}, α_y {s.prediction_weight:g}, pieces of {s.piece} steps"

    def pieces_in(self, steps: int) -> int:
        """W of the steps between two updates. Raises `UserError` if they do not fit."""
        piece = self.settings.piece
        if steps % piece:
            raise UserError(
                f"loss lpg: found pieces of {piece} steps (method.loss.piece), and {steps} steps "
                "between two updates (lifetime.steps_per_update); allowed: a whole number of pieces"
            )
        return int(steps // piece)

    def learner(self, networks: LpgNetworks, pieces: int, arm: Arm) -> LpgGradient:
        """The rule and how agents go down it."""
        settings = self.settings
        optimizer: Apart
        if networks.hidden:
            adam = Adam(arm.rate * settings.network_rate)
            optimizer = Apart(dict.fromkeys(PARTS, adam))
        else:
            sgd = Sgd(arm.rate * settings.table_rate)
            optimizer = Apart(dict.fromkeys(PARTS, sgd), settings.table_clip)
        return LpgGradient(self._rule(networks, pieces, arm), optimizer)

    def _rule(self, networks: LpgNetworks, pieces: int, arm: Arm) -> Lpg:
        settings, weight = self.settings, arm.prediction_weight
        return Lpg(
            networks, pieces, settings.units, settings.embedded, settings.ages,
            settings.prediction_weight if weight is None else weight,
        )  # fmt: skip

    def agents(
        self, params: Parameters, task: Task, hidden: tuple[int, ...], seeds: LifetimeSeeds,
        updates: int, steps_per_update: int, blind: bool = False, side_by_side: bool = False,
    ) -> LpgAgents:  # fmt: skip
        networks = self.networks(task, hidden)
        learner = self.learner(networks, self.pieces_in(steps_per_update), Arm())
        return LpgAgents(learner, params, seeds, updates, blind, side_by_side)
