"""Cart-pole: balance a pole on a cart.

Barto, Sutton & Anderson 1983, with the equations of Florian 2007 without friction, as Gymnasium's
CartPole-v1 has them: https://coneural.org/florian/papers/05_cart_pole.pdf
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

GRAVITY = 9.8  # m/s²
TIME_STEP = 0.02  # s, Euler
MAX_POSITION = 2.4  # m
MAX_ANGLE = 12 * 2 * math.pi / 360  # rad
RESET_NOISE = 0.05


class _CartPoleTask(Task):
    """What both tasks share. State: position (m), velocity, angle (rad), angular velocity."""

    observation_size = 4

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        return CartPoleBatch(self, mdps, rngs, device, restart)


class RandomCartPole(_CartPoleTask):
    """The action in [-1, 1], clipped, scales the drawn force."""

    name = "random-cart-pole"
    summary = "balance a pole of drawn masses, length and force; continuous force"
    action_size = 1
    discrete = False
    horizon = 200
    varied = (
        Varied("cart_mass", 0.5, 2.0, "kg", allowed=(0.01, 100.0)),
        Varied("pole_mass", 0.05, 0.5, "kg", allowed=(0.001, 100.0)),
        Varied("half_length", 0.25, 1.0, "m", allowed=(0.05, 10.0)),
        Varied("force", 5.0, 15.0, "N", allowed=(0.0, 1000.0)),
    )


class CartPole(_CartPoleTask):
    """Gymnasium's CartPole-v1: action 0 pushes to the left, 1 to the right."""

    name = "cart-pole"
    summary = "Gymnasium's CartPole-v1; nothing varied"
    action_size = 2
    discrete = True
    horizon = 500

    def draw(self, rng: np.random.Generator) -> Mdp:
        return {"cart_mass": 1.0, "pole_mass": 0.1, "half_length": 0.5, "force": 10.0}


class CartPoleBatch(NativeBatch):
    """P cart-poles; reward 1 a step."""

    def __init__(
        self,
        task: Task,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str,
        restart: bool,
    ) -> None:
        noise = uniform_noise(task.observation_size, RESET_NOISE)
        super().__init__(rngs, noise, task.horizon, device, restart)

        def column(name: str) -> Tensor:
            return torch.tensor([m[name] for m in mdps], dtype=torch.float64, device=device)

        self._discrete = task.discrete
        self._force = column("force")  # [P], as all below
        self._pole_mass = column("pole_mass")
        self._mass = self._pole_mass + column("cart_mass")
        self._length = column("half_length")
        self._pole_moment = self._pole_mass * self._length

    def move(self, state: Tensor, actions: Tensor) -> Tensor:
        if self._discrete:
            force = torch.where(actions == 1, self._force, -self._force)
        else:
            force = actions[:, 0].to(torch.float64).clamp(-1, 1) * self._force
        _, x_dot, theta, theta_dot = state.unbind(1)
        sin, cos = theta.sin(), theta.cos()
        push = (force + self._pole_moment * theta_dot.square() * sin) / self._mass
        theta_acc = (GRAVITY * sin - cos * push) / (
            self._length * (4.0 / 3.0 - self._pole_mass * cos.square() / self._mass)
        )
        x_acc = push - self._pole_moment * theta_acc * cos / self._mass
        rate = torch.stack([x_dot, x_acc, theta_dot, theta_acc], 1)
        return state + TIME_STEP * rate

    def reward(self, state: Tensor) -> Tensor:
        return torch.ones_like(state[:, 0])

    def ends(self, state: Tensor) -> Tensor:
        return (state[:, 0].abs() > MAX_POSITION) | (state[:, 2].abs() > MAX_ANGLE)
