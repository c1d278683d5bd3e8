"""A task whose observations and actions mean something else in every MDP, untold.

A policy that is right in one MDP is wrong in the next, so that no skill can be carried from one
life to another: what agents come to, they have learned in their own life.

Shape letters: P environments, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from epg.tasks.base import Batch, Mdp, Task
from epg.tasks.wrapped import Wrapped, WrappedBatch


class Masked(Wrapped):
    """A task behind a mask that is drawn with each MDP.

    Observations come in a drawn order with drawn signs, continuous actions too; discrete actions
    come in a drawn order.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.summary += "; order and signs of observations and actions drawn, untold"

    def draw(self, rng: np.random.Generator) -> Mdp:
        """An MDP of the task, the same that it draws unmasked, and the mask."""
        mdp = self.task.draw(rng)
        return {
            "mdp": mdp,
            "observation_order": rng.permutation(self.observation_size).tolist(),
            "observation_signs": rng.choice([-1.0, 1.0], self.observation_size).tolist(),
            "action_order": rng.permutation(self.action_size).tolist(),
            "action_signs": rng.choice([-1.0, 1.0], self.action_size).tolist(),
        }

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        batch = self.task.batch([mdp["mdp"] for mdp in mdps], rngs, device, restart)
        return MaskedBatch(batch, mdps, self.discrete, device)

    def score(self, mdps: Sequence[Mdp], returns: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.task.score([mdp["mdp"] for mdp in mdps], returns)


class MaskedBatch(WrappedBatch):
    """P environments, each behind its own mask."""

    def __init__(self, batch: Batch, mdps: Sequence[Mdp], discrete: bool, device: str) -> None:
        super().__init__(batch)
        self._discrete = discrete

        def column(name: str) -> Tensor:
            return torch.tensor([mdp[name] for mdp in mdps], device=device)

        self._observation_order = column("observation_order")  # [P, O], as the signs
        self._observation_signs = column("observation_signs").to(torch.float64)
        self._action_order = column("action_order")  # [P, A], as the signs
        self._action_signs = column("action_signs").to(torch.float32)

    def see(self, observation: Tensor) -> Tensor:
        return observation.gather(1, self._observation_order) * self._observation_signs

    def do(self, actions: Tensor) -> Tensor:
        if self._discrete:
            return self._action_order.gather(1, actions.unsqueeze(1)).squeeze(1)
        return (actions * self._action_signs).gather(1, self._action_order)
