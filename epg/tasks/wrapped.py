"""A task behind something that changes what agents see of it and do in it.

Shape letters: P environments, O observation, A action.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from epg.tasks.base import Batch, Mdp, Step, Task


class Wrapped(Task):
    """A task with another in it, `task`, whose name, sizes and draws it has."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.name, self.summary, self.varied = task.name, task.summary, task.varied
        self.observation_size, self.action_size = task.observation_size, task.action_size
        self.discrete, self.horizon = task.discrete, task.horizon

    def draw(self, rng: np.random.Generator) -> Mdp:
        return self.task.draw(rng)


class WrappedBatch(Batch):
    """P environments of the task within."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    @abstractmethod
    def see(self, observation: Tensor) -> Tensor:
        """What is seen, [P, O], of an observation of the task within."""

    @abstractmethod
    def do(self, actions: Tensor) -> Tensor:
        """What is done in the task within, for actions [P, A], or [P] if discrete."""

    @property
    def failures(self) -> NDArray[np.int64]:
        return self._batch.failures

    def reset(self) -> Tensor:
        return self.see(self._batch.reset())

    def step(self, actions: Tensor) -> Step:
        step = self._batch.step(self.do(actions))
        return step._replace(
            observation=self.see(step.observation),
            next_observation=self.see(step.next_observation),
        )
