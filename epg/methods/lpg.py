"""LPG: an update rule learned by its gradient through the updates of agents that live and are begun
anew (Oh et al. 2020, arXiv 2007.08794).

Shape letters: P agents of a unit, K updates, A arms of the bandit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, SerializeAsAny, field_validator
from torch import Tensor

from epg import tasks
from epg.agents.base import Agents
from epg.agents.optimizers import Adam, clip_by_norm
from epg.agents.spec import AgentSpec, Shapes
from epg.config import Config
from epg.errors import UserError
from epg.evolution.health import finite_mean
from epg.farm.work import Result, Shared, Unit, Workload
from epg.losses.base import make_loss
from epg.losses.lpg_loss import Arm, LpgLoss
from epg.methods.arms import Arms
from epg.methods.base import Card, Params, Resident, Row, tensors_of
from epg.methods.footprint import FLOAT, check_memory, numbers_in
from epg.methods.lpg_population import Life, LpgPopulation
from epg.rules.lpg_gradient import LpgGradient, Regularisers
from epg.rules.outer_value import OuterValue
from epg.seeds import LifetimeSeed, LifetimeSeeds, Purpose, Stream
from epg.settings import Count, Named, choose
from epg.tasks.base import Sizes, Task

MEMBER = "member."
"""Before the names of what agents are."""
CHANCES = "chances"
RATES, WEIGHTS = (0.5, 1.0, 2.0), (0.1, 0.5, 1.0)
"""Multiples of the agents' learning rate, and α_y, of which the bandit has one arm each."""
NOTED = (
    "reward", "policy_entropy", "prediction_entropy", "prediction_loss", "policy_size", "norm",
    "counted", "renewed",
)  # fmt: skip
"""Of each agent in each round."""


