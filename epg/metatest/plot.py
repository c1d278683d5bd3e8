"""Learning curves."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from epg.files import write_durably


def plot_curves(
    path: Path, title: str, curves: Mapping[str, np.ndarray], steps_per_update: int
) -> None:
    """Mean return of the latest episodes against environment steps, with 95 % bands, as a PNG.

    curves: by method, [lifetimes, updates] returns of episodes that ended before each update, NaN
    where none ended; an agent's latest stands until the next one ends.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, returns in curves.items():
        latest = carry_forward(returns)
        steps = steps_per_update * np.arange(1, returns.shape[1] + 1)
        count = np.isfinite(latest).sum(0)
        shown = count > len(latest) / 2
        if not shown.any():
            continue
        latest, steps, count = latest[:, shown], steps[shown], count[shown]
        mean = np.nanmean(latest, axis=0)
        half = 1.96 * np.nanstd(latest, axis=0) / np.sqrt(count)
        (line,) = axes.plot(steps, mean, label=name)
        axes.fill_between(steps, mean - half, mean + half, alpha=0.2, color=line.get_color())
    axes.set(title=title, xlabel="environment steps of a lifetime", ylabel="return of an episode")
    axes.grid(alpha=0.3)
    if axes.lines:  # none where no episode ended
        axes.legend()
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write_durably(path, image.getvalue())


def carry_forward(returns: np.ndarray) -> np.ndarray:
    """[P, U] with NaN replaced by the value before it, where there is one."""
    index = np.where(np.isfinite(returns), np.arange(returns.shape[1]), 0)
    latest = np.maximum.accumulate(index, axis=1)
    return np.take_along_axis(returns, latest, axis=1)
