"""Policies that sample their actions: while they learn, and while they are judged.

Shape letters: P lifetimes, W environments of each, E episodes, O observation, A action.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from epg.agents.actor import Actor
from epg.agents.distributions import Distribution
from epg.seeds import LifetimeSeeds, Stream
from epg.tasks.base import Step

NOISE_AHEAD = 64
"""Steps for which the noise of actions is drawn at once."""


class Actors(Protocol):
    """P agents whose policies are sampled from."""

    distribution: Distribution

    def actor(self, of: Tensor | None = None) -> Actor:
        """What acts for them, or for those with the numbers `of`, until they learn."""


class NoiseAhead:
    """The noise of P agents' actions, drawn for some steps at once from a stream of their seeds.

    side_by_side: actions that each takes in a step.
    """

    def __init__(
        self, networks: Actors, seeds: LifetimeSeeds, side_by_side: int = 1,
        stream: Stream = Stream.ACTION,
    ) -> None:  # fmt: skip
        self._distribution = networks.distribution
        self._seeds, self._stream = seeds, stream
        self._shape = NOISE_AHEAD, side_by_side
        self._next = NOISE_AHEAD
        self.block = torch.empty(0)
        """[P, steps, side_by_side, …], the newest"""

    def spread(self, actor: Actor, of: Tensor | None = None) -> Any:
        """The newest noise of all, or of some, as an actor of theirs takes it: an array of the same
        shape."""
        block = self.block if of is None else self.block[of]
        spread = actor.spread(block.flatten(1, 2))
        return spread.reshape(len(block), *self._shape, *spread.shape[2:])

    def take(self) -> int:
        """The place in `block` of the next step's noise; 0 in a block that is new."""
        if self._next == NOISE_AHEAD:
            self.block = self._seeds.draw(
                self._stream, lambda rng: self._distribution.noise(rng, self._shape)
            )
            self._next = 0
        self._next += 1
        return self._next - 1


class LearningPolicy:
    """P policies, each in the W environments in which it learns."""

    def __init__(self, networks: Actors, noise: NoiseAhead) -> None:
        self._actor = networks.actor()
        self._noise = noise
        self._spread: Any = None

    def act(self, step: Step) -> Tensor:
        t = self._noise.take()
        if t == 0 or self._spread is None:
            self._spread = self._noise.spread(self._actor)
        return self._actor.act(step.observation, self._spread[:, t])


class JudgedPolicy:
    """P policies, each in E environments that rest where their episode has ended.

    Lifetimes whose episodes all rest do not act: they are looked for at every new block of noise.
    """

    def __init__(self, networks: Actors, seeds: LifetimeSeeds, episodes: int) -> None:
        self._networks = networks
        seeds.restart(Stream.FINAL_ACTION)  # what was judged before must not be noticed
        self._noise = NoiseAhead(networks, seeds, episodes, Stream.FINAL_ACTION)
        self._episodes = episodes

    def act(self, step: Step) -> Tensor:
        t = self._noise.take()
        if t == 0:
            self._leave_out(step.terminated | step.truncated)
        chosen = self._actor.act(step.observation[self._rows], self._spread[:, t])
        actions = chosen.new_zeros(len(step.observation), *chosen.shape[1:])
        actions[self._rows] = chosen
        return actions

    def _leave_out(self, resting: Tensor) -> None:
        """Make ready those who act on for a block. resting: [P·E] bool."""
        episodes = self._episodes
        acting = (~resting).view(-1, episodes).any(1).nonzero().squeeze(1)
        each = torch.arange(episodes, device=resting.device)
        self._rows = (acting.unsqueeze(1) * episodes + each).flatten()
        self._actor = self._networks.actor(acting)
        self._spread = self._noise.spread(self._actor, acting)
