"""Pictures: learning curves, and the course of an evolution."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from epg.evaluation.bootstrap import RESAMPLES
from epg.evaluation.scores import FEW_SEEDS, REFERENCE
from epg.lifetime import carry_forward

METHODS = {
    "blind": "0.4", "ppo": "C1", "reinforce": "C2", "dpo": "C3", "untrained": "C4", "sb3-ppo": "C5",
    "sb3-td3": "C6", "random": "C7", "sb3-sac": "C8", "fixed-policy": "goldenrod",
    "pretrained": "orchid", "td3": "saddlebrown", "ddpg": "darkolivegreen", "a2c": "0.2",
    "xu": "tomato", "vtrace": "slategray", "stac": "mediumseagreen", "stacx": "darkgreen",
    "frodo": "royalblue", "bmg": "darkviolet", "meta-entropy": "plum", "lirpg": "peru",
    "xu-discount": "firebrick", "xu-lambda": "salmon", "xu-outer-value": "maroon",
    "stac-return": "lightseagreen",
}  # fmt: skip
"""Colours that methods have in every picture; those of a user's own have the last one."""
BETWEEN: dict[str, Any] = {"marker": "o", "markersize": 4, "linestyle": "--"}
"""Of curves that are known at few of the updates."""
LEARNED = ("C0", "midnightblue", "deepskyblue", "teal", "slateblue", "black")
"""Colours of what was learned."""


def colors_of(learned: Sequence[str]) -> Callable[[str], str]:
    """The colour of a method by its name, whatever else is in the picture."""
    known = dict(zip(learned, itertools.cycle(LEARNED), strict=False))
    return lambda name: known.get(name) or METHODS.get(name.partition(" ")[0], "C9")


@dataclass(frozen=True)
class Curve:
    """A method's returns over lifetimes."""

    label: str
    color: str
    seeds: tuple[np.ndarray, ...]
    """of each evolution seed, or of the method alone: [lifetimes, updates] returns of episodes that
    ended before each update, NaN where none ended"""
    failures: int = 0


def plot_curves(title: str, curves: Sequence[Curve], steps: int) -> bytes:
    """Mean return of the latest episodes against environment steps, with 95 % bands, as a PNG.

    steps: of a lifetime, whatever updates a method makes of it.

    An agent's latest stands until its next one ends; a curve has points where some ended. Bands are
    over lifetimes; of several evolution seeds, whose own means are thin lines, over these.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    sparse = False
    for curve in curves:
        updates = curve.seeds[0].shape[1]
        ends = steps * np.arange(1, updates + 1) / updates
        values = [_where_ended(returns) for returns in curve.seeds]
        few = np.isfinite(values[0]).any(0).mean() < 0.5
        sparse |= few
        style: dict[str, Any] = {"color": curve.color} | (BETWEEN if few else {})
        label = curve.label + (f" ({curve.failures} failed)" if curve.failures else "")
        if len(values) == 1:
            band(axes, ends, values[0], label, **style)
        else:
            means = np.array([_mean(value) for value in values])
            axes.plot(ends, means.T, linewidth=0.7, alpha=0.7, **style)
            seeds_band(axes, ends, means, label, **style)
    axes.set(title=title, xlabel="environment steps of a lifetime", ylabel="return of an episode")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:  # none where no episode ended
        axes.legend(title="points: episodes ended" if sparse else None)
    return png(figure)


def plot_courses(
    title: str, courses: Mapping[str, Mapping[str, np.ndarray]], color: Callable[[str], str],
    steps: int,
) -> bytes:  # fmt: skip
    """What methods tuned over a life, a panel for each number, as a PNG.

    courses: by method and name [lifetimes, updates]; color: of a method; steps: of a lifetime.
    """
    names = list(dict.fromkeys(name for course in courses.values() for name in course))
    rows = -(-len(names) // 3)
    figure = Figure(figsize=(12, 3 * rows), layout="constrained")
    panels = figure.subplots(rows, 3, squeeze=False).flat
    for name, axes in zip(names, panels, strict=False):
        for method, course in courses.items():
            if name not in course:
                continue
            updates = course[name].shape[1]
            ends = steps * np.arange(1, updates + 1) / updates
            band(axes, ends, course[name], method, color=color(method))
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.set_xlabel("environment steps of a lifetime", fontsize=8)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    for axes in list(panels):
        axes.set_visible(False)
    figure.suptitle(title)
    return png(figure)


def _where_ended(returns: np.ndarray) -> np.ndarray:
    """[lifetimes, updates] latest returns; NaN at updates before which no episode has ended, and
    where half of the lifetimes or more have seen no end."""
    latest = carry_forward(returns)
    known = np.isfinite(returns).any(0) & (np.isfinite(latest).mean(0) > 0.5)
    return np.where(known & np.isfinite(latest), latest, np.nan)


def plot_fitness(
    runs: Sequence[tuple[Mapping[str, np.ndarray], float]], ppo: float | None
) -> bytes:
    """Fitness over generations and over environment steps, as a PNG.

    runs: of each evolution seed the columns of metrics.csv, [generations], NaN where not measured,
    and the validation after the last generation; ppo: the level that agents with PPO reach.
    """
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name in zip(panels, ("generation", "environment_steps"), strict=True):
        if len(runs) == 1:
            _one_course(axes, name, *runs[0])
        else:
            _courses(axes, name, runs)
        if ppo is not None:
            axes.axhline(
                ppo,
                color=METHODS[REFERENCE],
                linestyle="--",
                label=f"{REFERENCE}, in the evaluation: {ppo:.4g}",
            )
        axes.set(xlabel=name.replace("_", " "), ylabel="fitness")
        axes.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    return png(figure)


def _one_course(axes: Any, name: str, metrics: Mapping[str, np.ndarray], final: float) -> None:
    if "fitness_worst" in metrics:
        axes.fill_between(
            metrics[name], metrics["fitness_worst"], metrics["fitness_best"], alpha=0.15,
            label="worst to best candidate",
        )  # fmt: skip
    axes.plot(metrics[name], metrics["fitness_mean"], label="mean of what trained")
    across, validation = _validations(name, metrics, final)
    axes.plot(across, validation, "o-", color="C3", label="validation of what is learned")


def _courses(axes: Any, name: str, runs: Sequence[tuple[Mapping[str, np.ndarray], float]]) -> None:
    found = [_validations(name, metrics, final) for metrics, final in runs]
    for number, (across, validation) in enumerate(found):
        label = None if number else "validation of each seed"
        axes.plot(across, validation, color="C3", linewidth=0.7, alpha=0.7, label=label)
    common = min(len(across) for across, _ in found)
    across, validation = np.array([[x[:common], y[:common]] for x, y in found]).swapaxes(0, 1)
    label = f"{len(runs)} seeds"
    seeds_band(axes, across.mean(0), validation, label, color="C3", marker="o")


def _validations(
    name: str, metrics: Mapping[str, np.ndarray], final: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where it was measured, by a column, and what."""
    measured = np.isfinite(metrics["validation"])
    last = np.isfinite([final])
    end = metrics[name][-1:] + (name == "generation")
    return (
        np.append(metrics[name][measured], end[last]),
        np.append(metrics["validation"][measured], np.array([final])[last]),
    )


