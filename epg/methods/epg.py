"""Evolved Policy Gradients: the loss that agents go down is evolved (Houthooft et al. 2018,
arXiv 1802.04821, algorithm 1).

Shape letters: P lifetimes.
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
from epg.agents.blind import BlindActorCritic
from epg.agents.loss import Loss
from epg.agents.policy_gradient import PolicyGradientAgents
from epg.agents.released import ReleasedActorCritic, ReleasedAdam
from epg.agents.spec import AgentSpec, init_flat
from epg.config import Config
from epg.errors import UserError
from epg.farm.work import Result
from epg.lifetime import LifetimeResult, LifetimeSettings, joined
from epg.losses.base import TeachingLoss, make_loss
from epg.losses.lpg_loss import LpgLoss
from epg.losses.lstm_loss import LstmLoss
from epg.losses.ppo import Ppo
from epg.losses.released import ReleasedPpo, ReleasedTemporalConv
from epg.losses.weighted_sum import Fading, WeightedSum
from epg.methods.base import Card, Dissection, Params, Row
from epg.methods.evolved import Evolved, EvolvedSettings
from epg.methods.footprint import check_replay
from epg.methods.parameters import ParameterSpec
from epg.seeds import LifetimeSeed, LifetimeSeeds, Purpose, Stream
from epg.settings import Named, Schedule, choose, constant
from epg.tasks.base import Mdp, Sizes, Task
from epg.tasks.mixture import TaskMixture


class Epg(Evolved):
    """A loss, evolved by pairs of candidates, each of which trains agents from scratch."""

    class Settings(EvolvedSettings):
        """The evolution of a loss."""

        loss: SerializeAsAny[Named] = Field(
            "temporal_conv",
            validate_default=True,
            description="what evolves: temporal_conv, per_step, lpo, lstm, lpg, or module:Class",
        )
        alpha: Schedule = Field(
            constant(0.0),
            description="α, the weight of PPO beside the learned loss's 1 − α, over generations",
        )
        fade: float | None = Field(
            None, gt=0, le=1e9,
            description="updates of a life after which the learned loss has half the weight that "
            "it begins with, and PPO what it leaves; null: it keeps it",
        )  # fmt: skip
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
    metrics = (*Evolved.metrics, "alpha")
    panels: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **Evolved.panels,
        "α, weight of PPO\nas scheduled": ("alpha",),
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
        if isinstance(self.loss, TeachingLoss):
            for key in ("evolve_policy_init", "fade"):
                if found := getattr(settings, key):
                    name = settings.loss.name
                    raise UserError(f"method.{key}: found {found}, which loss {name} does not know")
        if isinstance(self.loss, LpgLoss):
            if max(settings.alpha.start, settings.alpha.end) > 0:
                raise UserError("method.alpha: found more than 0, beside loss lpg is nothing")
            if not isinstance(task, Sizes):
                self.loss.networks(task, config.agent.hidden)
            self.loss.pieces_in(config.lifetime.steps_per_update)
        policy = self.agent.policy_shapes() if settings.evolve_policy_init else {}
        self._spec = ParameterSpec(self.loss.shapes, policy)

    @property
    def spec(self) -> ParameterSpec:
        return self._spec

    @property
    def sized(self) -> bool:
        return self.loss.sized or bool(self.spec.policy)

    @property
    def blindable(self) -> bool:
        return not self.settings.match_release

    @property
    def final_alpha(self) -> float:
        """α after the last generation: what the evolved loss is made for and validated with."""
        return float(self.settings.alpha.at(self.config.steps))

    def validated_as(self) -> dict[str, float]:
        return {"alpha": self.final_alpha}

    def about(self) -> dict[str, float]:
        fade = self.settings.fade
        return {"α": self.final_alpha} | ({} if fade is None else {"fade": fade})

    def same(self) -> dict[str, Any]:
        keys = ("loss", "fade", "match_release", "evolve_policy_init")
        return {key: getattr(self.settings, key) for key in keys}

    # What evolves, and the agents that learn by it

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
        phi = self.spec.flatten(params).to(seeds.device).expand(len(seeds), -1)
        return self._agents(phi, seeds, self.config.lifetime, self.final_alpha)

    def blind(self, params: Params, seeds: LifetimeSeeds) -> Agents:
        if self.settings.match_release:
            raise UserError("method blind: is not known of agents with match_release")
        phi = self.spec.flatten(params).to(seeds.device).expand(len(seeds), -1)
        return self._agents(phi, seeds, self.config.lifetime, self.final_alpha, blind=True)

    def candidates(
        self, phi: Tensor, seeds: LifetimeSeeds, lifetime: LifetimeSettings, step: int
    ) -> Agents:
        of_step = phi, seeds, lifetime, self.settings.alpha.at(step)
        return self._agents(*of_step, side_by_side=True)

    def live(
        self, mdps: Sequence[Mdp], phi: Tensor, seeds: LifetimeSeeds, lifetime: LifetimeSettings,
        step: int,
    ) -> LifetimeResult:  # fmt: skip
        """As of all that evolves; agents that a loss brings along are made for that task of a
        mixture that they live in, not for the largest."""
        about = lifetime, step
        if not (isinstance(self.loss, TeachingLoss) and isinstance(self.task, TaskMixture)):
            return super().live(mdps, phi, seeds, *about)
        results, places = [], []
        for number, part in enumerate(self.task.parts):
            mine = [i for i, mdp in enumerate(mdps) if mdp["part"] == number]
            if mine:
                alone = type(self)(self.config, part.task)
                own = [mdps[i]["mdp"] for i in mine]
                results.append(alone.live(own, phi[mine], seeds.those(mine), *about))
                places.append(mine)
        return joined(results, places)

    def _agents(
        self,
        phi: Tensor,
        seeds: LifetimeSeeds,
        lifetime: LifetimeSettings,
        alpha: float,
        blind: bool = False,
        side_by_side: bool = False,
    ) -> Agents:
        """Agents, each with a φ of its own [P, size], and PPO beside the loss with weight α; beside
        an objective for deterministic policies, the critic's value. side_by_side: LPG's may live in
        several environments at once, as they do where the rule learns by its gradient."""
        released, setup = self.settings.match_release, self.config.setup
        loss, policy = self.spec.split(phi)
        if isinstance(self.loss, TeachingLoss):
            of_life = lifetime.updates, lifetime.steps_per_update
            about = loss, self.task, setup.agent.hidden, seeds, *of_life, blind
            if isinstance(self.loss, LpgLoss):
                return self.loss.agents(*about, side_by_side)
            if not isinstance(self.loss, LstmLoss):
                return self.loss.agents(*about)
            check_replay(self.loss.agents_settings, self.task, len(seeds), lifetime.steps)
            return self.loss.agents(*about, share=1 - alpha)
        learned, ppo, fade = self.loss.bind(loss), self._ppo(), self.settings.fade
        whole: Loss = WeightedSum([(1 - alpha, learned), (alpha, ppo)])
        if fade is not None:
            whole = Fading(1 - alpha, learned, ppo, fade)
        parameters = init_parameters(self.agent, seeds, policy)
        kind = ReleasedActorCritic if released else BlindActorCritic if blind else ActorCritic
        networks = kind(self.agent, parameters, setup.agent.train_memory)
        adam = ReleasedAdam if released else FusedAdam
        return PolicyGradientAgents(
            networks, seeds, setup.learner, whole, lifetime.updates, adam, self.familiar
        )

    @property
    def says(self) -> str:
        return self.loss.says if isinstance(self.loss, TeachingLoss) else ""

    def _ppo(self) -> Ppo:
        return (ReleasedPpo if self.settings.match_release else Ppo).of(self.config.learner)

    def dissect(self, params: Params, lifetimes: int) -> Dissection | None:
        if isinstance(self.loss, TeachingLoss):
            return None
        loss, _ = self.spec.split(self.spec.flatten(params).expand(lifetimes, -1))
        without = {name: self.loss.without(loss, name) for name in self.loss.removable}
        return Dissection(
            self.loss.bind(loss),
            self._ppo(),
            {name: self.loss.bind(blind) for name, blind in without.items()},
        )

    def update(self, step: int, results: Sequence[Result]) -> Row:
        return {**super().update(step, results), "alpha": self.settings.alpha.at(step)}
