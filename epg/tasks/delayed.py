"""A task whose rewards are kept back and paid as a sum, every so many steps of an episode.

What an episode returns stays what it was; which action earned it can no longer be read off a step.

Shape letters: P environments.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from epg.tasks.base import Batch, Mdp, Step, Task
from epg.tasks.wrapped import Wrapped, WrappedBatch


class Delayed(Wrapped):
    """A task that pays every `every` steps of an episode, and at its end."""

    def __init__(self, task: Task, every: int) -> None:
        super().__init__(task)
        self.every = every
        self.summary += f"; rewards paid every {every} steps and at an episode's end"

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        batch = self.task.batch(mdps, rngs, device, restart)
        return DelayedBatch(batch, min(self.every, self.horizon))

    def score(self, mdps: Sequence[Mdp], returns: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.task.score(mdps, returns)


class DelayedBatch(WrappedBatch):
    """P environments, and what each still owes."""

    def __init__(self, batch: Batch, every: int) -> None:
        super().__init__(batch)
        self._every = every

    def see(self, observation: Tensor) -> Tensor:
        return observation

    def do(self, actions: Tensor) -> Tensor:
        return actions

    def reset(self) -> Tensor:
        observation = super().reset()
        self._owed = torch.zeros(len(observation), dtype=torch.float64, device=observation.device)
        self._age = torch.zeros_like(self._owed, dtype=torch.int64)
        return observation

    def step(self, actions: Tensor) -> Step:
        step = super().step(actions)
        ended = step.terminated | step.truncated  # also at rest, where nothing is earned or owed
        self._age += 1
        due = ended | (self._age % self._every == 0)
        owed = self._owed + step.reward
        self._owed = torch.where(due, 0.0, owed)
        self._age *= ~ended
        return step._replace(reward=torch.where(due, owed, 0.0))
