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
    returns on a scale on which the best arm's is 1 and the worst one's 0, n how many lives had it.
    An arm that no life has ended with counts as if one had, and as the best.
    """

    def __init__(self, tasks: int, arms: int) -> None:
        self._newest = torch.zeros(tasks, arms, NEWEST, dtype=torch.float64)
        self._count = torch.zeros(tasks, arms, dtype=torch.int64)

    def tell(self, task: int, arms: np.ndarray, ended: np.ndarray, returns: np.ndarray) -> None:
        """With which arms lives ended, if they did, and what they came to, each [n]; NaN, if their
        learning failed, is the worst so far."""
        for arm, value in zip(arms[ended > 0].tolist(), returns[ended > 0].tolist(), strict=True):
            newest = self._newest[task]
            worst = float(newest[self._count[task] > 0].min()) if self._count[task].any() else 0.0
            told = newest.new_tensor([value if np.isfinite(value) else worst])
            self._newest[task, arm] = torch.cat((newest[arm, 1:], told))
            self._count[task, arm] += 1

    def chances(self) -> Tensor:
        """[G, A] float64, sums of 1 over arms."""
        means = self._newest.sum(2) / self._count.clamp(1, NEWEST)
        new = self._count == 0
        low = means.masked_fill(new, torch.inf).amin(1, keepdim=True)
        high = means.masked_fill(new, -torch.inf).amax(1, keepdim=True)
        scores = torch.where(new, 1.0, (means - low) / (high - low).clamp(min=1e-12))
        scores = scores + BONUS / self._count.clamp(min=1).sqrt()
        return torch.softmax(scores / TEMPERATURE, 1)

    def state(self) -> dict[str, Tensor]:
        """All that a checkpoint keeps."""
        return {"newest": self._newest.clone(), "count": self._count.clone()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from there."""
        self._newest, self._count = state["newest"].clone(), state["count"].clone()
