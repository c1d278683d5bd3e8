"""What a way of learning is: a `Method` learns across lifetimes, an `Algorithm` within one.

Shape letters: P lifetimes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from epg.agents.actor_critic import ActorCritic, init_parameters
from epg.agents.base import Agents
from epg.agents.loss import Loss
from epg.agents.policy_gradient import LearnerSettings, PolicyGradientAgents
from epg.agents.spec import AgentSpec, Shapes
from epg.config import Config, Setup
from epg.errors import UserError
from epg.farm.work import Result, Shared, Unit, Workload
from epg.lifetime import LifetimeSettings
from epg.methods.footprint import check_lifetimes
from epg.registry import check_interface, find
from epg.seeds import LifetimeSeeds, Purpose
from epg.settings import Named
from epg.tasks.base import Task

Params = Mapping[str, Tensor]
"""What a method has learned, by name."""
Row = dict[str, float | None]
"""Of metrics.csv, by column; None where nothing was measured."""
BATCH = 64
"""Lifetimes that live together in an evaluation at most; results do not depend on it."""


@dataclass(frozen=True)
class Card:
    """A way of learning in a line: `epg methods` shows it."""

    learns: str
    """what is learned across lifetimes, or within one"""
    how: str
    """evolved, by meta-gradient, within a life, or by hand"""
    agents: str
    """which tasks and agents it is for"""
    paper: str


@dataclass(frozen=True)
class Dissection:
    """A learned loss taken apart, for P agents: what `epg inspect` compares."""

    learned: Loss
    """the learned loss alone"""
    ppo: Loss
    """PPO in its place"""
    without: Mapping[str, Loss]
    """the learned loss blind to one of its inputs, by input"""


class Method(ABC):
    """What is learned across lifetimes, and how.

    The master holds what is learned; workers run units of a step with it, and their results move
    it. Attributes: `config`, the run's; `trained`, that of its training, where its agents are to
    live otherwise now; `settings`, those below `method:`; `task`.
    """

    Settings: ClassVar[type[Named]] = Named
    """The keys below `method:`, besides `name`."""
    card: ClassVar[Card] = Card("", "", "", "")
    metrics: ClassVar[tuple[str, ...]] = ()
    """Its own columns of metrics.csv, besides those that every method has."""
    panels: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """How a report shows columns of metrics.csv: titles, whose second line, if there is one, says
    what is healthy, and what each panel draws."""

    def __init__(self, config: Config, task: Task) -> None:
        """The same on master and workers. Raises `UserError` for what does not fit together."""
        self.config = self.trained = config
        self.settings: Any = config.method
        self.task = task

    # What is learned, and the agents that learn with it: anywhere

    @abstractmethod
    def init(self) -> dict[str, Tensor]:
        """What a run starts from, by name; it depends on the configuration alone."""

    @property
    def shapes(self) -> Shapes:
        """Names and shapes of what is learned."""
        return {name: tuple(tensor.shape) for name, tensor in self.init().items()}

    @abstractmethod
    def agents(self, params: Params, seeds: LifetimeSeeds) -> Agents:
        """Fresh agents, one for each of P seeds, that learn by what was learned.

        params: on the CPU; the agents' tensors belong on `seeds.device`.
        """

    def blind(self, params: Params, seeds: LifetimeSeeds) -> Agents:
        """The same agents, to which reward, ends of episodes and all that derives from them are 0:
        what they come to, they do not owe to reward. Raises `UserError` where that is not known."""
        raise UserError(
            f"method blind: what agents of {self.config.method.name} are without reward is not "
            "known"
        )

    @property
    def blindable(self) -> bool:
        """Whether it is known what its agents are without reward."""
        return type(self).blind is not Method.blind

    @property
    def sized(self) -> bool:
        """Whether what is learned is for observations and actions of one size, not for any task."""
        return True

    def dissect(self, params: Params, lifetimes: int) -> Dissection | None:
        """The learned loss taken apart, for so many agents; None where none is learned."""
        return None

    # The master's part

    @abstractmethod
    def begin(self, params: Params) -> None:
        """Start from there: from `init()`, or from a saved file."""

    @abstractmethod
    def params(self) -> dict[str, Tensor]:
        """What is learned so far, by name."""

    @abstractmethod
    def workload(self, step: int) -> Workload:
        """The members of a step, and how many of them make a unit."""

    def shared(self, step: int) -> dict[str, Any]:
        """Arrays that all units of a step share, sent to each worker once."""
        return {name: tensor.numpy().copy() for name, tensor in self.params().items()}

    @abstractmethod
    def update(self, step: int, results: Sequence[Result]) -> Row:
        """Move what is learned by the results of a step, those of members that failed left out.

        The step's row of `metrics`; fitness_mean and failures if it has them.
        """

    def step_cost(self) -> int:
        """Environment steps of a step of training, final episodes not counted."""
        units = self.workload(0).units()
        updates = sum(self.lifetimes(unit) for unit in units) * self.mean_updates
        return round(updates * self.config.lifetime.steps_per_update)

    def idle(self, step: int) -> None:
        """Some milliseconds' work while the farm is busy with a step; nothing by default."""
        return

    def state_dict(self) -> dict[str, Tensor]:
        """All that a checkpoint must keep."""
        return self.params()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a state of before."""
        self.begin(state)

    def step_bytes(self) -> dict[str, int]:
        """Bytes that the master needs for a step, at least, by what takes them; none if few."""
        return {}

    def same(self) -> dict[str, Any]:
        """Settings in which a file and a run that starts from it must agree, by name."""
        return {}

    def about(self) -> dict[str, float]:
        """Settings with which its agents learn at last, for people, by name."""
        return self.validated_as()

    @property
    def says(self) -> str:
        """What its agents learn with, for people; empty: the settings of learning say it."""
        return ""

    def validated_as(self) -> dict[str, float]:
        """On what validations hang besides the configuration's hash, by name."""
        return {}

    # A worker's part

    @abstractmethod
    def run(self, shared: Shared, unit: Unit) -> Result:
        """The result of a unit; it depends on nothing but its arguments."""

    def lifetimes(self, unit: Unit) -> int:
        """Whole lifetimes in a unit."""
        return unit.count

    @property
    def mean_updates(self) -> float:
        """Updates of a lifetime of training, on average: what its cost is estimated by."""
        return float(self.config.lifetime.updates)

    def units_of(self, total: int, step: int, least: int = 1) -> Workload:
        """So many members of a step of training, `farm.chunk` of them a unit.

        least: 2 where a member is a single lifetime, which alone would round otherwise.
        """
        return Workload(Purpose.TRAINING, step, total, self.config.farm.chunk, least)

    def lifetime(self, unit: Unit) -> LifetimeSettings:
        """How long the agents of a unit live: as configured, or as the unit says."""
        lifetime = self.config.lifetime
        return lifetime if unit.updates is None else lifetime.replace(updates=unit.updates)


