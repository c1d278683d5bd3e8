"""Point-goal: a point in the plane that must find a goal it does not see.

The goal lies on the circle of radius 1 around the start, at a drawn angle. The goal is at least 10
and at most 14 steps away; the horizon of 32 leaves time to spare. Standing still returns -3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from epg.tasks.base import Batch, Mdp, Task, Varied
from epg.tasks.draws import uniform_noise
from epg.tasks.native import NativeBatch

SPEED = 0.1  # length per step, along each axis
REWARD_SCALE = 0.1
RESET_NOISE = 0.05


class PointGoal(Task):
    """Observation: position. Action: velocity in [-1, 1] along each axis, clipped."""

    name = "point-goal"
    summary = "move a point to a hidden goal on a circle"
    observation_size = 2
    action_size = 2
    discrete = False
    horizon = 32
    varied = (Varied("angle", 0.0, 2 * math.pi, "rad", "where the goal is; not observed"),)

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        return PointGoalBatch(mdps, self.horizon, rngs, device, restart)


class PointGoalBatch(NativeBatch):
    """P points; reward -0.1 × distance to the goal after the step."""

    def __init__(
        self,
        mdps: Sequence[Mdp],
        horizon: int,
        rngs: Sequence[np.random.Generator],
        device: str,
        restart: bool,
    ) -> None:
        super().__init__(rngs, uniform_noise(2, RESET_NOISE), horizon, device, restart)
        goals = [(math.cos(m["angle"]), math.sin(m["angle"])) for m in mdps]
        self._goal = torch.tensor(goals, dtype=torch.float64, device=device)  # [P, 2]

    def move(self, state: Tensor, actions: Tensor) -> Tensor:
        return state + SPEED * actions.to(torch.float64).clamp(-1, 1)

    def reward(self, state: Tensor) -> Tensor:
        x, y = (state - self._goal).unbind(1)
        return -REWARD_SCALE * (x.square() + y.square()).sqrt()

    def ends(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state[:, 0], dtype=torch.bool)
