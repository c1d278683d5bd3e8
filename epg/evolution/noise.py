"""The noise of an evolution strategy: the same on every machine that draws it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from epg.seeds import LifetimeSeed, Purpose, Stream

PAIRS_AT_ONCE = 16
"""Whose noise is drawn between two looks at what came in: some milliseconds' work."""


def draw_epsilon(seed: int, step: int, pair: int, size: int) -> np.ndarray:
    """The unit perturbation ε of a pair, [size] float32."""
    rng = LifetimeSeed(seed, Purpose.TRAINING, step, pair).rng(Stream.EPSILON)
    return rng.standard_normal(size, dtype=np.float32)


def perturb(phi: np.ndarray, sigma: float, seed: int, step: int, pair: int) -> np.ndarray:
    """φ + σε and φ − σε of a pair, [2, size] float32; phi: [size] float32."""
    scaled = np.float32(sigma) * draw_epsilon(seed, step, pair, len(phi))
    return np.stack((phi + scaled, phi - scaled))


class Noise:
    """The ε of all pairs of a step, drawn while the farm is at work."""

    def __init__(self, seed: int, pairs: int, size: int) -> None:
        self._seed = seed
        self._step = -1
        self._drawn = np.empty((pairs, size), dtype=np.float32)
        self._count = 0

    def draw_ahead(self, step: int, pairs: int = PAIRS_AT_ONCE) -> None:
        """Draw some more of a step, if any are left."""
        if step != self._step:
            self._step, self._count = step, 0
        last = min(self._count + pairs, len(self._drawn))
        for pair in range(self._count, last):
            self._drawn[pair] = draw_epsilon(self._seed, step, pair, self._drawn.shape[1])
        self._count = last

    def of(self, step: int, pairs: Sequence[int]) -> np.ndarray:
        """Those of some pairs, ascending: [len(pairs), size] float32; no copy if it is all."""
        self.draw_ahead(step, len(self._drawn))
        return self._drawn if len(pairs) == len(self._drawn) else self._drawn[pairs]
