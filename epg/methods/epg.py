"""Evolved Policy Gradients: the loss that agents go down is evolved (Houthooft et al. 2018,
arXiv 1802.04821, algorithm 1).

Shape letters: S signs (φ + σε and φ − σε), T MDPs per pair, P = pairs · S · T lifetimes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor

from epg.agents.actor_critic import ActorCritic, init_parameters
from epg.agents.adam import FusedAdam
from epg.agents.base import Agents
from epg.agents.policy_gradient import PolicyGradientAgents
from epg.agents.released import ReleasedActorCritic, ReleasedAdam
from epg.agents.spec import AgentSpec, Shapes, init_flat
from epg.config import Config
from epg.errors import UserError
from epg.evolution.health import METRICS, PANELS, finite_mean, health
from epg.evolution.noise import Noise, perturb
from epg.evolution.optimizer import find_optimizer
from epg.evolution.shaping import make_shaping
from epg.evolution.strategy import EvolutionSettings, Strategy
from epg.farm.work import Result, Shared, Unit, Workload
from epg.lifetime import live
from epg.losses.base import make_loss
from epg.losses.ppo import Ppo
from epg.losses.released import ReleasedPpo, ReleasedTemporalConv
from epg.losses.weighted_sum import WeightedSum
from epg.methods.base import Card, Dissection, Method, Params, Row, tensors_of
from epg.methods.parameters import ParameterSpec
from epg.seeds import LifetimeSeed, LifetimeSeeds, Purpose, Stream
from epg.settings import Count, Named, Schedule, choose, constant
from epg.tasks.base import Task, draw_mdps


class Epg(Method):
    """A loss, evolved by pairs of candidates, each of which trains agents from scratch."""

    class Settings(EvolutionSettings):
        """The evolution of a loss."""

        loss: SerializeAsAny[Named] = Field(
            "temporal_conv",
            validate_default=True,
            description="what evolves: temporal_conv, or module:Class",
        )
        alpha: Schedule = Field(
            constant(0.0),
            description="α, the weight of PPO beside the learned loss's 1 − α, over generations",
        )
        mdps_per_pair: Count = Field(1, description="MDPs on which each pair is judged")
        task_draw: Literal["generation", "pair"] = Field(
            "pair",
            description="whether all pairs of a generation see the same MDPs, or each its own",
        )
        start: Literal["random", "residual"] = Field(
            "random",
            description="φ at first: all random, or with an output layer of 0 (a residual over "
            "PPO)",
        )
        evolve_policy_init: bool = Field(
            False, description="evolve the policy's initial parameters together with the loss"
        )
        match_release: bool = Field(
            False, description="behave as the released EPG code does, defects included"
        )

        @field_validator("loss", mode="before")
        @classmethod
        def _chosen_loss(cls, given: Any) -> Named:
            return choose("loss", given)

        @field_validator("alpha")
        @classmethod
        def _at_most_one(cls, alpha: Schedule) -> Schedule:
            if max(alpha.start, alpha.end) > 1:
                raise ValueError(f"must lie in [0, 1], found {max(alpha.start, alpha.end)}")
            return alpha

    card = Card(
        learns="a loss over an agent's newest steps, and its initial policy if wanted",
        how="evolved",
        agents="policy gradients; continuous or discrete actions; the sizes it was trained for, "
        "or smaller ones padded",
        paper="Houthooft et al. 2018, arXiv 1802.04821",
    )
    metrics = (*METRICS, "alpha", "inner_kl", "inner_entropy")
    panels: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **PANELS,
        "α, weight of PPO": ("alpha",),
        "KL of an inner update": ("inner_kl",),
        "entropy of policies": ("inner_entropy",),
    }

    def __init__(self, config: Config, task: Task) -> None:
        super().__init__(config, task)
        settings = self.settings
        self.agent = AgentSpec.of(task, config.agent)
        self.loss = make_loss(settings.loss, self.agent, config.learner.buffer)
        if settings.match_release:
            if settings.loss.name != "temporal_conv":
                raise UserError("method.match_release: is of the loss temporal_conv alone")
            self.loss = ReleasedTemporalConv(settings.loss, self.agent, config.learner.buffer)
        policy = self.agent.policy_shapes() if settings.evolve_policy_init else {}
        self.spec = ParameterSpec(self.loss.shapes, policy)
        self.shaping = make_shaping(settings.shaping)
        find_optimizer(settings.optimizer)
        if self.shaping.needs_same_mdps and settings.task_draw != "generation":
            raise UserError(
                f"method.shaping {settings.shaping.name}: needs task_draw generation, found "
                f"{settings.task_draw}"
            )

    @property
    def final_alpha(self) -> float:
        """α after the last generation: what the evolved loss is made for and validated with."""
        return float(self.settings.alpha.at(self.config.steps))

    def validated_as(self) -> dict[str, float]:
        return {"alpha": self.final_alpha}

    def about(self) -> dict[str, float]:
        return {"α": self.final_alpha}

    def same(self) -> dict[str, Any]:
        keys = ("loss", "match_release", "evolve_policy_init")
        return {key: getattr(self.settings, key) for key in keys}

    # What evolves, and the agents that learn by it

    @property
    def shapes(self) -> Shapes:
        return self.spec.shapes

    def init(self) -> dict[str, Tensor]:
        seed = LifetimeSeed(self.config.seed, Purpose.START, 0, 0)
        loss = self.loss.init(seed.rng(Stream.LOSS))
        if self.settings.start == "residual":
            loss = self.loss.residual(loss)
        pieces = [loss[name].astype(np.float32).ravel() for name in self.spec.loss]
        if self.spec.policy:
            pieces.append(init_flat(seed.rng(Stream.AGENT), self.spec.policy))
        return self.spec.name(torch.from_numpy(np.concatenate(pieces)))

    def agents(self, params: Params, seeds: LifetimeSeeds) -> Agents:
        phi = self.spec.flatten(params).to(seeds.device)
        return self._agents(phi.expand(len(seeds), -1), seeds, self.final_alpha)

    def _agents(self, phi: Tensor, seeds: LifetimeSeeds, alpha: float) -> PolicyGradientAgents:
        """Agents, each with a φ of its own [P, size], and PPO beside the loss with weight α."""
        released, setup = self.settings.match_release, self.config.setup
        loss, policy = self.spec.split(phi)
        whole = WeightedSum([(1 - alpha, self.loss.bind(loss)), (alpha, self._ppo())])
        parameters = init_parameters(self.agent, seeds, policy)
        networks = (ReleasedActorCritic if released else ActorCritic)(
            self.agent, parameters, setup.agent.train_memory
        )
        adam = ReleasedAdam if released else FusedAdam
        return PolicyGradientAgents(networks, seeds, setup.learner, whole, adam)

    def _ppo(self) -> Ppo:
        learner = self.config.learner
        kind = ReleasedPpo if self.settings.match_release else Ppo
        return kind(learner.discount, learner.gae_lambda)

    def dissect(self, params: Params, lifetimes: int) -> Dissection:
        loss, _ = self.spec.split(self.spec.flatten(params).expand(lifetimes, -1))
        without = {name: self.loss.without(loss, name) for name in self.loss.removable}
        return Dissection(
            self.loss.bind(loss),
            self._ppo(),
            {name: self.loss.bind(blind) for name, blind in without.items()},
        )

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

    def run(self, shared: Shared, unit: Unit) -> Result:
        """The fitness of the candidates of some pairs, [pairs, S], with the KL and entropy of
        their agents, [pairs]."""
        config, settings = self.config, self.settings
        # candidates: φ + σε and φ − σε of each pair
        phi = self.spec.flatten(tensors_of(shared)).numpy()
        sigma = settings.sigma.at(unit.step)
        candidates = np.concatenate(
            [perturb(phi, sigma, config.seed, unit.step, pair) for pair in unit.members]
        )
        # each is judged on T MDPs; both candidates of a pair share all chance
        per_pair = settings.mdps_per_pair
        distinct = [
            LifetimeSeed(config.seed, unit.purpose, unit.step, pair, mdp)
            for pair in unit.members
            for mdp in range(per_pair)
        ]
        shape = (unit.count, 2, per_pair)
        of_pair = np.arange(unit.count * per_pair).reshape(unit.count, 1, per_pair)
        index = np.broadcast_to(of_pair, shape).ravel().tolist()
        seeds = LifetimeSeeds(distinct, index, config.device)
        mdps = draw_mdps(self.task, seeds, settings.task_draw)
        # their agents live from scratch
        each = torch.from_numpy(candidates).to(config.device).repeat_interleave(per_pair, dim=0)
        agents = self._agents(each, seeds, settings.alpha.at(unit.step))
        lived = live(self.task, mdps, agents, seeds, self.lifetime(unit))
        fitness = self.task.score(mdps, lived.final_return)
        arrays = {"fitness": fitness.reshape(shape).mean(2)}
        for name, values in lived.metrics.items():
            arrays[name] = values.reshape(shape).mean((1, 2))
        return Result(unit, arrays, lived.steps, lived.exploded)

    def idle(self, step: int) -> None:
        self._noise.draw_ahead(step)

    def update(self, step: int, results: Sequence[Result]) -> Row:
        """One generation: fitness becomes weights, weights and noise a gradient, that a step."""
        pairs = [pair for result in results for pair in result.unit.members]
        fitness = np.concatenate([result.arrays["fitness"] for result in results])
        moved = self.strategy.step(step, self._noise.of(step, pairs), self.shaping.weigh(fitness))
        return {
            **health(fitness),
            **moved,
            "alpha": self.settings.alpha.at(step),
            "inner_kl": finite_mean(np.concatenate([r.arrays["kl"] for r in results])),
            "inner_entropy": finite_mean(np.concatenate([r.arrays["entropy"] for r in results])),
        }

    def state_dict(self) -> dict[str, Tensor]:
        return self.strategy.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.strategy.load_state_dict(state)