class Resident(Method):
    """A method whose members outlive a step: they stay with the worker that has them.

    A step has many rounds, in each of which all units run and what is learned moves. They are not
    journaled: a step that was not ended is lived again from its checkpoint.
    """

    @property
    @abstractmethod
    def rounds(self) -> int:
        """In a step."""

    @abstractmethod
    def members(self) -> dict[str, np.ndarray]:
        """What all members are, which workers get when they begin."""

    @abstractmethod
    def round(self, results: Sequence[Result]) -> None:
        """Move what is learned by what came of a round, in the order of members."""


class Algorithm(ABC):
    """A way of learning within a life: made by hand, or tuning itself while it learns."""

    Settings: ClassVar[type[Named]] = Named
    """No keys: it stands here so that a configuration that names it is refused for what it is."""
    card: ClassVar[Card] = Card("", "", "", "")
    tuned_as: ClassVar[str | None] = None
    """Whose winners of `epg tune` it runs with; None for settings that are not searched."""
    searched: ClassVar[tuple[str, ...]] = ()
    """The settings that `epg tune` searches, of those in `epg.evaluation.search.VALUES`."""
    batch = BATCH

    @property
    def least_updates(self) -> int:
        """Of a life, at least."""
        return 1

    def check(self, task: Task) -> None:
        """Raise `UserError` if it is not installed, or not for such tasks."""
        return

    def adapt(self, setup: Setup) -> Setup:
        """How agents are built and learn, where the algorithm has a say in it."""
        return setup

    def about(self, setup: Setup) -> str:
        """Its settings, for people."""
        return settings_of(setup)

    @abstractmethod
    def agents(self, task: Task, setup: Setup, seeds: LifetimeSeeds) -> Agents:
        """Fresh agents on a task, one for each of P seeds."""


