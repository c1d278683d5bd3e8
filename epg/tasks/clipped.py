"""A task whose actions are clipped to [−1, 1] before anything is made of them.

A MuJoCo body clamps its torques, and pays for the actions that were asked for: without this a
policy with wide noise is charged for what it never did.

Shape letters: P environments, A action.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from epg.errors import UserError
from epg.tasks.base import Batch, Mdp, Task
from epg.tasks.wrapped import Wrapped, WrappedBatch


class Clipped(Wrapped):
    """A task of continuous actions beyond whose bounds there is nothing. Raises `UserError`."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        if self.discrete:
            raise UserError("clipped: found true for discrete actions, allowed: continuous ones")
        self.summary += "; actions clipped to [-1, 1]"

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        return ClippedBatch(self.task.batch(mdps, rngs, device, restart))

    def score(self, mdps: Sequence[Mdp], returns: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.task.score(mdps, returns)


class ClippedBatch(WrappedBatch):
    """P environments."""

    def see(self, observation: Tensor) -> Tensor:
        return observation

    def do(self, actions: Tensor) -> Tensor:
        return actions.clip(-1, 1)
