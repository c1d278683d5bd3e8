"""A batch simulated by torch itself, on any device.

Shape letters: P environments, S numbers in a state, O observation, A action, K numbers drawn for a
step, C places.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from epg.tasks.base import Batch, Step
from epg.tasks.draws import Draw, numbers_of


class NativeBatch(Batch):
    """Keeps the episodes; `move`, `reward`, `ends`, `observe` say what the environments are.

    An episode fails when its next state, its reward or its action is not finite. It then ends
    where it stood, with reward 0.
    """

    def __init__(
        self,
        rngs: Sequence[np.random.Generator],
        draw: Draw | int,
        horizon: int | Tensor,
        device: str,
        restart: bool,
    ) -> None:
        """`draw`: what draws resets, or of how many uniform numbers one is made.

        horizon: of all environments, or of each, [P] int64.
        """
        self._resets = numbers_of(rngs, draw, device)
        self._horizon = horizon
        self._device = device
        self._restart = restart
        self._everyone = torch.ones(len(rngs), dtype=torch.bool, device=device)
        self._failures = torch.zeros(len(rngs), dtype=torch.int64, device=device)

    @property
    def failures(self) -> NDArray[np.int64]:
        return self._failures.cpu().numpy()

    @abstractmethod
    def move(self, state: Tensor, actions: Tensor) -> Tensor:
        """The next state, [P, S], of state [P, S] and actions [P, A] or [P]."""

    @abstractmethod
    def reward(self, state: Tensor) -> Tensor:
        """The reward of having come to a state, [P]."""

    @abstractmethod
    def ends(self, state: Tensor) -> Tensor:
        """Whether the MDP ends in a state, [P] bool."""

    def begin(self, drawn: Tensor) -> Tensor:
        """The states, [P, S], that episodes start in, of what was drawn for them: here, that."""
        return drawn

    def observe(self, state: Tensor) -> Tensor:
        """What is seen of a state, [P, O], as a new tensor: here, all of it."""
        return state.clone()

    def reset(self) -> Tensor:
        self._state = self.begin(self._resets.next())
        self._resets.advance(self._everyone)
        self._age = torch.zeros_like(self._failures)
        self._terminated = torch.zeros_like(self._everyone)
        self._resting = torch.zeros_like(self._everyone)
        return self.observe(self._state)

    def step(self, actions: Tensor) -> Step:
        actions = actions.to(self._device)
        after = self.move(self._state, actions)
        reward = self.reward(after)
        sane = after.isfinite().all(1) & actions.isfinite().reshape(len(after), -1).all(1)
        failed = ~(sane & reward.isfinite()) & ~self._resting
        after = torch.where((failed | self._resting)[:, None], self._state, after)
        reward = torch.where(failed | self._resting, 0.0, reward)
        terminated = torch.where(self._resting, self._terminated, failed | self.ends(after))
        self._age += ~self._resting
        truncated = (self._age >= self._horizon) & ~terminated
        ended = terminated | truncated
        self._failures += failed
        if self._restart:
            self._state = torch.where(ended[:, None], self.begin(self._resets.next()), after)
            self._resets.advance(ended)
            self._age *= ~ended
        else:
            self._state = after
            self._terminated = terminated.clone()
            self._resting = ended
        observation, next_observation = self.observe(self._state), self.observe(after)
        return Step(observation, next_observation, reward, terminated, truncated)


class LifelongBatch(NativeBatch):
    """Keeps also what outlasts an episode: how long each environment has lived, and its chance.

    The k-th step of environment i finds the k-th draw of a generator of its own, whatever the
    others do. A reset leaves both where they are; at rest nothing is lived.
    """

    clock: Tensor
    """[P] int64: steps that each environment has lived before this one, over episodes."""
    chance: Tensor
    """[P, K] float64: what is drawn for this step."""

    def __init__(
        self,
        rngs: Sequence[np.random.Generator],
        draw: Draw | int,
        draw_chance: Draw | int,
        horizon: int | Tensor,
        device: str,
        restart: bool,
    ) -> None:
        super().__init__(rngs, draw, horizon, device, restart)
        self._chances = numbers_of([rng.spawn(1)[0] for rng in rngs], draw_chance, device)
        self.clock = torch.zeros_like(self._failures)

    def step(self, actions: Tensor) -> Step:
        lived = ~self._resting
        self.chance = self._chances.next()
        step = super().step(actions)
        self._chances.advance(lived)
        self.clock += lived
        return step


def one_hot(places: Tensor, size: int) -> Tensor:
    """[P, C] float64: for each of `places` [P] a row with 1 there; zeros for a place beyond C."""
    return (places[:, None] == torch.arange(size, device=places.device)).to(torch.float64)


def ones_at(places: Tensor, lit: Tensor | float, size: int) -> Tensor:
    """[P, C] float64: for each row of `places` [P, K] that many numbers `lit` there, added up.

    For many and large rows. Only the memory that is written to is ever touched: NumPy asks for
    zeros in huge pages, torch writes them one by one, which takes 5 to 20 times as long.
    """
    if places.device.type == "cpu":
        rows = torch.from_numpy(np.zeros((len(places), size)))
    else:
        rows = torch.zeros(len(places), size, dtype=torch.float64, device=places.device)
    lit = torch.as_tensor(lit, dtype=torch.float64, device=places.device).expand_as(places)
    return rows.scatter_add_(1, places, lit)
