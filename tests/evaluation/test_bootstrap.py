"""Aggregates, and their intervals against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from epg.evaluation import bootstrap
from epg.evaluation.bootstrap import (
    LIFETIMES,
    Interval,
    difference,
    improvement,
    probability,
    summarise,
)


@pytest.fixture
def many_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 4000)


def test_aggregates_of_one_task() -> None:
    scores = np.array([9.0, 1, 2, 3, 4, 5, 6, -700])[:, None]
    found = summarise(scores, LIFETIMES)
    assert (found.mean.value, found.median.value, found.iqm.value) == (-83.75, 3.5, 3.5)
    assert (found.n, found.over) == (8, "lifetimes")


def test_over_tasks_the_median_is_that_of_the_tasks_and_the_middle_half_is_of_all() -> None:
    scores = np.array([[0.0, 1, 9], [2, 1, 5], [4, 1, 7], [6, 1, 3]])
    found = summarise(scores, LIFETIMES)
    assert found.mean.value == pytest.approx((3 + 1 + 6) / 3) and found.median.value == 3.0
    assert found.iqm.value == pytest.approx(np.mean(sorted(scores.ravel())[3:9]))


def test_intervals_are_those_of_a_plain_loop_that_resamples_within_tasks(
    many_resamples: None,
) -> None:
    scores = np.random.default_rng(1).gamma(2.0, 10.0, size=(24, 2)) * np.array([1.0, 3.0])
    found = summarise(scores, LIFETIMES).mean
    rng = np.random.default_rng(2)
    means = [
        np.mean([rng.choice(column, size=24).mean() for column in scores.T]) for _ in range(20_000)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    assert found.low == pytest.approx(low, abs=0.05 * (high - low))
    assert found.high == pytest.approx(high, abs=0.05 * (high - low))
    assert found.value == pytest.approx(scores.mean())


def test_the_probability_of_improvement_counts_a_tie_half() -> None:
    ours, theirs = np.array([[1.0], [2.0], [3.0]]), np.array([[2.0], [0.0]])
    assert probability(ours, theirs) == pytest.approx((3 + 1 + 0.5) / 6)
    found = improvement(ours, theirs)
    assert found.value == pytest.approx(0.75) and 0 <= found.low <= 0.75 <= found.high <= 1
    same = improvement(ours, ours)
    assert same.value == 0.5


def test_a_difference_of_unequally_many(many_resamples: None) -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(5.0, 2.0, (400, 1)), rng.normal(4.0, 1.0, (100, 1))
    found = difference(ours, theirs)
    assert found.value == pytest.approx(ours.mean() - theirs.mean())
    half = 1.96 * np.sqrt(ours.var() / 400 + theirs.var() / 100)
    assert found.high - found.value == pytest.approx(half, rel=0.1)
    assert found.value - found.low == pytest.approx(half, rel=0.1)


def test_the_same_scores_have_the_same_interval_and_no_one_elses_chance_is_touched() -> None:
    scores = np.arange(10.0)[:, None]
    before = np.random.get_state()[1].copy()
    once = summarise(scores, LIFETIMES)
    assert np.array_equal(np.random.get_state()[1], before)
    assert once == summarise(scores, LIFETIMES)
    assert summarise(np.full((5, 1), 3.0), LIFETIMES).mean == Interval(3.0, 3.0, 3.0)
    assert summarise(np.full((1, 2), 3.0), LIFETIMES).iqm == Interval(3.0, 3.0, 3.0)
    assert str(Interval(1.23456, 1, 2)) == "1.235 [1, 2]"
    assert str(Interval(-7.9e-16, -0.0, 1e-12)) == "0 [0, 0]"