class LpgMethod(Resident):
    """One rule for agents of several tasks and ages."""

    class Settings(Named):
        """A population, and how the rule learns."""

        loss: SerializeAsAny[Named] = Field(
            "lpg", validate_default=True, description="what is learned: lpg"
        )
        population: Count = Field(64, le=65_536, description="agents, in equal parts of each task")
        together: Count = Field(
            16, description="agents of a task that have one age and learn as one batch: a unit of "
            "work",
        )  # fmt: skip
        updates: Count = Field(
            50, description="of the rule in a step of the outer loop; after each step stands a "
            "checkpoint, and episodes begin anew",
        )  # fmt: skip
        inner_updates: Count = Field(
            5, le=64, description="K, of an agent between two updates of the rule"
        )
        learning_rate: PositiveFloat = Field(1e-4, description="of the rule, by Adam")
        clip: PositiveFloat = Field(1.0, description="most that the norm of its gradient may be")
        bandit: bool = Field(
            True, description="whether each life draws a learning rate and α_y, those oftener with "
            "which agents came to more",
        )  # fmt: skip
        policy_entropy: NonNegativeFloat = Field(0.05, description="β₀, for policies that explore")
        prediction_entropy: NonNegativeFloat = Field(0.001, description="β₁, for predictions")
        policy_size: NonNegativeFloat = Field(0.005, description="β₂, against a large π̂")
        prediction_size: NonNegativeFloat = Field(0.001, description="β₃, against a sharp ŷ")

        @field_validator("loss", mode="before")
        @classmethod
        def _chosen_loss(cls, given: Any) -> Named:
            return choose("loss", given)

    card = Card(
        learns="an update rule: what actions' probabilities and predictions should become",
        how="by meta-gradient",
        agents="policies and predictions, tables or networks; discrete actions of any number",
        paper="Oh et al. 2020, arXiv 2007.08794",
    )
    metrics = (
        "policy_entropy", "prediction_entropy", "prediction_loss", "policy_size", "gradient_norm",
        "counted", "renewed",
    )  # fmt: skip
    panels: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "reward a step of agents that learn\nhealthy: rising": ("fitness_mean", "validation"),
        "gradient of the rule\nhealthy: well above 0": ("gradient_norm",),
        "entropy of policies\nhealthy: falls without reaching 0": ("policy_entropy",),
        "KL of predictions from what they should be\nhealthy: above 0": ("prediction_loss",),
    }

    def __init__(self, config: Config, task: Task) -> None:
        super().__init__(config, task)
        life, settings = config.lifetime, self.settings
        self.loss = self._loss(task)
        if not isinstance(task, Sizes):
            self.loss.networks(task, config.agent.hidden)
        self._pieces = self.loss.pieces_in(life.steps_per_update)
        self._parts = tasks.parts_of(config.task)
        self._adam = Adam(settings.learning_rate)
        pairs = itertools.product(RATES, WEIGHTS) if settings.bandit else [(1.0, None)]
        self._arms = [Arm(*pair) for pair in pairs]
        self._populations: dict[int, LpgPopulation] = {}

    def _loss(self, task: Task) -> LpgLoss:
        spec = AgentSpec.of(task, self.config.agent)
        loss = make_loss(self.settings.loss, spec, self.config.learner.buffer)
        if not isinstance(loss, LpgLoss):
            raise UserError(
                f"method lpg: found loss {self.settings.loss.name}, which is no rule whose updates "
                "can be gone back through; allowed: lpg"
            )
        return loss

    @property
    def sized(self) -> bool:
        return False

    @property
    def shapes(self) -> Shapes:
        return self.loss.shapes

    def same(self) -> dict[str, Any]:
        return {"loss": self.settings.loss}

    # What is learned, and the agents that learn by it

    def init(self) -> dict[str, Tensor]:
        seed = LifetimeSeed(self.config.seed, Purpose.START, 0, 0)
        drawn = self.loss.init(seed.rng(Stream.LOSS))
        return {name: torch.from_numpy(array.copy()) for name, array in drawn.items()}

    def agents(self, params: Params, seeds: LifetimeSeeds) -> Agents:
        return self._agents(params, seeds, False)

    def blind(self, params: Params, seeds: LifetimeSeeds) -> Agents:
        return self._agents(params, seeds, True)

    def _agents(self, params: Params, seeds: LifetimeSeeds, blind: bool) -> Agents:
        life, count = self.config.lifetime, len(seeds)
        each = {
            name: params[name].to(seeds.device).expand(count, *shape).contiguous()
            for name, shape in self.shapes.items()
        }
        return self.loss.agents(
            each, self.task, self.config.agent.hidden, seeds, life.updates, life.steps_per_update,
            blind,
        )  # fmt: skip

    # The master's part

    def begin(self, params: Params) -> None:
        self._rule = {name: params[name].clone() for name in self.shapes}
        self._moments = self._adam.init(self._rule)
        self._check_units()
        self._bandit = Arms(len(self._parts), len(self._arms))
        self._noted: list[dict[str, np.ndarray]] = []
        self._members: dict[str, Tensor] = {}
        for unit in self.workload(0).units():
            population = self._make(unit, "cpu")
            population.begin(self._bandit.chances()[self._part(unit)])
            self._members |= _named(f"{unit.first}.", population.state())

    def params(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self._rule.items()}

    def shared(self, step: int) -> dict[str, Any]:
        return {**super().shared(step), CHANCES: self._bandit.chances().numpy()}

    def workload(self, step: int) -> Workload:
        """Agents, those of the first task first; no unit has agents of two tasks."""
        settings, each = self.settings, self._agents_of_a_task
        size = max(n for n in range(1, min(settings.together, each) + 1) if each % n == 0)
        return Workload(Purpose.TRAINING, step, settings.population, size)

    @property
    def _agents_of_a_task(self) -> int:
        settings, updates = self.settings, self.config.lifetime.updates
        if updates % settings.inner_updates:
            raise UserError(
                f"lifetime.updates: found {updates}; allowed: multiples of method.inner_updates, "
                f"{settings.inner_updates}"
            )
        if settings.population % len(self._parts):
            raise UserError(
                f"method.population: found {settings.population} agents for {len(self._parts)} "
                "tasks; allowed: as many for each"
            )
        return int(settings.population // len(self._parts))

    def _part(self, unit: Unit) -> int:
        return int(unit.first // self._agents_of_a_task)

    @property
    def says(self) -> str:
        return self.loss.says

    def step_cost(self) -> int:
        settings, steps = self.settings, self.config.lifetime.steps_per_update
        return int(settings.population * settings.updates * settings.inner_updates * steps)

    def step_bytes(self) -> dict[str, int]:
        """Agents, which the master keeps for its checkpoints, and the file of one."""
        each = sum(3 * FLOAT * self._numbers(part) for part in self._parts)
        return {"policies, predictions and values of all agents": each * self._agents_of_a_task}

    def _numbers(self, part: Any) -> int:
        """Of an agent's policy, prediction and value."""
        task = tasks.make(part)
        networks = self._loss(task).networks(task, self.config.agent.hidden)
        value = OuterValue(networks.observation_size, networks.hidden)
        return numbers_in(networks.shapes) + numbers_in(value.shapes)

    def _check_units(self) -> None:
        """Raise `UserError` if what a unit remembers of K updates cannot be held."""
        unit, settings = next(self.workload(0).units()), self.settings
        rows = self.config.lifetime.steps_per_update * settings.inner_updates
        gates = 8 * self.loss.settings.units  # that a step of the GRU keeps, at least
        most = max(self._numbers(part) for part in self._parts)
        parts = {
            "the GRU's states": FLOAT * unit.count * rows * gates,
            "their parameters": FLOAT * unit.count * settings.inner_updates * 2 * most,
        }
        check_memory(f"a unit of {unit.count} agents (method.together)", parts)

    @property
    def rounds(self) -> int:
        return int(self.settings.updates)

    def members(self) -> dict[str, np.ndarray]:
        return {f"{MEMBER}{name}": tensor.numpy() for name, tensor in self._members.items()}

    def round(self, results: Sequence[Result]) -> None:
        """One update of the rule, by the mean over all agents of what their units found, in their
        order; and what lives came to with the bandit's arms."""
        counted = sum(int(r.arrays["counted"][0]) * r.unit.count for r in results)
        norm = 0.0
        if counted:
            means = {
                name: torch.from_numpy(
                    np.sum([r.arrays[f"gradient.{name}"] for r in results], 0) / counted
                ).unsqueeze(0)
                for name in self._rule
            }
            norm = float(sum(g.square().sum() for g in means.values()) ** 0.5)
            clipped = clip_by_norm(means, self.settings.clip)
            gradients = {name: gradient[0] for name, gradient in clipped.items()}
            moved = self._adam.step(self._rule, self._moments, gradients)
            self._rule, self._moments = dict(moved[0]), dict(moved[1])
        for result in results:
            told = (result.arrays[name] for name in ("ended_arm", "ended", "came_to"))
            self._bandit.tell(self._part(result.unit), *told)
        noted = {n: np.concatenate([r.arrays[n] for r in results]) for n in NOTED if n != "norm"}
        self._noted.append({**noted, "norm": np.array([norm])})

    def update(self, step: int, results: Sequence[Result]) -> Row:
        for result in results:
            for name, array in result.arrays.items():
                if name.startswith(MEMBER):
                    key = f"{result.unit.first}.{name.removeprefix(MEMBER)}"
                    self._members[key] = torch.from_numpy(array)
        means = {n: finite_mean(np.concatenate([e[n] for e in self._noted])) for n in NOTED}
        renewed = float(sum(each["renewed"].sum() for each in self._noted))
        self._noted = []
        return {
            **{name: means[name] for name in NOTED if name in self.metrics},
            "fitness_mean": means["reward"],
            "gradient_norm": means["norm"],
            "renewed": renewed,
        }

    def state_dict(self) -> dict[str, Tensor]:
        return {
            **_named("rule.", self._rule),
            **_named("adam.", self._moments),
            **_named("bandit.", self._bandit.state()),
            **_named(MEMBER, self._members),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        found = _below("rule.", state)
        self._rule = {name: found[name] for name in self.shapes}  # sums go in this order
        self._moments = _below("adam.", state)
        self._bandit = Arms(len(self._parts), len(self._arms))
        self._bandit.load_state(_below("bandit.", state))
        self._members = _below(MEMBER, state)
        self._noted = []

    # A worker's part

    def _make(self, unit: Unit, device: str) -> LpgPopulation:
        """The agents of a unit, not yet begun; first lives end at ages of their own."""
        config, settings, life = self.config, self.settings, self.config.lifetime
        task = tasks.make(self._parts[self._part(unit)])
        loss = self._loss(task)
        hidden = config.agent.hidden
        networks = loss.networks(task, hidden)
        weights = Regularisers(
            settings.policy_entropy, settings.prediction_entropy, settings.policy_size,
            settings.prediction_size,
        )  # fmt: skip

        def learner(arms: Tensor) -> LpgGradient:
            rates = torch.tensor([self._arms[arm].rate for arm in arms.tolist()], device=device)
            alphas = [self._arms[arm].prediction_weight for arm in arms.tolist()]
            usual = settings.loss.prediction_weight
            of_each = torch.tensor([usual if a is None else a for a in alphas], device=device)
            made = loss.learner(networks, self._pieces, Arm(rates, of_each))
            return LpgGradient(made.rule, made.optimizer, weights)

        value = OuterValue(
            networks.observation_size, networks.hidden, config.learner.discount,
            config.learner.gae_lambda,
        )  # fmt: skip
        seeds = LifetimeSeeds.of(config.seed, Purpose.TRAINING, unit.first, unit.count, device)
        lives = Life(
            life.updates, settings.inner_updates, self._pieces,
            life.steps_per_update // self._pieces,
        )  # fmt: skip
        # units of all tasks in turn, so that no task has the young agents
        each, part, inner = self._agents_of_a_task, self._part(unit), settings.inner_updates
        place = (unit.first % each) // unit.count * len(self._parts) + part + 1
        rounds = life.updates // inner
        first = inner * math.ceil(rounds * place / (settings.population // unit.count))
        return LpgPopulation(task, learner, value, seeds, lives, first)

    def run(self, shared: Shared, unit: Unit) -> Result:
        """The sum of the rule's gradients of the agents of a unit after they have lived and learned
        for K updates.

        They are those of before, or, where `shared` has them, those that it has.
        """
        params = tensors_of(shared)
        device = self.config.device
        given = _below(f"{MEMBER}{unit.first}.", params)
        if given:
            made = self._make(unit, device)
            made.load_state(given)
            self._populations[unit.first] = made
        population = self._populations.get(unit.first)
        if population is None:
            raise RuntimeError("the process that had these agents is gone")
        number = int(params["round"])
        if number == 0:
            population.begin_step(shared.step)
        eta = {n: params[n].to(device).unsqueeze(0).requires_grad_() for n in self.shapes}
        exploded = population.exploded
        came = population.round(eta)
        arrays = {f"gradient.{name}": gradient[0] for name, gradient in came.gradients.items()}
        arrays |= dict(came.noted)
        arrays["counted"] = torch.full((unit.count,), float(came.counted > 0))
        arrays |= population.renew(params[CHANCES][self._part(unit)])
        if number == self.rounds - 1:
            arrays |= _named(MEMBER, population.state())
        steps = self.config.lifetime.steps_per_update * self.settings.inner_updates
        return Result(
            unit,
            {name: tensor.detach().cpu().numpy() for name, tensor in arrays.items()},
            unit.count * steps,
            population.exploded - exploded,
        )


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
