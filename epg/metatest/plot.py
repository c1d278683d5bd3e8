"""Pictures: learning curves, and the course of an evolution."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure


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
        axes.fill_between(
            across, metrics["fitness_worst"], metrics["fitness_best"], alpha=0.15,
            label="worst to best candidate",
        )  # fmt: skip
        axes.plot(across, metrics["fitness_mean"], label="mean of candidates")
        validation = metrics["validation"][measured]
        axes.plot(
            np.append(across[measured], end[last]), np.append(validation, np.array([final])[last]),
            "o-", label="validation of φ itself",
        )  # fmt: skip
        axes.set(xlabel=name.replace("_", " "), ylabel="fitness")
        axes.grid(alpha=0.3)
    axes.legend()
    return png(figure)


HEALTH = {
    "pairs that tied, candidates that failed": ("ties", "failures"),
    "pairs left out": ("invalid",),
    "signal over noise: |difference| / its spread": ("pair_signal",),
    "cosine with the gradient before": ("gradient_cosine",),
    "‖φ‖": ("phi_norm",),
    "σ, α, learning rate": ("sigma", "alpha", "learning_rate"),
    "KL of an inner update": ("inner_kl",),
    "entropy of policies": ("inner_entropy",),
    "environment steps a second": ("steps_per_second",),
}
"""What tells whether an evolution is well: titles and columns of metrics.csv."""


def plot_health(metrics: Mapping[str, np.ndarray]) -> bytes:
    """A small panel for each of HEALTH over generations, as a PNG."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(3, 3).flat, HEALTH.items(), strict=True):
        for name in names:
            axes.plot(metrics["generation"], metrics[name], label=name.replace("_", " "))
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend(fontsize=8)
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


def carry_forward(returns: np.ndarray) -> np.ndarray:
    """[P, U] with NaN replaced by the value before it, where there is one."""
    index = np.where(np.isfinite(returns), np.arange(returns.shape[1]), 0)
    latest = np.maximum.accumulate(index, axis=1)
    return np.take_along_axis(returns, latest, axis=1)
