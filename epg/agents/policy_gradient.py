"""Agents that go down a loss: the inner loop's update, for any loss.

Shape letters: P lifetimes, M new rows, B minibatch.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor

from epg.agents.actor_critic import ActorCritic, Experience
from epg.agents.adam import FusedAdam
from epg.agents.age import Age
from epg.agents.base import Agents, Metrics, Policy
from epg.agents.buffer import Transitions
from epg.agents.loss import Loss
from epg.agents.sampling import JudgedPolicy, LearningPolicy, NoiseAhead
from epg.seeds import LifetimeSeeds, Stream
from epg.settings import Count, Fraction, Settings


class RateSchedule(Settings):
    """How an agent's learning rate falls over its life; n updates of N lived."""

    name: Literal["constant", "linear", "inverse"] = Field(
        "constant", description="constant; linear: × (1 − n/N); inverse: × 1/(1 + n/updates)"
    )
    updates: PositiveFloat = Field(16.0, le=1e9, description="of inverse: until the rate is halved")

    @model_validator(mode="before")
    @classmethod
    def _accept_a_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    def factor(self, age: Age) -> float:
        """What the learning rate is multiplied with."""
        if self.name == "linear":
            return 1 - age.progress
        return 1 / (1 + age.update / self.updates) if self.name == "inverse" else 1.0

    def __str__(self) -> str:
        """What the learning rate is multiplied with, for people."""
        falling = {"linear": "1 − n/N", "inverse": f"1/(1 + n/{self.updates:g})"}
        return f"lr × ({falling[self.name]})" if self.name in falling else "lr constant"


class LearnerSettings(Settings):
    """How agents go down their loss."""

    learning_rate: PositiveFloat = Field(1e-3, le=1e30, description="the agent's Adam")
    schedule: RateSchedule = Field(
        RateSchedule(),
        description="how the learning rate falls: constant, linear, or {name: inverse, updates: c}",
    )
    buffer: Count = Field(512, description="N, newest transitions that the loss sees")
    minibatch: Count = Field(32, description="B, steps in a minibatch; divides M")
    passes: Count = Field(1, description="passes over the newest M steps in an update")
    discount: Fraction = Field(0.99, description="γ of hand-made losses")
    gae_lambda: Fraction = Field(0.95, description="λ of their advantages")
    clip: PositiveFloat = Field(
        0.2, le=1e30, description="of PPO: a ratio of probabilities counts within 1 ± clip"
    )
    entropy: float = Field(
        0.01, ge=0, le=1e30, description="weight of entropy in A2C and V-trace, and in what tunes "
        "them",
    )  # fmt: skip
    meta_rate: PositiveFloat = Field(
        1e-2, le=1e30, description="of what tunes itself within a life, by Adam"
    )


class PolicyGradientAgents(Agents):
    """Actor-critics, each of which goes down its loss by minibatches of the newest M steps."""

    def __init__(
        self,
        networks: ActorCritic,
        seeds: LifetimeSeeds,
        settings: LearnerSettings,
        loss: Loss | None,
        updates: int,
        adam: type[FusedAdam] = FusedAdam,
        familiar: tuple[int, int] | None = None,
    ) -> None:
        """loss: batched over P; None for agents whose statistics alone learn. updates: of their
        whole lives; familiar: of those that the loss was made for, from and to, any if None."""
        self.networks = networks
        self.loss = loss
        self._seeds = seeds
        self._settings = settings
        self._adam = adam(networks, settings.learning_rate)
        self._buffer = networks.buffer(settings.buffer)
        self._noise = NoiseAhead(networks, seeds)
        self._age = Age(0, updates, familiar)

    def policy(self, episodes: int | None = None) -> Policy:
        if episodes is None:
            return LearningPolicy(self.networks, self._noise)
        return JudgedPolicy(self.networks, self._seeds, episodes)

    def learn(self, new: Transitions) -> Metrics:
        """Minibatch steps down the loss; kl: KL(old‖new) on the newest M steps, entropy in nats."""
        experience = self.networks.remember(self._buffer, new, self._age)
        self._adam.learning_rate = self._settings.learning_rate * self._settings.schedule.factor(
            self._age
        )
        self._age = self._age.next()
        if self.loss is not None:
            minibatches = draw_minibatches(self._seeds, self._settings, new.rewards.shape[1])
            descend(self.networks, self._adam, self.loss, experience, minibatches)
        return self._measure(experience)

    @property
    def failed(self) -> Tensor:
        broken = self._adam.broken.clone()
        for parameter in self.networks.trained():
            broken |= ~torch.isfinite(parameter.detach()).flatten(1).all(1)
        return broken

    @torch.no_grad()
    def _measure(self, experience: Experience) -> Metrics:
        count = experience.new.rewards.shape[1]
        outputs = self.networks.outputs(experience.observations[:, -count:])
        distribution = self.networks.distribution
        return {
            "kl": distribution.kl(experience.old_outputs, outputs).mean(1),
            "entropy": distribution.entropy(outputs).mean(1),
        }


def draw_minibatches(seeds: LifetimeSeeds, settings: LearnerSettings, count: int) -> list[Tensor]:
    """The minibatches of an update: rows [P, B] of the newest M, shuffled anew for each pass."""

    def shuffle(rng: np.random.Generator) -> np.ndarray:
        return np.concatenate([rng.permutation(count) for _ in range(settings.passes)])

    return list(seeds.draw(Stream.MINIBATCH, shuffle).split(settings.minibatch, dim=1))


def descend(
    networks: ActorCritic,
    adam: FusedAdam,
    loss: Loss,
    experience: Experience,
    minibatches: list[Tensor],
) -> None:
    """One update: minibatch steps down the loss."""
    objective = loss.objective(networks, experience)
    seen = max(loss.history, experience.new.rewards.shape[1])
    observations = experience.observations[:, -seen:]
    for rows in minibatches:
        adam.descend(objective(networks.outputs(observations), rows))
