"""Policies that sample their actions: while they learn, and while they are judged.

Shape letters: P lifetimes, E episodes, O observation, A action.
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

    episodes: None for one action a step, E for E of them.
    """

    def __init__(self, networks: Actors, seeds: LifetimeSeeds, episodes: int | None = None) -> None:
        self._distribution = networks.distribution
        self._seeds = seeds
        self._stream = Stream.ACTION if episodes is None else Stream.FINAL_ACTION
        self._shape = (NOISE_AHEAD,) if episodes is None else (NOISE_AHEAD, episodes)
        self._next = NOISE_AHEAD
        self.block = torch.empty(0)
        """[P, steps, …] or [P, steps, E, …], the newest"""

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
    """P policies, each in the environment in which it learns."""

    def __init__(self, networks: Actors, noise: NoiseAhead) -> None:
        self._actor = networks.actor()
        self._noise = noise
        self._spread: Any = None

    def act(self, step: Step) -> Tensor:
        t = self._noise.take()
        if t == 0 or self._spread is None:
            self._spread = self._actor.spread(self._noise.block)
        return self._actor.act(step.observation, self._spread[:, t : t + 1])


class JudgedPolicy:
    """P policies, each in E environments that rest where their episode has ended.

    Lifetimes whose episodes all rest do not act: they are looked for at every new block of noise.
    """

    def __init__(self, networks: Actors, seeds: LifetimeSeeds, episodes: int) -> None:
        self._networks = networks
        seeds.restart(Stream.FINAL_ACTION)  # what was judged before must not be noticed
        self._noise = NoiseAhead(networks, seeds, episodes)
        self._episodes = episodes

    def act(self, step: Step) -> Tensor:
        t = self._noise.take()
        if t == 0:
            self._leave_out(step.terminated | step.truncated)
        chosen = self._actor.act(step.observation[self._rows], self._spread[:, :, t])
        actions = chosen.new_zeros(len(step.observation), *chosen.shape[1:])
        actions[self._rows] = chosen
        return actions

    def _leave_out(self, resting: Tensor) -> None:
        """Make ready those who act on for a block. resting: [P·E] bool."""
        episodes, block = self._episodes, self._noise.block
        acting = (~resting).view(-1, episodes).any(1).nonzero().squeeze(1)
        each = torch.arange(episodes, device=block.device)
        self._rows = (acting.unsqueeze(1) * episodes + each).flatten()
        self._actor = self._networks.actor(acting)
        spread = self._actor.spread(block[acting].transpose(1, 2).flatten(1, 2))
        self._spread = spread.reshape(len(acting), episodes, NOISE_AHEAD, *spread.shape[2:])
