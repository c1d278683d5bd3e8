"""Aggregates with bootstrap intervals (Agarwal et al. 2021, arXiv 2108.13264), by SciPy.

Shape letters: n what is resampled (lifetimes or evolution seeds), T tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 2000

LIFETIMES, SEEDS = "lifetimes", "evolution seeds"
"""What an interval may be over: the first speaks of one loss, the second of the method."""

Statistic = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Of samples [..., n], one a task: [...]."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        value, low, high = (f"{round(x, 9) + 0.0:.4g}" for x in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


@dataclass(frozen=True)
class Summary:
    """Aggregates of n scores on each of T tasks."""

    mean: Interval
    median: Interval
    """over all n of one task; over the tasks' means, where there are several"""
    iqm: Interval
    """mean of the middle half of all n·T"""
    n: int
    over: str


def summarise(scores: np.ndarray, over: str) -> Summary:
    """Of scores [n, T]; n are resampled within each task."""
    mean, median, iqm = (_interval([*scores.T], s) for s in (_mean, _median, _iqm))
    return Summary(mean, median, iqm, len(scores), over)


def improvement(ours: np.ndarray, theirs: np.ndarray) -> Interval:
    """P(a score of ours is above one of theirs), a tie half, mean over tasks: [n, T], [m, T]."""
    return _interval([*ours.T, *theirs.T], _improvement)


def probability(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The same without an interval."""
    return float(_improvement([*ours.T, *theirs.T]))


def difference(ours: np.ndarray, theirs: np.ndarray) -> Interval:
    """Mean score of ours less that of theirs: [n, T], [m, T]."""
    return _interval([*ours.T, *theirs.T], _difference)


def _interval(samples: Sequence[np.ndarray], statistic: Statistic) -> Interval:
    """Each sample resampled by itself, seeded: the same scores have the same interval."""
    found = stats.bootstrap(
        # SciPy refuses a single score, of which twice the same is the same.
        [np.repeat(sample, 2) if len(sample) == 1 else sample for sample in samples],
        lambda *resampled, axis: statistic(resampled),
        n_resamples=RESAMPLES,
        method="percentile",
        vectorized=True,
        rng=0,
    ).confidence_interval
    return Interval(float(statistic(samples)), float(found.low), float(found.high))


def _mean(samples: Sequence[np.ndarray]) -> np.ndarray:
    return np.asarray(np.mean([sample.mean(-1) for sample in samples], axis=0))


def _median(samples: Sequence[np.ndarray]) -> np.ndarray:
    if len(samples) == 1:
        return np.asarray(np.median(samples[0], axis=-1))
    return np.asarray(np.median([sample.mean(-1) for sample in samples], axis=0))


def _iqm(samples: Sequence[np.ndarray]) -> np.ndarray:
    return np.asarray(stats.trim_mean(np.concatenate(samples, axis=-1), 0.25, axis=-1))


def _difference(samples: Sequence[np.ndarray]) -> np.ndarray:
    ours, theirs = _halves(samples)
    return np.asarray(_mean(ours) - _mean(theirs))


def _improvement(samples: Sequence[np.ndarray]) -> np.ndarray:
    """By ranks (Mann and Whitney): of x among x and y, what is above that among x alone."""
    found = []
    for x, y in zip(*_halves(samples), strict=True):
        n, m = x.shape[-1], y.shape[-1]
        ranks = stats.rankdata(np.concatenate([x, y], axis=-1), axis=-1)[..., :n]
        found.append((ranks.sum(-1) - n * (n + 1) / 2) / (n * m))
    return np.asarray(np.mean(found, axis=0))


def _halves(samples: Sequence[np.ndarray]) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray]]:
    """Ours, theirs."""
    tasks = len(samples) // 2
    return samples[:tasks], samples[tasks:]
