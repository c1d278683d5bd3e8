"""What episodes start with, or steps find: noise, drawn ahead for all environments of a batch.

Shape letters: P environments, S numbers drawn for one reset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
"""Draws n resets, [n, S], one after the other: n then m are the same numbers as n + m."""

DEPTH = 64


def uniform_noise(size: int, scale: float) -> Draw:
    """Resets of `size` numbers, uniform in ±scale."""
    return lambda rng, n: rng.uniform(-scale, scale, (n, size))


def one_by_one(draw: Callable[[np.random.Generator], NDArray[np.float64]]) -> Draw:
    """Resets of several kinds of numbers, of which `draw` draws one reset, [S]."""
    return lambda rng, n: np.stack([draw(rng) for _ in range(n)])


class Resets:
    """The k-th reset of environment i is the k-th draw of `rngs[i]`, whatever the others do.

    Resets are drawn ahead into a table on the device, so that a step neither loops over
    environments nor waits for the device. An environment ends at most once a step: a full table
    lasts for DEPTH steps, and only then is it looked at and filled up.
    """

    def __init__(self, rngs: Sequence[np.random.Generator], draw: Draw, device: str) -> None:
        self._rngs = rngs
        self._draw = draw
        self._table = torch.from_numpy(np.stack([draw(rng, DEPTH) for rng in rngs]))
        self._rows = self._table.to(device)  # [P, DEPTH, S]; on the CPU the table itself
        self._each = torch.arange(len(rngs), device=device)
        self._used = torch.zeros(len(rngs), dtype=torch.int64, device=device)
        self._renewed = self._used.cpu().numpy().copy()
        self._calls = 0

    def next(self) -> Tensor:
        """The next reset of each environment, [P, S]."""
        return self._rows[self._each, self._used % DEPTH]

    def advance(self, ended: Tensor) -> None:
        """Use up the next reset where `ended`, [P] bool."""
        self._used += ended
        self._calls += 1
        if self._calls == DEPTH:
            self._calls = 0
            self._renew()

    def _renew(self) -> None:
        used = self._used.cpu().numpy()
        table = self._table.numpy()
        for i in np.flatnonzero(used > self._renewed).tolist():
            slots = np.arange(self._renewed[i], used[i]) % DEPTH
            table[i, slots] = self._draw(self._rngs[i], len(slots))
        self._renewed[:] = used
        if self._rows is not self._table:
            self._rows.copy_(self._table)
