"""(Interquartile) means with bootstrap intervals: Agarwal et al. 2021, arXiv 2108.13264."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % bootstrap interval over n lifetimes."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"

    def plain(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis."""
    return np.asarray(values.mean(-1))


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half, over the last axis."""
    cut = values.shape[-1] // 4
    return np.asarray(np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut].mean(-1))


def bootstrap(values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray] = mean) -> Interval:
    """Percentile bootstrap of values [n]. The resampling is seeded: same values, same interval."""
    rng = np.random.default_rng(0)
    rows = rng.integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(statistic(values[rows]), (2.5, 97.5))
    return Interval(float(statistic(values)), float(low), float(high), len(values))
