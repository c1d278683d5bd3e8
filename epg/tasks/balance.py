"""Balance: hold something that falls, pushed to the one side or the other.

p'' = rate²·p ± push·rate², so that beyond `push` from the middle nothing brings it back. What is
seen is turned by a drawn rotation, with two numbers of no use in it.

Shape letters: P environments.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from epg.tasks.base import Batch, Mdp, Task, Varied
from epg.tasks.draws import uniform_noise
from epg.tasks.native import NativeBatch

TIME_STEP = 0.05  # s, Euler
MOST = 1.0
"""how far from the middle is fallen"""
RESET_NOISE = 0.05
FORGETTING = 1.0
"""1/s, at which the two numbers of no use forget the pushes"""


class RandomBalance(Task):
    """State: position, velocity / rate, and two sums of late pushes; observed: turned."""

    name = "random-balance"
    summary = "hold what falls, seen from a drawn side; pays 1 a step"
    observation_size = 4
    action_size = 2
    discrete = True
    horizon = 200
    varied = (
        Varied("rate", 1.0, 3.0, "1/s", "at which it falls", allowed=(0.01, 20.0)),
        Varied("push", 0.7, 1.5, "", "of an action", allowed=(0.01, 100.0)),
    )

    def draw(self, rng: np.random.Generator) -> Mdp:
        """rate, push, its sign, and a rotation or reflection, uniform over all of them."""
        mdp = super().draw(rng)
        columns, triangle = np.linalg.qr(rng.standard_normal((4, 4)))
        turn = columns * np.sign(np.diag(triangle))
        return {**mdp, "sign": float(rng.choice([-1.0, 1.0])), "turn": turn.tolist()}

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        return RandomBalanceBatch(mdps, self.horizon, rngs, device, restart)


class RandomBalanceBatch(NativeBatch):
    """P of them; reward 1 a step."""

    def __init__(
        self,
        mdps: Sequence[Mdp],
        horizon: int,
        rngs: Sequence[np.random.Generator],
        device: str,
        restart: bool,
    ) -> None:
        super().__init__(rngs, uniform_noise(4, RESET_NOISE), horizon, device, restart)

        def of(name: str) -> Tensor:
            return torch.tensor([m[name] for m in mdps], dtype=torch.float64, device=device)

        self._rate = of("rate")  # [P]
        self._push = of("push") * of("sign")  # [P]
        self._turn = of("turn")  # [P, 4, 4]

    def move(self, state: Tensor, actions: Tensor) -> Tensor:
        pushed = torch.where(actions == 1, self._push, -self._push)
        position, velocity, first, second = state.unbind(1)
        rates = [
            self._rate * velocity,
            self._rate * (position + pushed),
            FORGETTING * (pushed - first),
            FORGETTING * (first - second),
        ]
        return state + TIME_STEP * torch.stack(rates, 1)

    def observe(self, state: Tensor) -> Tensor:
        return torch.einsum("pij,pj->pi", self._turn, state)

    def reward(self, state: Tensor) -> Tensor:
        return torch.ones_like(state[:, 0])

    def ends(self, state: Tensor) -> Tensor:
        return state[:, 0].abs() > MOST
