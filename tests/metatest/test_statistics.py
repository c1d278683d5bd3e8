"""Means, interquartile means and bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pytest

from epg.metatest.statistics import Interval, bootstrap, interquartile_mean, mean


def test_the_interquartile_mean_drops_a_quarter_at_each_end() -> None:
    assert interquartile_mean(np.array([9.0, 1, 2, 3, 4, 5, 6, -700])) == 3.5
    assert interquartile_mean(np.array([4.0, 1, 100])) == 35.0
    both = interquartile_mean(np.array([[0.0, 1, 2, 9], [7.0, 7, 7, 7]]))
    assert both.tolist() == [1.5, 7.0]


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_the_interval_is_that_of_a_plain_loop(statistic: object) -> None:
    values = np.random.default_rng(1).gamma(2.0, 10.0, size=24)
    found = bootstrap(values, statistic)
    rng = np.random.default_rng(2)
    resampled = [float(statistic(rng.choice(values, size=24))) for _ in range(20_000)]
    low, high = np.percentile(resampled, [2.5, 97.5])
    width = high - low
    assert found.low == pytest.approx(low, abs=0.05 * width)
    assert found.high == pytest.approx(high, abs=0.05 * width)
    assert found.value == statistic(values) and found.n == 24


def test_the_interval_of_many_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, size=2000)
    found = bootstrap(values)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert found.high - found.value == pytest.approx(half, rel=0.05)
    assert found.value - found.low == pytest.approx(half, rel=0.05)


def test_the_same_values_have_the_same_interval() -> None:
    values = np.arange(10.0)
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(np.full(5, 3.0)) == Interval(3.0, 3.0, 3.0, 5)
    assert str(Interval(1.23456, 1, 2, 3)) == "1.235 [1, 2]"
