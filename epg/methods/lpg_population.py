"""Agents that learn by LPG's rule, each in many environments at once, and what η's gradient is as
they go: lives that end and are begun anew.

Shape letters: P agents of one age, W environments of each, T steps, O observation, A arms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from epg.agents.network import Parameters
from epg.rules.agents import drawn
from epg.rules.lpg_agents import age_of, not_finite
from epg.rules.lpg_gradient import LpgGradient, mean_of
from epg.rules.outer_value import OuterValue
from epg.rules.rollout import Rollout
from epg.seeds import LifetimeSeed, LifetimeSeeds, Stream
from epg.tasks.base import Batch, Task, draw_mdps
from epg.tasks.numbered import Numbered

RECENT = 10
"""Updates whose mean reward says what a life came to."""


class Came(NamedTuple):
    """What came of a round."""

    gradients: Parameters
    """of η, sums over agents; all 0 where one of them is not finite"""
    counted: int
    """agents that they are sums over"""
    noted: dict[str, Tensor]
    """by name [P]"""


@dataclass(frozen=True)
class Life:
    """How the agents of a unit live."""

    updates: int
    """N, of a life"""
    inner: int
    """K, updates between two judgements"""
    pieces: int
    """W"""
    steps: int
    """T"""


class LpgPopulation:
    """P agents of one task and one age: each in a life of its own.

    Environments and the chance of actions begin anew with each step of the outer loop, so that
    what agents are is all that a checkpoint must keep.
    """

    def __init__(
        self, task: Task, learner: Callable[[Tensor], LpgGradient], value: OuterValue,
        seeds: LifetimeSeeds, life: Life, first: int,
    ) -> None:  # fmt: skip
        """learner: of arms [P]; first: updates of the first life."""
        self._learner_of = learner
        networks = learner(torch.zeros(len(seeds), dtype=torch.int64)).rule.networks
        self.task = task if networks.hidden else Numbered(task)
        self._networks, self._value = networks, value
        self._seeds, self._life, self._first = seeds, life, first
        self._lives = 0
        self._environments: Batch | None = None
        self._step = -1
        self._age = 0
        self._exploded = 0
        self._pending: Rollout | None = None

    # Lives that begin, go on, and end

    def begin(self, probabilities: Tensor) -> None:
        """New agents in new MDPs; probabilities: [A] with which they have each arm."""
        seeds = self._life_seeds()
        below = probabilities.to(torch.float64).cumsum(0).numpy()
        arms = [np.searchsorted(below, s.rng(Stream.ARM).random()) for s in seeds.distinct]
        self._draw(torch.tensor(np.minimum(arms, len(below) - 1)))
        self._age = 0

    def _draw(self, arms: Tensor) -> None:
        """Agents with these arms [P] at the beginning of their lives."""
        seeds, count = self._life_seeds(), len(self._seeds)
        self._state = {
            "arm": arms,
            "recent": torch.zeros(count, RECENT, device=seeds.device),
            "whole": torch.ones(count, device=seeds.device),
            **_named("theta.", drawn(seeds, Stream.AGENT, self._networks.init)),
            **_named("value.", drawn(seeds, Stream.LOSS, self._value.init)),
        }
        learner = self._learner_of(arms)
        self._state |= _named("moments.", learner.optimizer.init(self._below("theta.")))
        self._state |= _named("value_moments.", self._value.moments(self._below("value.")))
        self._pending = None

    def _life_seeds(self) -> LifetimeSeeds:
        old = self._seeds
        each = [LifetimeSeed(s.run, s.purpose, self._lives, s.member) for s in old.distinct]
        return LifetimeSeeds(each, old.index, old.device)

    def _below(self, prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): t for n, t in self._state.items() if n.startswith(prefix)}

    def begin_step(self, step: int) -> None:
        """New episodes of the same MDPs, whose chance is that of a step of the outer loop."""
        self._step = step
        self._begin_episodes()

    def _begin_episodes(self) -> None:
        seeds, pieces = self._life_seeds(), self._life.pieces
        mdps = draw_mdps(self.task, seeds)
        of_step = [
            LifetimeSeed(s.run, s.purpose, self._step, s.member) for s in self._seeds.distinct
        ]
        resets = [s.rng(Stream.RESET, self._lives, w) for s in of_step for w in range(pieces)]
        each = [mdp for mdp in mdps for _ in range(pieces)]
        if self._environments is not None:
            self._exploded += int(self._environments.failures.sum())
        self._environments = self.task.batch(each, resets, self._seeds.device)
        self._actions = [s.rng(Stream.ACTION, self._lives) for s in of_step]
        self._seen = self._observed(self._environments.reset())
        self._pending = None

    def renew(self, probabilities: Tensor) -> dict[str, Tensor]:
        """Begin all anew whose time has come, and those whose learning has failed where they are;
        by name [P] whose lives have ended, what they came to, NaN if they failed in between, with
        which arm, and who has failed now."""
        failed = not_finite({n: t for n, t in self._state.items() if t.is_floating_point()})
        if failed.any():
            self._replace(failed)
        before, count = self._state, len(self._seeds)
        over = self._age >= (self._life.updates if self._lives else self._first)
        newest = before["recent"][:, -min(self._age, RECENT) :].mean(1)
        if over:
            self._lives += 1
            self.begin(probabilities)
            self._begin_episodes()
        return {
            "ended": torch.full((count,), float(over)),
            "came_to": torch.where(before["whole"] > 0, newest, torch.nan),
            "ended_arm": before["arm"],
            "renewed": failed.to(torch.float32),
        }

    def _replace(self, failed: Tensor) -> None:
        """Agents [P] bool as they were at the beginning of their lives; Adam's count goes on."""
        arms, age = self._state["arm"], self._age
        old = self._state
        self._draw(arms)
        for name, tensor in self._state.items():
            if tensor.ndim:
                shape = (-1, *[1] * (tensor.ndim - 1))
                self._state[name] = torch.where(failed.reshape(shape), tensor, old[name])
            else:
                self._state[name] = old[name]
        self._state["whole"] = torch.where(failed, 0.0, old["whole"])
        self._age = age

    @property
    def exploded(self) -> int:
        """Episodes that have left the finite."""
        now = 0 if self._environments is None else int(self._environments.failures.sum())
        return self._exploded + now

    # Living, learning, being judged

    def round(self, eta: Parameters) -> Came:
        """K updates, each on a rollout by the policies of then; the next one judges, and is what
        the first update of the next round learns from."""
        life, learner = self._life, self._learner_of(self._state["arm"])
        theta, moments = self._below("theta."), self._below("moments.")
        noted, rewards = [], []
        for _ in range(life.inner):
            rollout = self._pending or self._collect(theta)
            self._keep(rollout)
            rewards.append(rollout.rewards.mean(1))
            age = age_of(len(self._seeds), self._age, life.updates, self._seeds.device)
            theta, moments, told = learner.update(eta, theta, moments, rollout, age)
            noted.append(told)
            self._age += 1
            self._pending = self._collect(theta)
        # what became of them, by the advantages of the newest rollout
        assert self._pending is not None
        advantages = self._value.advantages(self._below("value."), self._pending)
        means = mean_of(noted)
        loss = learner.loss(theta, means, self._pending, advantages)
        found = torch.autograd.grad(loss.sum(), list(eta.values()))
        finite = all(bool(torch.isfinite(gradient).all()) for gradient in found)
        gradients = {
            name: gradient if finite else torch.zeros_like(gradient)
            for name, gradient in zip(eta, found, strict=True)
        }
        self._state |= _named("theta.", {n: p.detach() for n, p in theta.items()})
        self._state |= _named("moments.", {n: p.detach() for n, p in moments.items()})
        told = {name: value.detach() for name, value in means.items()}
        told["reward"] = torch.stack(rewards).mean(0)
        return Came(gradients, len(self._seeds) if finite else 0, told)

    def _keep(self, rollout: Rollout) -> None:
        """Values learn from a rollout, and its mean reward is kept."""
        value, moments = self._below("value."), self._below("value_moments.")
        value, moments = self._value.learn(value, moments, rollout)
        self._state |= _named("value.", value) | _named("value_moments.", moments)
        mean = rollout.rewards.mean(1, keepdim=True)
        self._state["recent"] = torch.cat((self._state["recent"][:, 1:], mean), 1)

    def _observed(self, observations: Tensor) -> Tensor:
        """[P, W, O] float32, or [P, W] int64 numbers of states."""
        each = observations.reshape(len(self._seeds), self._life.pieces, -1)
        return each.to(torch.float32) if self._networks.hidden else each.squeeze(-1).long()

    @torch.no_grad()
    def _collect(self, theta: Parameters) -> Rollout:
        """T steps in each environment."""
        assert self._environments is not None
        shape = self._life.steps, self._life.pieces
        noise = [rng.random(shape, dtype=np.float32) for rng in self._actions]
        chance = torch.from_numpy(np.stack(noise, 1)).to(self._seeds.device)  # [T, P, W]
        rows: dict[str, list[Tensor]] = {}
        for step in range(self._life.steps):
            seen = self._seen
            below = self.networks_say(theta, seen).cumsum(-1) <= chance[step].unsqueeze(-1)
            actions = below.sum(-1).clamp(max=self._networks.actions - 1)
            answer = self._environments.step(actions.flatten())
            self._seen = self._observed(answer.observation)
            for name, value in (
                ("observations", seen),
                ("actions", actions),
                ("rewards", answer.reward.reshape(actions.shape).to(torch.float32)),
                ("terminated", answer.terminated.reshape(actions.shape)),
                ("truncated", answer.truncated.reshape(actions.shape)),
                ("next", self._observed(answer.next_observation)),
            ):
                rows.setdefault(name, []).append(value)
        joined = {name: torch.stack(each, 2).flatten(1, 2) for name, each in rows.items()}
        return _rollout(joined, self._life.steps)

    def networks_say(self, theta: Parameters, seen: Tensor) -> Tensor:
        """[P, W, actions] probabilities."""
        return self._networks.probabilities(theta, "policy", seen)

    # What a checkpoint keeps

    def state(self) -> dict[str, Tensor]:
        """All of it, but chance and episodes under way."""
        ages = torch.tensor([self._lives, self._age])
        return {"lived": ages, **{name: tensor.cpu() for name, tensor in self._state.items()}}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a state of before."""
        self._lives, self._age = (int(n) for n in state["lived"])
        self._state = {
            n: t.to(self._seeds.device if n != "arm" else "cpu")
            for n, t in state.items()
            if n != "lived"
        }
        self._pending = None


def _rollout(rows: dict[str, Tensor], steps: int) -> Rollout:
    """W stretches of T rows; none goes on in the next."""
    joined = ~(rows["terminated"] | rows["truncated"])
    joined.view(len(joined), -1, steps)[:, :, -1] = False
    return Rollout(
        rows["observations"], rows["actions"], rows["rewards"],
        (~rows["terminated"]).to(torch.float32), joined, rows["next"],
        truncated=rows["truncated"].to(torch.float32),
    )  # fmt: skip


def _named(prefix: str, tensors: Parameters) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
