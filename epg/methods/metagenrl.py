"""MetaGenRL: an objective learned by its gradient through the steps of a population of agents,
whose critics say what became of them (Kirsch et al. 2020, arXiv 1910.04098).

Shape letters: P agents of a unit, K inner steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, PositiveFloat, SerializeAsAny, field_validator
from torch import Tensor

from epg import tasks
from epg.agents.base import Agents
from epg.agents.off_policy import OffPolicyAgents, check_pieces
from epg.agents.optimizers import Adam
from epg.agents.spec import AgentSpec, Shapes
from epg.config import Config
from epg.errors import UserError
from epg.evolution.health import finite_mean
from epg.farm.work import Result, Shared, Unit, Workload
from epg.losses.base import make_loss
from epg.losses.lstm_loss import LstmLoss
from epg.losses.objective_gradient import ObjectiveGradient
from epg.methods.base import Card, Params, Resident, Row, tensors_of
from epg.methods.footprint import check_replay, replay_bytes
from epg.methods.population import Population
from epg.seeds import LifetimeSeed, LifetimeSeeds, Purpose, Stream
from epg.settings import Count, Named, choose
from epg.tasks.base import Task

MEMBER = "member."
"""Before the names of what agents are."""
NOTED = ("error", "norm", "active", "saturated", "renewed", "share")
"""Of each agent at each update of the objective."""
PUBLISHED = 2000
"""Steps in the batch of an inner step as published, whose loss is their sum."""
FOREVER = 10**9


class MetaGenRl(Resident):
    """One objective for a population of agents of several tasks."""

    class Settings(Named):
        """A population, and how its objective learns."""

        loss: SerializeAsAny[Named] = Field(
            "lstm", validate_default=True, description="what is learned: lstm"
        )
        population: Count = Field(8, le=4096, description="agents, in equal parts of each task")
        updates: Count = Field(
            250, description="of the objective in a step of the outer loop; after each step stands "
            "a checkpoint",
        )  # fmt: skip
        learning_rate: PositiveFloat = Field(1e-3, description="of the objective, by Adam")
        inner_steps: Count = Field(1, le=32, description="K, of a policy down the objective")
        inner_rate: PositiveFloat = Field(
            1e-3, description="of inner steps, as for a sum over 2,000 steps"
        )
        together: Count = Field(
            4, description="agents of a task that learn as one batch: a unit of work"
        )
        anneal: int = Field(
            10_000, ge=0, description="steps of an agent's life in which the objective takes over "
            "from the critic's value as what its policy goes down",
        )  # fmt: skip
        life: Count | None = Field(
            None, description="steps after which an agent begins anew, the first time at an age of "
            "its own; null: never, as published",
        )  # fmt: skip

        @field_validator("loss", mode="before")
        @classmethod
        def _chosen_loss(cls, given: Any) -> Named:
            return choose("loss", given)

    card = Card(
        learns="an objective that judges an agent's remembered actions",
        how="by meta-gradient",
        agents="deterministic policies with critics; continuous actions of any number",
        paper="Kirsch et al. 2020, arXiv 1910.04098",
    )
    metrics = (
        "critic_error", "saturated", "gradient_norm", "renewed", "objective_share",
    )  # fmt: skip
    panels: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "return of agents that learn\nhealthy: rising": ("fitness_mean", "validation"),
        "gradient of the objective\nhealthy: well above 0": ("gradient_norm",),
        "share of saturated actions\nhealthy: well below 1": ("saturated",),
        "error of critics\nhealthy: bounded": ("critic_error",),
    }

    def __init__(self, config: Config, task: Task) -> None:
        super().__init__(config, task)
        self.loss = self._loss(task)
        self._adam = Adam(self.settings.learning_rate)
        self._populations: dict[int, Population] = {}

    @property
    def says(self) -> str:
        return self.loss.says

    def _loss(self, task: Task) -> LstmLoss:
        spec = AgentSpec.of(task, self.config.agent)
        loss = make_loss(self.settings.loss, spec, self.config.learner.buffer)
        if not isinstance(loss, LstmLoss):
            raise UserError(
                f"method metagenrl: found loss {self.settings.loss.name}, whose agents have no "
                "critics to learn by; allowed: lstm"
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

    # What is learned, and the agents that learn with it

    def init(self) -> dict[str, Tensor]:
        seed = LifetimeSeed(self.config.seed, Purpose.START, 0, 0)
        drawn = self.loss.init(seed.rng(Stream.LOSS))
        return {name: torch.from_numpy(array.copy()) for name, array in drawn.items()}

    def agents(self, params: Params, seeds: LifetimeSeeds) -> Agents:
        return self._agents(params, seeds, False)

    def blind(self, params: Params, seeds: LifetimeSeeds) -> Agents:
        return self._agents(params, seeds, True)

    def _agents(self, params: Params, seeds: LifetimeSeeds, blind: bool) -> Agents:
        life, hidden = self.config.lifetime, self.config.agent.hidden
        check_replay(self.loss.agents_settings, self.task, len(seeds), life.steps)
        each = self.for_each(params, len(seeds), seeds.device)
        of_life = life.updates, life.steps_per_update
        return self.loss.agents(each, self.task, hidden, seeds, *of_life, blind)

    # The master's part

    def begin(self, params: Params) -> None:
        self._objective = {name: params[name].clone() for name in self.shapes}
        self._moments = self._adam.init(self._objective)
        self._noted: list[dict[str, np.ndarray]] = []
        self._members = {
            f"{unit.first}.{name}": tensor
            for unit in self.workload(0).units()
            for name, tensor in self._make(unit, self._objective, "cpu").state().items()
        }

    def params(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self._objective.items()}

    def workload(self, step: int) -> Workload:
        """Agents, those of the first task first; no unit has agents of two tasks."""
        settings = self.settings
        size = math.gcd(settings.together, self._agents_of_a_task)
        return Workload(Purpose.TRAINING, step, settings.population, size)

    @property
    def _agents_of_a_task(self) -> int:
        found, population = len(tasks.parts_of(self.config.task)), self.settings.population
        if population % found:
            raise UserError(
                f"method.population: found {population} agents for {found} tasks; allowed: as many "
                "for each"
            )
        return int(population // found)

    @property
    def _steps(self) -> int:
        """Of an agent between two updates of the objective."""
        ours = self.loss.agents_settings
        return ours.every * ours.delay

    @property
    def _inner_rate(self) -> float:
        """Of the sum over a batch of inner steps, as large as published ones."""
        ours = self.loss.agents_settings
        return float(self.settings.inner_rate * PUBLISHED / (ours.batch * ours.piece))

    def step_cost(self) -> int:
        return int(self.settings.population * self.settings.updates * self._steps)

    @property
    def rounds(self) -> int:
        return int(self.settings.updates)

    def members(self) -> dict[str, np.ndarray]:
        return {f"{MEMBER}{name}": tensor.numpy() for name, tensor in self._members.items()}

    def round(self, results: Sequence[Result]) -> None:
        """One update of the objective: the mean of the gradients of the agents that learn, in
        their order, each clipped by itself, is a step of Adam's."""
        active = torch.from_numpy(np.concatenate([r.arrays["active"] for r in results]))
        count = int(active.sum())
        if count:
            stacked = [
                torch.from_numpy(np.concatenate([r.arrays[f"gradient.{n}"] for r in results]))
                for n in self._objective
            ]
            means = [gradient.sum(0) / count for gradient in stacked]
            gradients = dict(zip(self._objective, means, strict=True))
            moved = self._adam.step(self._objective, self._moments, gradients)
            self._objective, self._moments = dict(moved[0]), dict(moved[1])
        noted = {n: np.concatenate([r.arrays[n] for r in results]) for n in NOTED}
        self._noted.append(noted)

    def update(self, step: int, results: Sequence[Result]) -> Row:
        for result in results:
            for name, array in result.arrays.items():
                if name.startswith(MEMBER):
                    key = f"{result.unit.first}.{name.removeprefix(MEMBER)}"
                    self._members[key] = torch.from_numpy(array)
        noted = {n: np.concatenate([each[n] for each in self._noted]) for n in NOTED}
        learning = noted["active"] > 0
        self._noted = []

        def mean_of(name: str) -> float | None:
            return finite_mean(noted[name][learning]) if learning.any() else None

        newest = np.concatenate([result.arrays["newest"] for result in results])
        return {
            "fitness_mean": finite_mean(newest),
            "critic_error": mean_of("error"),
            "saturated": mean_of("saturated"),
            "gradient_norm": mean_of("norm"),
            "renewed": float(noted["renewed"].sum()),
            "objective_share": mean_of("share"),
        }

    def state_dict(self) -> dict[str, Tensor]:
        return {
            **{f"objective.{n}": t for n, t in self._objective.items()},
            **{f"adam.{n}": t for n, t in self._moments.items()},
            **{f"{MEMBER}{n}": t for n, t in self._members.items()},
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        def below(prefix: str) -> dict[str, Tensor]:
            return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}

        found = below("objective.")
        self._objective = {name: found[name] for name in self.shapes}  # sums go in this order
        self._moments = below("adam.")
        self._members = below(MEMBER)
        self._noted = []

    def step_bytes(self) -> dict[str, int]:
        ours, population = self.loss.agents_settings, self.settings.population
        what = f"memories of all agents (method.loss.agents.memory {ours.memory})"
        # those that the master keeps for its checkpoints, and the file of one
        return {what: 2 * population * replay_bytes(ours, self.task, FOREVER)}

    # A worker's part

    def _make(self, unit: Unit, params: Params, device: str) -> Population:
        """The agents of a unit at the beginning of their first lives."""
        settings, config = self.settings, self.config
        part = tasks.parts_of(config.task)[unit.first // self._agents_of_a_task]
        task = tasks.make(part)
        check_pieces(self.loss.agents_settings, task)
        seeds = LifetimeSeeds.of(config.seed, Purpose.TRAINING, unit.first, unit.count, device)
        loss = self._loss(task)
        each = self.for_each(params, unit.count, device)
        agents = loss.agents(each, task, config.agent.hidden, seeds, FOREVER, 1)
        life = settings.life
        limits = [
            math.ceil((life or 0) * (1 + member) / settings.population) for member in unit.members
        ]
        return Population(task, agents, seeds, limits, life)

    def run(self, shared: Shared, unit: Unit) -> Result:
        """The gradients of the agents of a unit after they have lived and learned for some steps.

        They are those of before, or, where `shared` has them, those that it has.
        """
        params = tensors_of(shared)
        mine = f"{MEMBER}{unit.first}."
        given = {n.removeprefix(mine): t for n, t in params.items() if n.startswith(mine)}
        if given:
            made = self._make(unit, params, self.config.device)
            made.load_state(given)
            self._populations[unit.first] = made
        population = self._populations.get(unit.first)
        if population is None:
            raise RuntimeError("the process that had these agents is gone")
        objective = self.for_each(params, unit.count, self.config.device)
        # they live, then learn: critics, policies, targets
        agents, steps = population.agents, self._steps
        exploded = population.exploded
        new = population.live(steps)
        active = agents.active
        share = self._share(agents)
        arrays: dict[str, Tensor] = {
            "error": torch.zeros(unit.count), "norm": torch.zeros(unit.count),
            **{f"gradient.{n}": torch.zeros_like(p) for n, p in objective.items()},
        }  # fmt: skip
        if active.any():
            agents.taught = self.loss.teaches(objective, share)
            arrays["error"] = torch.stack(
                [agents.update(active) for _ in range(steps // agents.settings.every)]
            ).mean(0)
            # how the objective should have been
            judge = ObjectiveGradient(agents.networks, self.loss.objective, self._inner_rate)
            inner = self.settings.inner_steps
            pieces = agents.draw_pieces((inner + 1) * agents.settings.batch)
            gradients, arrays["norm"] = judge.gradient(objective, agents.parameters, pieces, inner)
            active = active & torch.isfinite(arrays["norm"])
            for name, gradient in gradients.items():
                shape = (-1, *[1] * (gradient.ndim - 1))
                arrays[f"gradient.{name}"] = torch.where(active.reshape(shape), gradient, 0.0)
        arrays["active"] = active.to(torch.float32)
        arrays["saturated"] = agents.saturated(new.observations)
        arrays["share"] = share
        # whose time has come, or who is broken, begins anew: no checkpoint has anything broken
        arrays["renewed"] = population.renew()
        if int(params["round"]) == self.rounds - 1:
            arrays["newest"] = torch.tensor(agents.replay.newest_returns())
            arrays |= {f"{MEMBER}{n}": t for n, t in population.state().items()}
        return Result(
            unit,
            {name: tensor.detach().cpu().numpy() for name, tensor in arrays.items()},
            unit.count * steps,
            population.exploded - exploded,
        )

    def _share(self, agents: OffPolicyAgents) -> Tensor:
        """[P] of the objective in what policies go down, by the ages of their agents."""
        ages = torch.tensor(agents.replay.ages, device=self.config.device) - agents.random_steps
        if not self.settings.anneal:
            return torch.ones(len(ages), device=self.config.device)
        return torch.clamp(ages / self.settings.anneal, 0.0, 1.0)

    def for_each(self, params: Params, count: int, device: str) -> dict[str, Tensor]:
        """The objective, once for each of so many agents: [P, …]."""
        each = {name: params[name].to(device) for name in self.shapes}
        return {n: t.expand(count, *t.shape).contiguous() for n, t in each.items()}
