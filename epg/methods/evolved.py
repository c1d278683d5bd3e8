"""What evolves, whatever it is: candidates in antithetic pairs, the lives of their agents, one step
of an evolution strategy.

Shape letters: S signs (φ + σε and φ − σε), T MDPs per pair, P = pairs · S · T lifetimes, J ages.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from epg.agents.base import Agents
from epg.agents.spec import Shapes
from epg.config import Config
from epg.errors import UserError
from epg.evolution.health import METRICS, PANELS, finite_mean, health
from epg.evolution.noise import Noise, perturb
from epg.evolution.optimizer import find_optimizer
from epg.evolution.shaping import make_shaping
from epg.evolution.strategy import EvolutionSettings, Strategy
from epg.farm.work import Result, Shared, Unit, Workload
from epg.lifetime import LifetimeResult, LifetimeSettings, live
from epg.methods.base import Method, Params, Row, tensors_of
from epg.methods.parameters import ParameterSpec
from epg.seeds import LifetimeSeed, LifetimeSeeds, Purpose, Stream
from epg.settings import Count, Settings
from epg.tasks.base import Mdp, Task, draw_mdps

Ages = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(strict=False, max_length=64)
]
LEARNING_COLUMNS = {"kl": "inner_kl", "entropy": "inner_entropy"}
"""Columns of metrics.csv that agents fill, by what they call it."""


class Lengths(Settings):
    """Updates of a lifetime, drawn: from a list, or so that their logarithm is uniform."""

    choices: tuple[Count, ...] = Field((), strict=False, max_length=64, description="one of these")
    low: Count | None = Field(None, description="the least, of a log-uniform one")
    high: Count | None = Field(None, description="the most")

    @model_validator(mode="before")
    @classmethod
    def _accept_a_list(cls, value: Any) -> Any:
        return {"choices": value} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _one_of_both(self) -> Lengths:
        if self.choices and self.low is self.high is None:
            return self
        if self.choices or self.low is None or self.high is None or self.low > self.high:
            raise ValueError("allowed: a list of whole numbers, or {low: …, high: …} in order")
        return self

    @property
    def range(self) -> tuple[int, int]:
        """The least and the most."""
        if self.low is None or self.high is None:
            return min(self.choices), max(self.choices)
        return self.low, self.high

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """So many of them."""
        if self.low is None or self.high is None:
            return np.asarray(rng.choice(self.choices, count))
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return np.exp(rng.uniform(low, high, count)).round().astype(int).clip(self.low, self.high)


class EvolvedSettings(EvolutionSettings):
    """How something evolves by the lives of agents."""

    mdps_per_pair: Count = Field(1, description="MDPs on which each pair is judged")
    task_draw: Literal["generation", "pair"] = Field(
        "pair",
        description="whether all pairs of a generation see the same MDPs, or each its own",
    )
    lengths: Lengths | None = Field(
        None,
        description="updates of a training lifetime, drawn for each pair, in place of "
        "lifetime.updates: a list, or {low: …, high: …}, log-uniform; null: all as configured",
    )
    fitness: Literal["final", "area"] | Ages = Field(
        "final",
        description="what a lifetime is worth: final, the return of the trained policy; area, the "
        "mean over updates of the newest episode's return; or a list of ages in (0, 1], the mean "
        "return of the policies of these ages",
    )


class Evolved(Method):
    """Parameters φ that evolve: of each candidate, agents live from scratch."""

    Settings = EvolvedSettings
    metrics = (*METRICS, *LEARNING_COLUMNS.values())
    panels: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **PANELS,
        "KL of an inner update\nhealthy: small and level": ("inner_kl",),
        "entropy of policies\nhealthy: level or slowly falling": ("inner_entropy",),
    }

    def __init__(self, config: Config, task: Task) -> None:
        super().__init__(config, task)
        settings = self.settings
        self.shaping = make_shaping(settings.shaping)
        find_optimizer(settings.optimizer)
        if self.shaping.needs_same_mdps:
            if settings.task_draw != "generation":
                raise UserError(
                    f"method.shaping {settings.shaping.name}: needs task_draw generation, found "
                    f"{settings.task_draw}"
                )
            if settings.lengths is not None:
                raise UserError(
                    f"method.shaping {settings.shaping.name}: needs lifetimes of one length, found "
                    "method.lengths; allowed with it: pair"
                )

    @property
    @abstractmethod
    def spec(self) -> ParameterSpec:
        """The layout of φ."""

    @abstractmethod
    def candidates(
        self, phi: Tensor, seeds: LifetimeSeeds, lifetime: LifetimeSettings, step: int
    ) -> Agents:
        """Agents of candidates φ [P, size] in a generation."""

    @property
    def shapes(self) -> Shapes:
        return self.spec.shapes

    def step_bytes(self) -> dict[str, int]:
        pairs = self.settings.pairs
        return {f"ε of all pairs (method.pairs {pairs})": 4 * pairs * self.spec.size}

    # A generation: candidates, their agents' lives, one step of φ

    def begin(self, params: Params) -> None:
        self.strategy = Strategy(self.settings, self.spec.flatten(params))
        self._noise = Noise(self.config.seed, self.settings.pairs, self.spec.size)

    def params(self) -> dict[str, Tensor]:
        return self.spec.name(self.strategy.phi)

    def workload(self, step: int) -> Workload:
        return self.units_of(self.settings.pairs, step)

    def lifetimes(self, unit: Unit) -> int:
        return 2 * unit.count * int(self.settings.mdps_per_pair)

    def lengths(self, step: int) -> np.ndarray:
        """[pairs] updates of a training lifetime in a generation.

        In order, so that pairs that live together live for the same time, or nearly so.
        """
        lengths, pairs = self.settings.lengths, self.settings.pairs
        if lengths is None:
            return np.full(pairs, self.config.lifetime.updates)
        rng = LifetimeSeed(self.config.seed, Purpose.TRAINING, step, 0).rng(Stream.LENGTH)
        return np.sort(lengths.draw(rng, pairs))

    @property
    def familiar(self) -> tuple[int, int]:
        """The least and the most updates of its training's lifetimes."""
        lengths, updates = self.settings.lengths, self.trained.lifetime.updates
        return (updates, updates) if lengths is None else lengths.range

    @property
    def mean_updates(self) -> float:
        return float(self.lengths(0).mean())

    def run(self, shared: Shared, unit: Unit) -> Result:
        """The fitness of the candidates of some pairs, [pairs, S], with the KL and entropy of
        their agents, [pairs]."""
        phi = self.spec.flatten(tensors_of(shared)).numpy()
        lengths = (
            np.full(unit.count, unit.updates)
            if unit.updates is not None
            else self.lengths(unit.step)[unit.first : unit.first + unit.count]
        )
        arrays: dict[str, np.ndarray] = {}
        steps = exploded = 0
        for updates in np.unique(lengths).tolist():
            mine = np.flatnonzero(lengths == updates)
            found, lived = self._live(phi, unit, [unit.members[i] for i in mine], updates)
            for name, values in found.items():
                whole = arrays.setdefault(name, np.empty((unit.count, *values.shape[1:])))
                whole[mine] = values
            steps, exploded = steps + lived.steps, exploded + lived.exploded
        return Result(unit, arrays, steps, exploded)

    def _live(
        self, phi: np.ndarray, unit: Unit, members: Sequence[int], updates: int
    ) -> tuple[dict[str, np.ndarray], LifetimeResult]:
        """What came of the candidates of some pairs, all of whose agents live equally long."""
        config, settings = self.config, self.settings
        # candidates: φ + σε and φ − σε of each pair
        sigma = settings.sigma.at(unit.step)
        candidates = np.concatenate(
            [perturb(phi, sigma, config.seed, unit.step, pair) for pair in members]
        )
        # each is judged on T MDPs; both candidates of a pair share all chance
        per_pair = settings.mdps_per_pair
        distinct = [
            LifetimeSeed(config.seed, unit.purpose, unit.step, pair, mdp)
            for pair in members
            for mdp in range(per_pair)
        ]
        shape = (len(members), 2, per_pair)
        of_pair = np.arange(len(members) * per_pair).reshape(len(members), 1, per_pair)
        index = np.broadcast_to(of_pair, shape).ravel().tolist()
        seeds = LifetimeSeeds(distinct, index, config.device)
        mdps = draw_mdps(self.task, seeds, settings.task_draw)
        # their agents live from scratch
        each = torch.from_numpy(candidates).to(config.device).repeat_interleave(per_pair, dim=0)
        lifetime = config.lifetime.replace(updates=updates)
        lived = self.live(mdps, each, seeds, lifetime, unit.step)
        # what they are worth
        fitness = self.task.score(mdps, self._worth(lived))
        arrays = {"fitness": fitness.reshape(shape).mean(2)}
        for name, values in lived.metrics.items():
            arrays[name] = values.reshape(shape).mean((1, 2))
        return arrays, lived

    def live(
        self, mdps: Sequence[Mdp], phi: Tensor, seeds: LifetimeSeeds, lifetime: LifetimeSettings,
        step: int,
    ) -> LifetimeResult:  # fmt: skip
        """The lives of the agents of candidates φ [P, size], each in an MDP of its own."""
        agents, fitness = self.candidates(phi, seeds, lifetime, step), self.settings.fitness
        ages = fitness if isinstance(fitness, tuple) else ()
        return live(self.task, mdps, agents, seeds, lifetime, ages)

    def _worth(self, lived: LifetimeResult) -> np.ndarray:
        """[P] NaN where learning failed."""
        if self.settings.fitness == "final":
            return lived.final_return
        areas = lived.areas if self.settings.fitness == "area" else lived.returns_at.mean(1)
        return np.where(np.isfinite(lived.final_return), areas, np.nan)

    def idle(self, step: int) -> None:
        self._noise.draw_ahead(step)

    def update(self, step: int, results: Sequence[Result]) -> Row:
        """One generation: fitness becomes weights, weights and noise a gradient, that a step."""
        pairs = [pair for result in results for pair in result.unit.members]
        fitness = np.concatenate([result.arrays["fitness"] for result in results])
        moved = self.strategy.step(step, self._noise.of(step, pairs), self.shaping.weigh(fitness))
        learned = {
            column: finite_mean(np.concatenate([r.arrays[name] for r in results]))
            for name, column in LEARNING_COLUMNS.items()
            if all(name in r.arrays for r in results)
        }
        return {**health(fitness), **moved, **learned}

    def state_dict(self) -> dict[str, Tensor]:
        return self.strategy.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.strategy.load_state_dict(state)
