"""Running mean and variance, P of each at once.

Starts of the released EPG: sum 0, sum of squares 0.01, count 0.01; variance at least 0.01.
"""

from __future__ import annotations

import torch
from torch import Tensor

START = 0.01
VARIANCE_FLOOR = 0.01


class RunningStatistics:
    """Statistics of vectors of `size`, apart for each of P lifetimes."""

    def __init__(self, lifetimes: int, size: int, device: str = "cpu") -> None:
        self._sum = torch.zeros(lifetimes, size, dtype=torch.float64, device=device)
        self._squares = torch.full_like(self._sum, START)
        self._count = START
        self._refresh()

    def add(self, vectors: Tensor) -> None:
        """Count in [P, R, size] vectors."""
        exact = vectors.to(torch.float64)
        self._sum += exact.sum(1)
        self._squares += (exact * exact).sum(1)
        self._count += vectors.shape[1]
        self._refresh()

    def normalise(self, vectors: Tensor) -> Tensor:
        """[P, R, size] float32 to mean 0 and variance 1 by what was counted so far."""
        return (vectors - self.mean) * self.scale

    def _refresh(self) -> None:
        mean = self._sum / self._count
        variance = (self._squares / self._count - mean * mean).clamp(min=VARIANCE_FLOOR)
        self.mean = mean.to(torch.float32).unsqueeze(1)
        self.scale = variance.rsqrt().to(torch.float32).unsqueeze(1)
