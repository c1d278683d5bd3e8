"""Mountain car: gather speed between two hills to climb one. Moore 1990, as MountainCar-v0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from epg.tasks.base import Batch, Mdp, Task
from epg.tasks.native import NativeBatch

FORCE = 0.001
GRAVITY = 0.0025
MAX_SPEED = 0.07
WALL, GOAL, FARTHEST = -1.2, 0.5, 0.6  # positions


class MountainCar(Task):
    """Action 0, 1 or 2: push to the left, not at all, to the right."""

    name = "mountain-car"
    summary = "Gymnasium's MountainCar-v0"
    observation_size = 2
    action_size = 3
    discrete = True
    horizon = 200

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        return MountainCarBatch(rngs, _start, self.horizon, device, restart)


def _start(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return np.stack([rng.uniform(-0.6, -0.4, n), np.zeros(n)], 1)


class MountainCarBatch(NativeBatch):
    """P cars; state: position and velocity; reward -1 a step."""

    def move(self, state: Tensor, actions: Tensor) -> Tensor:
        position, velocity = state.unbind(1)
        push = (actions.to(torch.float64) - 1.0) * FORCE
        velocity = velocity + (push - (3 * position).cos() * GRAVITY)
        velocity = velocity.clamp(-MAX_SPEED, MAX_SPEED)
        position = (position + velocity).clamp(WALL, FARTHEST)
        stopped = (position == WALL) & (velocity < 0)
        return torch.stack([position, torch.where(stopped, 0.0, velocity)], 1)

    def reward(self, state: Tensor) -> Tensor:
        return torch.full_like(state[:, 0], -1.0)

    def ends(self, state: Tensor) -> Tensor:
        return (state[:, 0] >= GOAL) & (state[:, 1] >= 0)
