"""Agents that learn by a rule, and tune it while they learn.

Shape letters: P lifetimes, M new rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from epg.agents.actor import Actor
from epg.agents.base import Agents, Metrics, Policy
from epg.agents.buffer import Transitions
from epg.agents.network import Parameters
from epg.agents.sampling import JudgedPolicy, LearningPolicy, NoiseAhead
from epg.rules.online import Online, Tuning
from epg.rules.rollout import Rollout
from epg.rules.rule import Update
from epg.seeds import LifetimeSeeds, Stream

RECENT = 10
"""Rollouts whose mean rewards η may hang on."""
SIZE = "meta_gradient"


class RuleAgents(Agents):
    """P of them, each with θ and η of its own."""

    def __init__(
        self, update: Update, tuning: Tuning, seeds: LifetimeSeeds, activation: str, lag: int = 0,
        eta: Parameters | None = None,
    ) -> None:  # fmt: skip
        """lag: updates by which the policy that acts is behind the one that learns; eta: to begin
        with, in place of what the rule draws."""
        rule = update.rule
        theta = drawn(seeds, Stream.AGENT, rule.init)
        eta = drawn(seeds, Stream.LOSS, rule.init_eta) if eta is None else eta
        self._online = Online(update, tuning, theta, eta)
        self._rule = rule
        self.distribution = rule.distribution
        self._activation = activation
        self._seeds = seeds
        self._noise = NoiseAhead(self, seeds)
        self._policies: deque[tuple[Parameters, Parameters]] = deque(maxlen=lag + 1)
        self._recent = torch.zeros(len(seeds), RECENT, device=seeds.device)
        self._keep()
        tunes = self._online.tunes
        self.course = (*rule.shown(self._online.eta), SIZE) if tunes else ()

    def _keep(self) -> None:
        """The policies of now will act, some updates later if there is a lag."""
        online = self._online
        eta = {name: p.detach() for name, p in online.eta.items()}
        self._policies.append((eta, {name: p.detach() for name, p in online.theta.items()}))

    @property
    def eta(self) -> Parameters:
        """η as it is, by name."""
        return {name: p.detach() for name, p in self._online.eta.items()}

    def kept(self) -> dict[str, Tensor]:
        return self.eta if self._online.tunes else {}

    def policy(self, episodes: int | None = None) -> Policy:
        if episodes is None:
            return LearningPolicy(self, self._noise)
        return JudgedPolicy(self, self._seeds, episodes)

    def actor(self, of: Tensor | None = None) -> Actor:
        """What acts: with `of`, where policies are judged, the newest of those agents."""
        eta, theta = self._policies[0 if of is None else -1]
        acting = self._rule.acting(eta, theta)
        if of is not None:
            acting = {name: p[of] for name, p in acting.items()}
        first = acting["policy.0.weight"]
        nothing = first.new_zeros(len(first), 1, first.shape[1])
        layers = sum(name.endswith(".weight") for name in acting)
        scale = torch.ones_like(nothing)
        return Actor(acting, layers, (nothing, scale), self.distribution, self._activation)

    def learn(self, new: Transitions) -> Metrics:
        """An update of θ, and of η when its window is whole; what η shows, and the norm of its
        gradient."""
        behaviour = None
        if self._policies.maxlen != 1:
            with torch.no_grad():
                outputs = self._rule.outputs(*self._policies[0], new.observations)
                behaviour = self.distribution.log_prob(outputs, new.actions)
        rollout = Rollout.of(new, behaviour, self._recent)
        size = self._online.learn(rollout)
        self._recent = torch.cat((self._recent[:, 1:], new.rewards.mean(1, keepdim=True)), 1)
        self._keep()
        with torch.no_grad():
            shown = self._rule.shown(self.eta, rollout)
        return {**shown, SIZE: size} if self.course else {}

    @property
    def failed(self) -> Tensor:
        broken = torch.zeros(len(self._seeds), dtype=torch.bool, device=self._seeds.device)
        for leaf in (*self._online.theta.values(), *self._online.eta.values()):
            broken |= ~torch.isfinite(leaf.detach()).reshape(len(leaf), -1).all(1)
        return broken


def drawn(
    seeds: LifetimeSeeds,
    stream: Stream,
    init: Callable[[np.random.Generator], dict[str, np.ndarray]],
) -> Parameters:
    """What `init` draws from each agent's seed, by name, [P, …]."""
    shapes: dict[str, tuple[int, ...]] = {}

    def flat(rng: np.random.Generator) -> np.ndarray:
        found = init(rng)
        shapes.update({name: np.shape(array) for name, array in found.items()})
        return np.concatenate([np.zeros(0, np.float32), *[np.ravel(a) for a in found.values()]])

    whole = seeds.draw(stream, flat)
    pieces = whole.split([int(np.prod(shape)) for shape in shapes.values()], 1)
    return {
        name: piece.reshape(len(seeds), *shape).clone()
        for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
    }
