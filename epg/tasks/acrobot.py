"""Acrobot: swing the tip of a double pendulum, driven at its elbow alone, above a line.

Sutton 1996, with the equations of Sutton & Barto's book, as Gymnasium's Acrobot-v1 has them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from epg.tasks.base import Batch, Mdp, Task
from epg.tasks.draws import Draw
from epg.tasks.native import NativeBatch

GRAVITY = 9.8  # m/s²
TIME_STEP = 0.2  # s, Runge-Kutta of order 4
L, C, M, INERTIA = 1.0, 0.5, 1.0, 1.0  # of both links: m, center m, kg, kg m²
MAX_SPEED = (4 * math.pi, 9 * math.pi)  # rad/s, of shoulder and elbow
RESET_NOISE = 0.1


class Acrobot(Task):
    """Action 0, 1 or 2: a torque of -1, 0 or 1 N m at the elbow."""

    name = "acrobot"
    summary = "Gymnasium's Acrobot-v1"
    observation_size = 6
    action_size = 3
    discrete = True
    horizon = 500

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        return AcrobotBatch(rngs, _noise(), self.horizon, device, restart)


def _noise() -> Draw:
    """In float32, as Gymnasium draws it."""

    def draw(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        return rng.uniform(-RESET_NOISE, RESET_NOISE, (n, 4)).astype(np.float32).astype(np.float64)

    return draw


class AcrobotBatch(NativeBatch):
    """P acrobots; state: angles of shoulder and elbow (rad), their velocities; reward -1 a step."""

    def move(self, state: Tensor, actions: Tensor) -> Tensor:
        torque = actions.to(torch.float64) - 1.0
        k1 = _rate(state, torque)
        k2 = _rate(state + TIME_STEP / 2 * k1, torque)
        k3 = _rate(state + TIME_STEP / 2 * k2, torque)
        k4 = _rate(state + TIME_STEP * k3, torque)
        after = state + TIME_STEP / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        angles, speeds = after.split(2, dim=1)
        turns = ((angles.abs() - math.pi) / (2 * math.pi)).ceil().clamp(min=0) * angles.sign()
        fastest = speeds.new_tensor(MAX_SPEED)
        return torch.cat([angles - 2 * math.pi * turns, speeds.clamp(-fastest, fastest)], 1)

    def observe(self, state: Tensor) -> Tensor:
        angles, speeds = state.split(2, dim=1)
        pairs = torch.stack([_cos(angles), _sin(angles)], 2).flatten(1)
        return torch.cat([pairs, speeds], 1)

    def reward(self, state: Tensor) -> Tensor:
        return self.ends(state).to(torch.float64) - 1.0

    def ends(self, state: Tensor) -> Tensor:
        shoulder, elbow = state[:, 0], state[:, 1]
        return -_cos(shoulder) - _cos(elbow + shoulder) > 1.0


def _rate(state: Tensor, torque: Tensor) -> Tensor:
    """The time derivative of a state [P, 4] under a torque [P] at the elbow.

    In the order of operations that Gymnasium has: chaos magnifies the last bit.
    """
    theta1, theta2, dtheta1, dtheta2 = state.unbind(1)
    cos2, sin2 = _cos(theta2), _sin(theta2)
    d1 = M * C**2 + M * (L**2 + C**2 + 2 * L * C * cos2) + INERTIA + INERTIA
    d2 = M * (C**2 + L * C * cos2) + INERTIA
    phi2 = M * C * GRAVITY * _cos(theta1 + theta2 - math.pi / 2)
    phi1 = (
        -M * L * C * dtheta2.square() * sin2
        - 2 * M * L * C * dtheta2 * dtheta1 * sin2
        + (M * C + M * L) * GRAVITY * _cos(theta1 - math.pi / 2)
        + phi2
    )
    ddtheta2 = (torque + d2 / d1 * phi1 - M * L * C * dtheta1.square() * sin2 - phi2) / (
        M * C**2 + INERTIA - d2.square() / d1
    )
    ddtheta1 = -(d2 * ddtheta2 + phi1) / d1
    return torch.stack([dtheta1, dtheta2, ddtheta1, ddtheta2], 1)


def _cos(angle: Tensor) -> Tensor:
    """NumPy's on the CPU, for the last bit."""
    return torch.from_numpy(np.cos(angle.numpy())) if angle.is_cpu else angle.cos()


def _sin(angle: Tensor) -> Tensor:
    return torch.from_numpy(np.sin(angle.numpy())) if angle.is_cpu else angle.sin()
