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
from epg.agents.spec import Shapes
from epg.config import Config, Setup
from epg.errors import UserError
from epg.farm.work import Result, Shared, Unit, Workload
from epg.methods.base import Card, Method, Params, Row, make_algorithm
from epg.methods.saved import Saved
from epg.methods.within_a_life import RuleAlgorithm
from epg.seeds import LifetimeSeed, LifetimeSeeds, Purpose, Stream
from epg.settings import Named
from epg.tasks.base import Task


class FrozenRule(Method):
    """η of n lives, [n, …], of which lifetime i has that of life i mod n."""

    class Settings(Named):
        """Where η comes from."""

        rule: str = Field("xu", max_length=100, description="what learned it within a life")
        lives: int = Field(1, gt=0, le=100_000, description="n, from which it comes")

    card = Card(
        learns="nothing more: what another method tuned within a life, frozen",
        how="by meta-gradient",
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
        each = [self._first(life) for life in range(self.settings.lives)]
        return {name: torch.from_numpy(np.stack([e[name] for e in each])) for name in each[0]}

    def _first(self, life: int) -> dict[str, np.ndarray]:
        """η of a life before it began."""
        seed = LifetimeSeed(self.config.seed, Purpose.EVALUATION, 0, life)
        rule = self.algorithm.rule_on(self.task, self._fitting)
        return rule.init_eta(seed.rng(Stream.LOSS))

    @property
    def shapes(self) -> Shapes:
        return {n: (self.settings.lives, *np.shape(a)) for n, a in self._first(0).items()}

    @property
    def _fitting(self) -> Setup:
        """How agents are built where η belongs to networks as they were when it was tuned."""
        ours = self.config.setup
        if not self.sized:
            return ours
        was, now = self.trained.agent, ours.agent
        if (was.hidden, was.activation) != (now.hidden, now.activation):
            raise UserError(
                f"η of {self.settings.rule} is of {was.activation} layers {was.hidden}: found "
                f"{now.activation} layers {now.hidden}; allowed: the same"
            )
        return ours

    @property
    def sized(self) -> bool:
        """Where η reads observations."""
        return self.algorithm.sized

    def agents(self, params: Params, seeds: LifetimeSeeds) -> Agents:
        numbers = torch.tensor([seed.member for seed in seeds.each()]) % self.settings.lives
        eta = {name: tensor[numbers].to(seeds.device) for name, tensor in params.items()}
        return self.algorithm.agents_with(self.task, self._fitting, seeds, eta)

    @property
    def says(self) -> str:
        lives = f"{self.settings.lives} lives" if self.settings.lives > 1 else "a life"
        how = self.algorithm.about(self._fitting)
        return f"{self.settings.rule} as {lives} tuned it, frozen; {how}"

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
    rule: str, task: Task, spec: Any, setup: Setup, seed: int, kept: Mapping[str, np.ndarray]
) -> Saved | None:
    """η of those of n lives on a task that are finite, as a file; None where none is.

    spec: the task as a configuration says it; seed: of the evaluation; kept: by name [n, …].
    """
    finite = np.logical_and.reduce(
        [np.isfinite(a).reshape(len(a), -1).all(1) for a in kept.values()]
    )
    lives = int(finite.sum())
    if not lives:
        return None
    kept = {name: array[finite] for name, array in kept.items()}
    data = {"task": spec, "seed": seed, "method": {"name": "frozen", "rule": rule, "lives": lives}}
    config = Config.model_validate(data).with_setup(setup)
    params = {name: torch.from_numpy(np.asarray(array, np.float32)) for name, array in kept.items()}
    sizes = (task.observation_size, task.action_size, task.discrete)
    return Saved(config, params, sizes, 0, (task.name,), spec)
