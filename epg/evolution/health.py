"""Whether an evolution is well: what the fitness of a generation tells."""

from __future__ import annotations

import numpy as np

from epg.evolution.shaping import pair_difference

METRICS = (
    "fitness_best", "fitness_worst", "ties", "pair_signal", "gradient_cosine", "phi_norm", "sigma",
    "learning_rate",
)  # fmt: skip
"""Columns of metrics.csv that `health` and `Strategy.step` give, besides those of every method."""
PANELS = {
    "pairs that tied, candidates that failed\nhealthy: near 0": ("ties", "failures"),
    "pairs left out\nhealthy: 0": ("invalid",),
    "signal over noise: |difference| / its spread\n1.3 if normal; far below, few pairs decide": (
        "pair_signal",
    ),
    "cosine with the gradient before\nhealthy: above 0; near 1, φ could move faster": (
        "gradient_cosine",
    ),
    "‖φ‖\nhealthy: changes, without running away": ("phi_norm",),
    "σ, learning rate\nas scheduled": ("sigma", "learning_rate"),
    "environment steps a second\nhealthy: level": ("steps_per_second",),
}
"""How a report shows them: by title, whose second line says what is healthy."""


def health(fitness: np.ndarray) -> dict[str, float | None]:
    """Columns of metrics.csv, of fitness [pairs, 2] with NaN for candidates that failed."""
    difference = np.abs(pair_difference(fitness))
    finite = fitness[np.isfinite(fitness)]
    return {
        "fitness_mean": finite_mean(fitness),
        "fitness_best": float(finite.max()) if finite.size else None,
        "fitness_worst": float(finite.min()) if finite.size else None,
        "ties": float((difference == 0).mean()),
        "failures": 1 - finite.size / fitness.size,
        "pair_signal": signal(difference),
    }


def signal(difference: np.ndarray) -> float | None:
    """Mean |difference| within pairs over its standard deviation; None if they do not vary."""
    finite = difference[np.isfinite(difference)]
    spread = float(finite.std()) if finite.size else 0.0
    return float(finite.mean()) / spread if spread else None


def finite_mean(values: np.ndarray) -> float | None:
    """Mean of what is finite; None if nothing is."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None
