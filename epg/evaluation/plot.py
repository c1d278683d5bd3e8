"""Pictures: learning curves, and the course of an evolution."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from epg.evaluation.scores import carry_forward


def plot_curves(
    title: str, curves: Mapping[str, np.ndarray], steps_per_update: int, colors: Mapping[str, str]
) -> bytes:
    """Mean return of the latest episodes against environment steps, with 95 % bands, as a PNG.

    curves: by method, [lifetimes, updates] returns of episodes that ended before each update, NaN
    where none ended; an agent's latest stands until the next one ends.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, returns in curves.items():
        steps = steps_per_update * np.arange(1, returns.shape[1] + 1)
        band(axes, steps, carry_forward(returns), name, colors[name])
    axes.set(title=title, xlabel="environment steps of a lifetime", ylabel="return of an episode")
    axes.grid(alpha=0.3)
    if axes.lines:  # none where no episode ended
        axes.legend()
    return png(figure)


def plot_fitness(metrics: Mapping[str, np.ndarray], final: float) -> bytes:
    """Fitness over generations and over environment steps, as a PNG.

    metrics: columns of metrics.csv, [generations]; NaN where not measured; final: validation after
    the last generation.
    """
    figure = Figure(figsize=(12, 4), layout="constrained")
    measured = np.isfinite(metrics["validation"])
    last = np.isfinite([final])
    for axes, name in zip(
        figure.subplots(1, 2, sharey=True), ("generation", "environment_steps"), strict=True
    ):
        across = metrics[name]
        end = across[-1:] + (name == "generation")
        if "fitness_worst" in metrics:
            axes.fill_between(
                across, metrics["fitness_worst"], metrics["fitness_best"], alpha=0.15,
                label="worst to best candidate",
            )  # fmt: skip
        axes.plot(across, metrics["fitness_mean"], label="mean of what trained")
        validation = metrics["validation"][measured]
        axes.plot(
            np.append(across[measured], end[last]), np.append(validation, np.array([final])[last]),
            "o-", label="validation of what is learned",
        )  # fmt: skip
        axes.set(xlabel=name.replace("_", " "), ylabel="fitness")
        axes.grid(alpha=0.3)
    axes.legend()
    return png(figure)


def plot_panels(metrics: Mapping[str, np.ndarray], panels: Mapping[str, Sequence[str]]) -> bytes:
    """A small panel for each title over generations, as a PNG; panels: columns by title."""
    rows = max(1, -(-len(panels) // 3))
    figure = Figure(figsize=(12, 8 / 3 * rows), layout="constrained")
    grid = iter(figure.subplots(rows, 3, squeeze=False).flat)
    for (title, names), axes in zip(panels.items(), grid, strict=False):
        for name in names:
            axes.plot(metrics["generation"], metrics[name], label=name.replace("_", " "))
        axes.set_title(title, fontsize=10)
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


def band(
    axes: Any, steps: np.ndarray, values: np.ndarray, label: str, color: str | None = None
) -> None:
    """Mean and 95 % band of [lifetimes, updates], where most lifetimes have a number."""
    count = np.isfinite(values).sum(0)
    shown = count > len(values) / 2
    if not shown.any():
        return
    values = np.where(np.isfinite(values), values, np.nan)[:, shown]
    mean = np.nanmean(values, axis=0)
    half = 1.96 * np.nanstd(values, axis=0) / np.sqrt(count[shown])
    (line,) = axes.plot(steps[shown], mean, label=label, color=color)
    axes.fill_between(steps[shown], mean - half, mean + half, alpha=0.2, color=line.get_color())
