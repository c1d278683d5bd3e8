"""Random walk: five states in a row, of which the ends pay; what they pay drifts.

After Sutton 1988 (https://doi.org/10.1007/BF00115009), with actions; the ends are two of the five.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from epg.tasks.base import Batch, Mdp, Task, Varied
from epg.tasks.native import LifelongBatch, one_hot

STATES = 5
LAST = STATES - 1
MIDDLE = STATES // 2


class DriftingWalk(Task):
    """Action 0 or 1: to the left, to the right. The right end pays r, the left one -r.

    r is cos(2π t / period), t the steps lived before the one that comes to the end.
    """

    name = "drifting-walk"
    summary = "walk to that end of a row of five states that pays; it changes, untold"
    observation_size = STATES
    action_size = 2
    discrete = True
    horizon = 100
    varied = (
        Varied("slip", 0.1, 0.1, "", "probability of going the other way", allowed=(0, 1)),
        Varied("period", 4000, 4000, "steps", "of a life, until what the ends pay recurs; not "
               "observed", allowed=(1, 1e9)),
    )  # fmt: skip

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        return DriftingWalkBatch(mdps, self.horizon, rngs, device, restart)


def _start(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return np.full((n, 1), float(MIDDLE))


def _slips(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return rng.random((n, 1))


class DriftingWalkBatch(LifelongBatch):
    """P walks; state: where in the row."""

    def __init__(
        self,
        mdps: Sequence[Mdp],
        horizon: int,
        rngs: Sequence[np.random.Generator],
        device: str,
        restart: bool,
    ) -> None:
        super().__init__(rngs, _start, _slips, horizon, device, restart)

        def column(name: str) -> Tensor:
            return torch.tensor([m[name] for m in mdps], dtype=torch.float64, device=device)

        self._slip = column("slip")  # [P], as the next
        self._period = column("period")

    def move(self, state: Tensor, actions: Tensor) -> Tensor:
        way = 2 * actions.to(torch.float64) - 1
        way = torch.where(self.chance[:, 0] < self._slip, -way, way)
        return state + way[:, None]

    def reward(self, state: Tensor) -> Tensor:
        paid = (2 * math.pi * self.clock.to(torch.float64) / self._period).cos()
        left, right = state[:, 0] <= 0, state[:, 0] >= LAST
        return torch.where(right, paid, 0.0) - torch.where(left, paid, 0.0)

    def ends(self, state: Tensor) -> Tensor:
        return (state[:, 0] <= 0) | (state[:, 0] >= LAST)

    def observe(self, state: Tensor) -> Tensor:
        return one_hot(state[:, 0], STATES)
