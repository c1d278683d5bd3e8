"""A bandit over ways in which agents learn, for each task by itself.

Shape letters: G tasks, A arms, N newest lives.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

NEWEST = 10
BONUS, TEMPERATURE = 0.2, 0.1


class Arms:
    """How well lives with each arm went, and how often each is drawn.

    The probability of an arm is proportional to exp((m + 0.2 / √n) / 0.1), m the mean of its newest
    returns on a scale on which the best arm's is 1 and the worst one's 0, n how many lives had it;
    arms that no life has had come first.
    """

    def __init__(self, tasks: int, arms: int) -> None:
        self._newest = torch.zeros(tasks, arms, NEWEST, dtype=torch.float64)
        self._count = torch.zeros(tasks, arms, dtype=torch.int64)

    def tell(self, task: int, arms: np.ndarray, returns: np.ndarray) -> None:
        """What lives came to, [n]; NaN for those that have not ended."""
        for arm, value in zip(arms.tolist(), returns.tolist(), strict=True):
            if np.isfinite(value):
                newest = self._newest[task, arm]
                self._newest[task, arm] = torch.cat((newest[1:], newest.new_tensor([value])))
                self._count[task, arm] += 1

    def chances(self) -> Tensor:
        """[G, A] float64, sums of 1 over arms."""
        means = self._newest.sum(2) / self._count.clamp(1, NEWEST)
        low, high = means.amin(1, keepdim=True), means.amax(1, keepdim=True)
        scores = (means - low) / (high - low).clamp(min=1e-12)
        scores = scores + BONUS / self._count.clamp(min=1).sqrt()
        known = torch.softmax(scores / TEMPERATURE, 1)
        new = self._count == 0
        unknown = new / new.sum(1, keepdim=True).clamp(min=1)
        return torch.where(new.any(1, keepdim=True), unknown, known)

    def state(self) -> dict[str, Tensor]:
        """All that a checkpoint keeps."""
        return {"newest": self._newest.clone(), "count": self._count.clone()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from there."""
        self._newest, self._count = state["newest"].clone(), state["count"].clone()
