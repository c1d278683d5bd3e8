"""What episodes start with, or steps find: noise, of each environment's own.

`Resets` draws ahead whatever a generator can draw; `Uniforms` has uniform numbers alone, for many
thousand environments at once.

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


GOLDEN = -7046029254386353131  # 2⁶⁴ / golden ratio, odd, as torch's signed integers have it
MIX = ((30, -4658895280553007687), (27, -7723592293110705685))
BITS = 53


class Uniforms:
    """The k-th row of environment i is made of its key and k, whatever the others do.

    Steele, Lea & Flood 2014, splitmix64: https://doi.org/10.1145/2660193.2660195. The key is the
    first number of `rngs[i]`. Nothing is drawn ahead, and nothing loops over environments.
    """

    def __init__(self, rngs: Sequence[np.random.Generator], size: int, device: str) -> None:
        keys = [int(rng.integers(-(2**63), 2**63)) for rng in rngs]
        self._keys = torch.tensor(keys, device=device)
        self._used = torch.zeros_like(self._keys)
        self._size = size
        self._offsets = torch.arange(1, size + 1, device=device) * GOLDEN

    def next(self) -> Tensor:
        """The next numbers of each environment, [P, S] float64, in [0, 1)."""
        counts = self._keys + self._used * self._size * GOLDEN
        return uniform(counts[:, None] + self._offsets)

    def advance(self, used: Tensor) -> None:
        """Use up the next numbers where `used`, [P] bool."""
        self._used += used


def uniform(counts: Tensor) -> Tensor:
    """A number in [0, 1) of each of these int64, which it overwrites."""
    for shift, factor in MIX:
        counts = _stir(counts, shift).mul_(factor)
    high = (_stir(counts, 31) >> (64 - BITS)).bitwise_and_((1 << BITS) - 1)
    return high.to(torch.float64).mul_(2.0**-BITS)


def _stir(counts: Tensor, shift: int) -> Tensor:
    """Each bit also where it is after a shift to the right: torch's own drags the sign along."""
    return counts.bitwise_xor_((counts >> shift).bitwise_and_((1 << (64 - shift)) - 1))


def numbers_of(
    rngs: Sequence[np.random.Generator], draw: Draw | int, device: str
) -> Resets | Uniforms:
    """What `draw` draws, or that many uniform numbers."""
    if isinstance(draw, int):
        return Uniforms(rngs, draw, device)
    return Resets(rngs, draw, device)