class LossAlgorithm(Algorithm):
    """An algorithm that is a loss: policy-gradient agents go down it."""

    searched: ClassVar[tuple[str, ...]] = (
        "steps_per_update", "learning_rate", "minibatch", "passes", "discount", "gae_lambda",
        "schedule",
    )  # fmt: skip

    @abstractmethod
    def loss(self, setup: Setup) -> Loss | None:
        """The loss, batched over agents; None for agents that never learn."""

    def agents(self, task: Task, setup: Setup, seeds: LifetimeSeeds) -> Agents:
        return agents_with(self.loss(setup), task, setup, seeds)


def agents_with(
    loss: Loss | None, task: Task, setup: Setup, seeds: LifetimeSeeds
) -> PolicyGradientAgents:
    """Fresh agents that go down a loss, one for each of P seeds; loss: batched over P."""
    spec = AgentSpec.of(task, setup.agent)
    networks = ActorCritic(spec, init_parameters(spec, seeds), setup.agent.train_memory)
    return PolicyGradientAgents(
        networks, seeds, setup.learner, loss, updates=setup.lifetime.updates
    )


def settings_of(setup: Setup) -> str:
    """The settings of learning, for people."""
    learner = setup.learner
    shown = f"lr {learner.learning_rate:g}, minibatch {learner.minibatch}, passes {learner.passes}"
    return shown + unusual(learner)


def unusual(learner: LearnerSettings) -> str:
    """Of settings that are seldom other than usual those that are, for people."""
    usual = LearnerSettings()
    names = (
        ("discount", "γ"), ("gae_lambda", "λ"), ("clip", "clip"), ("entropy", "entropy"),
        ("meta_rate", "meta-rate"),
    )  # fmt: skip
    values = ((symbol, getattr(learner, name), getattr(usual, name)) for name, symbol in names)
    shown = "".join(f", {symbol} {value:g}" for symbol, value, normal in values if value != normal)
    return shown + (f", {learner.schedule}" if learner.schedule != usual.schedule else "")


def tensors_of(shared: Shared) -> dict[str, Tensor]:
    """What a step shares, as tensors."""
    return {name: torch.from_numpy(array) for name, array in shared.arrays.items()}


def make_method(config: Config, task: Task) -> Method:
    """The method of a run. Raises `UserError` in one line for what does not fit together."""
    name = config.method.name
    found = find("method", name)
    if isinstance(found, type) and issubclass(found, Algorithm):
        raise UserError(
            f"method: found {name}, which learns within a life: nothing is to be trained; "
            f"epg evaluate --task … --methods {name} shows what it comes to"
        )
    check_interface("method", name, found, (Method,))
    check_lifetimes(config.setup, task, 1)
    made: Method = found(config, task)
    return made


def make_algorithm(name: str) -> Algorithm:
    """The algorithm of that name. Raises `UserError`."""
    found = find("method", name)
    if isinstance(found, type) and issubclass(found, Method):
        raise UserError(
            f"method {name}: is learned across lifetimes: train it with epg train, then name its "
            "file"
        )
    check_interface("method", name, found, (Algorithm,))
    made: Algorithm = found()
    return made
