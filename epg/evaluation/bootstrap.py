"""Aggregates with bootstrap intervals, by rliable (Agarwal et al. 2021, arXiv 2108.13264).

Shape letters: n what is resampled (lifetimes or evolution seeds), T tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from rliable import library, metrics

RESAMPLES = 2000

LIFETIMES, SEEDS = "lifetimes", "evolution seeds"
"""What an interval may be over: the first speaks of one loss, the second of the method."""


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
    median = np.median if scores.shape[1] == 1 else metrics.aggregate_median

    def aggregates(resampled: np.ndarray) -> np.ndarray:
        return np.array(
            [metrics.aggregate_mean(resampled), median(resampled), metrics.aggregate_iqm(resampled)]
        )

    mean, middle, iqm = _estimate(scores, aggregates)
    return Summary(mean, middle, iqm, len(scores), over)


def improvement(ours: np.ndarray, theirs: np.ndarray) -> Interval:
    """P(a score of ours is above one of theirs), a tie half, mean over tasks: [n, T], [m, T]."""
    return _estimate([ours, theirs], lambda *s: np.array([metrics.probability_of_improvement(*s)]))[
        0
    ]


def probability(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The same without an interval."""
    return float(metrics.probability_of_improvement(ours, theirs))


def difference(ours: np.ndarray, theirs: np.ndarray) -> Interval:
    """Mean score of ours less that of theirs: [n, T], [m, T]."""
    return _estimate(
        [ours, theirs],
        lambda x, y: np.array([metrics.aggregate_mean(x) - metrics.aggregate_mean(y)]),
    )[0]


def _estimate(scores: np.ndarray | list[np.ndarray], statistic: Any) -> list[Interval]:
    """The statistics of a function that gives several, seeded: same scores, same intervals."""
    with _seeded():
        values, bounds = library.get_interval_estimates({"": scores}, statistic, reps=RESAMPLES)
    return [
        Interval(float(value), float(low), float(high))
        for value, low, high in zip(values[""], *bounds[""], strict=True)
    ]


@contextmanager
def _seeded() -> Iterator[None]:
    """rliable 1.2 draws from NumPy's global generator, whatever `random_state` it is given."""
    before = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(before)
