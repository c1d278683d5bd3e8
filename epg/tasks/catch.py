"""Catch: move a paddle under a falling ball. Mnih et al. 2014, in the size of Osband et al. 2020.

https://arxiv.org/abs/1406.6247, https://arxiv.org/abs/1908.03568
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from epg.tasks.base import Batch, Mdp, Task
from epg.tasks.native import NativeBatch, one_hot

ROWS, COLUMNS = 10, 5
LOWEST = ROWS - 1
MIDDLE = COLUMNS // 2


class Catch(Task):
    """Action 0, 1 or 2: move the paddle to the left, not at all, to the right."""

    name = "catch"
    summary = "move a paddle under a ball that falls from a drawn column; paid at the end"
    observation_size = ROWS * COLUMNS
    action_size = 3
    discrete = True
    horizon = 2 * ROWS  # never reached: the ball has fallen before

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        return CatchBatch(rngs, _start, self.horizon, device, restart)


def _start(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    column = rng.integers(0, COLUMNS, n).astype(np.float64)
    return np.stack([np.zeros(n), column, np.full(n, MIDDLE)], 1)


class CatchBatch(NativeBatch):
    """P boards; state: row and column of the ball, column of the paddle."""

    def move(self, state: Tensor, actions: Tensor) -> Tensor:
        row, column, paddle = state.unbind(1)
        paddle = (paddle + actions.to(torch.float64) - 1).clamp(0, COLUMNS - 1)
        return torch.stack([row + 1, column, paddle], 1)

    def reward(self, state: Tensor) -> Tensor:
        _, column, paddle = state.unbind(1)
        won = torch.where(column == paddle, 1.0, -1.0).to(torch.float64)
        return torch.where(self.ends(state), won, 0.0)

    def ends(self, state: Tensor) -> Tensor:
        return state[:, 0] >= LOWEST

    def observe(self, state: Tensor) -> Tensor:
        row, column, paddle = state.unbind(1)
        ball = one_hot(row * COLUMNS + column, ROWS * COLUMNS)
        return torch.maximum(ball, one_hot(LOWEST * COLUMNS + paddle, ROWS * COLUMNS))
