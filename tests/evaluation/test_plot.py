"""Learning curves."""

from __future__ import annotations

import numpy as np
import pytest

from epg.evaluation.plot import plot_curves
from epg.evaluation.scores import carry_forward

NAN = np.nan


def test_an_episode_counts_until_the_next_one_ends() -> None:
    returns = np.array([[NAN, 1.0, NAN, NAN, 2.0], [3.0, NAN, NAN, 4.0, NAN]])
    expected = [[NAN, 1.0, 1.0, 1.0, 2.0], [3.0, 3.0, 3.0, 4.0, 4.0]]
    np.testing.assert_array_equal(carry_forward(returns), expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("a", [np.array([[NAN, 1.0], [2.0, NAN]]), np.full((2, 2), NAN)])
def test_curves_with_gaps_are_a_picture(a: np.ndarray) -> None:
    curves = {"a": a, "b": np.full((2, 2), NAN)}
    assert plot_curves("title", curves, 64, {"a": "C0", "b": "C1"}).startswith(b"\x89PNG\r\n\x1a\n")
