"""Fitness shaping: ties, failures, degenerate populations."""

from __future__ import annotations

import numpy as np
import pytest

from epg.evolution.shaping import (
    Shaping,
    centered_rank,
    make_shaping,
    pair_difference,
    pair_rank,
)
from epg.registry import SHAPINGS
from epg.settings import choose

EVERY = pytest.mark.parametrize(
    "shaping", [make_shaping(choose("shaping", name)) for name in SHAPINGS], ids=SHAPINGS
)
BROKEN = pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])


def test_centered_rank_by_hand() -> None:
    fitness = np.array([[3.0, 1.0], [2.0, 7.0], [-5.0, 4.0]])
    wanted = np.array([[3, 1], [2, 5], [0, 4]]) / 5 - 0.5
    np.testing.assert_allclose(centered_rank(fitness), wanted)


def test_centered_ranks_lie_between_minus_a_half_and_a_half() -> None:
    weights = centered_rank(np.random.default_rng(0).normal(size=(50, 2)))
    assert weights.min() == -0.5 and weights.max() == 0.5
    assert abs(weights.sum()) < 1e-9
    assert len(np.unique(weights)) == 100


def test_pair_rank_by_hand() -> None:
    """Differences 1, −4, 0 and 2 have the ranks 2, 4, 1 and 3 of 4."""
    fitness = np.array([[1.0, 0.0], [96.0, 100.0], [7.0, 7.0], [0.0, -2.0]])
    half = np.array([2.0, -4.0, 0.0, 3.0]) / 4 / 2
    np.testing.assert_allclose(pair_rank(fitness), np.stack((half, -half), 1))


def test_pairs_are_not_compared_by_their_level() -> None:
    fitness = np.random.default_rng(0).normal(size=(8, 2))
    level = np.arange(8.0)[:, None] * 64
    np.testing.assert_array_equal(pair_rank(fitness), pair_rank(np.round(fitness + level, 9)))


def test_ties_share_a_rank() -> None:
    """Defect 5."""
    weights = centered_rank(np.array([[1.0, 2.0], [2.0, 3.0]]))
    np.testing.assert_allclose(weights, [[-0.5, 0.0], [0.0, 0.5]])
    weights = pair_rank(np.array([[1.0, 0.0], [5.0, 6.0], [9.0, 7.0]]))
    np.testing.assert_allclose(weights[:, 0], np.array([1.5, -1.5, 3.0]) / 3 / 2)


@EVERY
@pytest.mark.parametrize("value", [0.0, 200.0, 0.1, np.nan])
@pytest.mark.parametrize("pairs", [1, 2, 7])
def test_where_all_tie_nothing_weighs(shaping: Shaping, value: float, pairs: int) -> None:
    """Defect 5: and a population of one does not divide by 0."""
    np.testing.assert_array_equal(shaping.weigh(np.full((pairs, 2), value)), np.zeros((pairs, 2)))


@BROKEN
def test_what_broke_is_worst_of_all(broken: float) -> None:
    """Defect 5."""
    weights = centered_rank(np.array([[broken, -1e9], [3.0, broken]]))
    np.testing.assert_allclose(weights, np.array([[0.5, 2.0], [3.0, 0.5]]) / 3 - 0.5)


@BROKEN
def test_the_sign_that_broke_loses_its_pair(broken: float) -> None:
    """Defect 5."""
    weights = pair_rank(np.array([[broken, -1e9], [3.0, broken], [0.0, 1e6]]))
    np.testing.assert_allclose(weights[:, 0], np.array([-2.5, 2.5, -1.0]) / 3 / 2)
    np.testing.assert_allclose(weights[:, 1], -weights[:, 0])


@BROKEN
def test_a_pair_of_which_both_broke_says_nothing(broken: float) -> None:
    fitness = np.array([[broken, np.nan], [0.0, 1.0]])
    assert pair_difference(fitness)[0] == 0
    np.testing.assert_array_equal(pair_rank(fitness)[0], [0, 0])
    ranks = centered_rank(fitness)[0]
    assert ranks[0] == ranks[1]


@EVERY
def test_one_pair_is_a_population(shaping: Shaping) -> None:
    """Defect 5."""
    np.testing.assert_array_equal(shaping.weigh(np.array([[2.0, 1.0]])), [[0.5, -0.5]])


def test_the_names_are_those_of_the_functions() -> None:
    fitness = np.random.default_rng(0).normal(size=(7, 2))
    for name, function in (("pair", pair_rank), ("centered_rank", centered_rank)):
        weighed = make_shaping(choose("shaping", name)).weigh(fitness)
        np.testing.assert_array_equal(weighed, function(fitness))
    assert not np.array_equal(pair_rank(fitness), centered_rank(fitness))
