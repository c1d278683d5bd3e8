"""Learning curves, and the course of an evolution."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from epg.evaluation import plot
from epg.evaluation.plot import Curve, colors_of, plot_curves, plot_fitness, plot_panels
from epg.lifetime import carry_forward
from epg.registry import find

NAN = np.nan


def test_an_episode_counts_until_the_next_one_ends() -> None:
    returns = np.array([[NAN, 1.0, NAN, NAN, 2.0], [3.0, NAN, NAN, 4.0, NAN]])
    expected = [[NAN, 1.0, 1.0, 1.0, 2.0], [3.0, 3.0, 3.0, 4.0, 4.0]]
    np.testing.assert_array_equal(carry_forward(returns), expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("a", [np.array([[NAN, 1.0], [2.0, NAN]]), np.full((2, 2), NAN)])
def test_curves_with_gaps_are_a_picture(a: np.ndarray) -> None:
    nothing = np.full((2, 2), NAN)
    curves = [Curve("a", "C0", (a,)), Curve("b", "C1", (nothing,)), Curve("c", "C2", (a, nothing))]
    assert plot_curves("title", curves, 64).startswith(b"\x89PNG\r\n\x1a\n")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """All that is drawn, before it is a PNG."""
    found: list[Figure] = []

    def keep(figure: Figure) -> bytes:
        found.append(figure)
        return b""

    monkeypatch.setattr(plot, "png", keep)
    return found


def drawn(figures: list[Figure], *curves: Curve) -> Any:
    """The axes of a picture of learning curves."""
    plot_curves("title", curves, 64)
    return figures[-1].axes[0]


def points(line: Any) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in line.get_xydata() if np.isfinite(y)]


def test_a_curve_is_drawn_where_episodes_ended(figures: list[Figure]) -> None:
    """No flat line from there to the next, and none after the last."""
    returns = np.full((4, 10), NAN)
    returns[:, 2], returns[:, 6] = 1.0, 3.0
    [line] = drawn(figures, Curve("a", "C0", (returns,))).lines
    assert points(line) == [(pytest.approx(0.3 * 64), 1.0), (pytest.approx(0.7 * 64), 3.0)]
    assert (line.get_linestyle(), line.get_marker()) == ("--", "o")
    always = np.arange(40.0).reshape(4, 10)
    [line] = drawn(figures, Curve("a", "C0", (always,))).lines
    assert len(points(line)) == 10
    assert (line.get_linestyle(), line.get_marker()) == ("-", "None")


def test_seeds_have_a_mean_curve_with_an_interval_beside_their_own(
    figures: list[Figure],
) -> None:
    seeds = tuple(np.full((4, 5), level) for level in (1.0, 2.0, 6.0))
    axes = drawn(figures, Curve("3 seeds", "C0", seeds))
    levels = [{y for _, y in points(line)} for line in axes.lines]
    assert levels == [{1.0}, {2.0}, {6.0}, {3.0}]
    assert {line.get_color() for line in axes.lines} == {"C0"}
    [band] = axes.collections
    corners = band.get_paths()[0].vertices[:, 1]
    assert (corners.min(), corners.max()) == (1.0, 6.0)
    [label] = [text.get_text() for text in axes.get_legend().get_texts()]
    assert label == "3 seeds (mean, minimum to maximum)"


def test_a_method_has_the_same_colour_beside_any_number_of_losses() -> None:
    one, many = colors_of(["learned loss"]), colors_of(["a", "b", "c"])
    methods = ["ppo", "random", "reinforce", "dpo", "untrained", "sb3-ppo", "sb3-td3", "sb3-sac"]
    assert [one(name) for name in methods] == [many(name) for name in methods]
    assert len({*map(many, [*methods, "a", "b", "c", "own:Method"])}) == len(methods) + 4
    assert one("learned loss") == many("a") and many("untrained b") == one("untrained")


def test_the_course_of_a_run_has_ppos_level_in_a_legend_beside_it(
    figures: list[Figure],
) -> None:
    metrics = {
        "generation": np.arange(3.0), "environment_steps": 100 * np.arange(1.0, 4),
        "fitness_mean": np.ones(3), "validation": np.array([1.0, NAN, 2.0]),
    }  # fmt: skip
    plot_fitness([(metrics, 3.0)], 2.5)
    plot_fitness([(metrics, 3.0), (metrics, 5.0)], None)
    one, two = figures
    assert [axes.get_legend() for figure in figures for axes in figure.axes] == [None] * 4
    labels = [[text.get_text() for text in f.legends[0].get_texts()] for f in figures]
    assert "ppo, in the evaluation: 2.5" in labels[0] and labels[1][1].startswith("2 seeds")
    assert points(one.axes[0].lines[1]) == [(0, 1.0), (2, 2.0), (3, 3.0)]
    assert points(two.axes[1].lines[-1]) == [(100, 1.0), (300, 2.0), (300, 4.0)]
    for figure in figures:  # it stands below both
        figure.savefig(io.BytesIO(), format="png")
        legend = figure.legends[0].get_window_extent()
        assert all(legend.y1 <= axes.get_window_extent().y0 for axes in figure.axes)


def test_panels_say_their_unit_and_what_is_healthy(figures: list[Figure]) -> None:
    metrics = {"generation": np.arange(3.0), "a": np.ones(3), "b": np.zeros(3)}
    plot_panels([metrics, metrics], {"both\nhealthy: 1": ("a", "b"), "one": ("a",)})
    both, one, empty = figures[0].axes
    assert (both.get_title(), both.texts[0].get_text()) == ("both", "healthy: 1")
    assert (one.get_title(), one.texts[0].get_text()) == ("one", "")
    assert both.get_xlabel() == one.get_xlabel() == "generation" and not empty.get_visible()
    assert [len(axes.lines) for axes in (both, one)] == [4, 2]
    legend = both.get_legend()
    assert legend is not None and len(legend.get_texts()) == 2


def test_every_panel_of_an_evolution_says_what_is_healthy() -> None:
    panels = find("method", "epg").panels
    assert panels and all(title.count("\n") == 1 for title in panels)