def plot_panels(
    runs: Sequence[Mapping[str, np.ndarray]], panels: Mapping[str, Sequence[str]]
) -> bytes:
    """A small panel for each title over generations, as a PNG.

    runs: columns of each evolution seed; panels: columns by title, whose second line, if it has
    one, says what is healthy.
    """
    rows = max(1, -(-len(panels) // 3))
    figure = Figure(figsize=(12, 3 * rows), layout="constrained")
    grid = iter(figure.subplots(rows, 3, squeeze=False).flat)
    for (title, names), axes in zip(panels.items(), grid, strict=False):
        for (number, name), (seed, metrics) in itertools.product(enumerate(names), enumerate(runs)):
            label = None if seed else name.replace("_", " ")
            width = 1.5 if len(runs) == 1 else 0.8
            axes.plot(
                metrics["generation"], metrics[name], color=f"C{number}", linewidth=width,
                label=label,
            )  # fmt: skip
        about, _, healthy = title.partition("\n")
        axes.set_title(about, fontsize=10, pad=18 if healthy else 6)
        axes.text(
            0.5, 1.03, healthy, transform=axes.transAxes, ha="center", fontsize=8, color="#555"
        )
        axes.set_xlabel("generation", fontsize=8)
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend(fontsize=8)
    for axes in grid:
        axes.set_visible(False)
    return png(figure)


def png(figure: Figure) -> bytes:
    """A figure, drawn."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return image.getvalue()


def band(axes: Any, steps: np.ndarray, values: np.ndarray, label: str, **style: Any) -> None:
    """Mean and 95 % band of [lifetimes, updates], where most lifetimes have a number."""
    count = np.isfinite(values).sum(0)
    shown = count > len(values) / 2
    if not shown.any():
        return
    mean = _mean(values)[shown]
    finite = np.where(np.isfinite(values), values, np.nan)[:, shown]
    half = 1.96 * np.nanstd(finite, axis=0) / np.sqrt(count[shown])
    _draw(axes, steps[shown], mean, mean - half, mean + half, label, style)


def seeds_band(axes: Any, across: np.ndarray, values: np.ndarray, label: str, **style: Any) -> None:
    """Mean and 95 % bootstrap interval of [seeds, points], where all seeds have a number."""
    shown = np.isfinite(values).all(0)
    if not shown.any():
        return
    values, count = values[:, shown], len(values)
    found = stats.bootstrap(
        (values,), np.mean, axis=0, n_resamples=RESAMPLES, method="percentile", rng=0
    ).confidence_interval
    about = "minimum to maximum" if count <= FEW_SEEDS else "95 %"
    label = f"{label} (mean, {about})"
    _draw(axes, across[shown], values.mean(0), found.low, found.high, label, style)


def _mean(values: np.ndarray) -> np.ndarray:
    """[updates] of [lifetimes, updates], over what is finite; NaN where most is not."""
    finite = np.where(np.isfinite(values), values, 0.0)
    count = np.isfinite(values).sum(0)
    return np.where(count > len(values) / 2, finite.sum(0) / np.maximum(count, 1), np.nan)


def _draw(
    axes: Any, across: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray,
    label: str, style: Mapping[str, Any],
) -> None:  # fmt: skip
    (line,) = axes.plot(across, mean, label=label, **style)
    axes.fill_between(across, low, high, alpha=0.2, color=line.get_color())
