"""What tuned itself in some lives, held as it came to be: agents learn by it elsewhere.

Shape letters: P lifetimes, n lives that it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from epg.agents.base import Agents
from epg.config import Config, Setup
from epg.errors import UserError
from epg.farm.work import Result, Shared, Unit, Workload
from epg.methods.base import Card, Method, Params, Row, make_algorithm
from epg.methods.saved import Saved
from epg.methods.within_a_life import RuleAlgorithm
from epg.seeds import LifetimeSeed, LifetimeSeeds, Purpose, Stream
from epg.settings import Count, Named
from epg.tasks.base import Task


class FrozenRule(Method):
    """η of n lives, [n, …], of which lifetime i has that of life i mod n."""

    class Settings(Named):
        """Where η comes from."""

        rule: str = Field("xu", max_length=100, description="what learned it within a life")
        lives: Count = Field(1, le=100_000, description="n, from which it comes")

    card = Card(
        learns="nothing more: what another method tuned within a life, frozen",
        how="within a life, before",
        agents="those of the method that tuned it",
        paper="Zheng, Oh & Singh 2018, arXiv 1804.06459, section 5",
    )

    def __init__(self, config: Config, task: Task) -> None:
        super().__init__(config, task)
        algorithm = make_algorithm(self.settings.rule)
        if not isinstance(algorithm, RuleAlgorithm):
            raise UserError(
                f"method.rule: found {self.settings.rule}, which tunes nothing within a life"
            )
        self.algorithm = algorithm

    def init(self) -> dict[str, Tensor]:
        """η as it was before those lives."""
        rule = self.algorithm.rule_on(self.task, self.config.setup)
        each = []
        for life in range(self.settings.lives):
            seed = LifetimeSeed(self.config.seed, Purpose.EVALUATION, 0, life)
            each.append(rule.init_eta(seed.rng(Stream.LOSS)))
        return {name: torch.from_numpy(np.stack([e[name] for e in each])) for name in each[0]}

    @property
    def sized(self) -> bool:
        """Where η reads observations."""
        return self.algorithm.sized

    def agents(self, params: Params, seeds: LifetimeSeeds) -> Agents:
        numbers = torch.tensor([seed.member for seed in seeds.each()]) % self.settings.lives
        eta = {name: tensor[numbers].to(seeds.device) for name, tensor in params.items()}
        return self.algorithm.agents_with(self.task, self.config.setup, seeds, eta)

    # Nothing trains it

    def _refuse(self) -> NoReturn:
        raise UserError(
            "method frozen: nothing is to be trained; epg evaluate FILE --task … shows what it "
            "comes to"
        )

    def begin(self, params: Params) -> None:
        self._refuse()

    def params(self) -> dict[str, Tensor]:
        self._refuse()

    def workload(self, step: int) -> Workload:
        self._refuse()

    def update(self, step: int, results: Sequence[Result]) -> Row:
        self._refuse()

    def run(self, shared: Shared, unit: Unit) -> Result:
        self._refuse()


def saved_eta(
    rule: str, task: Task, spec: Any, setup: Setup, kept: Mapping[str, np.ndarray]
) -> Saved:
    """η of n lives on a task as a file; spec: the task as a configuration says it; kept: by name
    [n, …]."""
    lives = len(next(iter(kept.values())))
    data = {"task": spec, "method": {"name": "frozen", "rule": rule, "lives": lives}}
    config = Config.model_validate(data).with_setup(setup)
    params = {name: torch.from_numpy(np.asarray(array, np.float32)) for name, array in kept.items()}
    sizes = (task.observation_size, task.action_size, task.discrete)
    return Saved(config, params, sizes, 0, (task.name,), spec)
