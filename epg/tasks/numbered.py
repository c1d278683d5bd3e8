"""A task whose states are seen as numbers, not as one-hot rows.

Shape letters: P environments.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from epg.tasks.base import Batch, Mdp, Task
from epg.tasks.collecting import FixedBatch
from epg.tasks.wrapped import Wrapped, WrappedBatch


class Numbered(Wrapped):
    """A task with `states`, of which an observation is the number, [P, 1]."""

    def __init__(self, task: Task) -> None:
        assert task.states is not None
        super().__init__(task)
        self.observation_size = 1

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        batch = self.task.batch(mdps, rngs, device, restart)
        if isinstance(batch, FixedBatch):
            batch.numbered = True  # no row is ever made
            return batch
        return _NumberedBatch(batch)


class _NumberedBatch(WrappedBatch):
    def see(self, observation: Tensor) -> Tensor:
        return observation.argmax(1, keepdim=True).to(torch.float64)

    def do(self, actions: Tensor) -> Tensor:
        return actions
