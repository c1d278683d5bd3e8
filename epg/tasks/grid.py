"""The geometry of grid worlds: cells that actions lead to, walls, cells that are free.

Shape letters: P environments, G grids, C cells, A actions, K cells taken, N cells drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

DIRECTIONS = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Rows and columns that each action leads on: up, right, down, left."""


class Grid:
    """Cells numbered row by row, with a wall around them; blocked cells are walls, too."""

    def __init__(
        self,
        height: int,
        width: int,
        device: str = "cpu",
        directions: Sequence[tuple[int, int]] = DIRECTIONS,
        blocked: Iterable[int] = (),
    ) -> None:
        cells = np.arange(height * width)
        rows, columns = np.divmod(cells, width)
        led = [
            np.clip(rows + down, 0, height - 1) * width + np.clip(columns + right, 0, width - 1)
            for down, right in directions
        ]
        walls = list(blocked)
        towards = np.stack(led, 1)
        towards = np.where(np.isin(towards, walls), cells[:, None], towards)
        self.led = torch.from_numpy(towards).to(device)  # [C, A]
        self.free = torch.from_numpy(cells[~np.isin(cells, walls)]).to(device)

    def move(self, cells: Tensor, actions: Tensor) -> Tensor:
        """Where actions [P] lead to from cells [P]; a wall leaves one where one is."""
        return self.led[cells, actions]


class Grids:
    """The grids of P environments, of up to C cells each; what is equal is kept once."""

    def __init__(self, kinds: Sequence[Grid], which: Sequence[int], device: str) -> None:
        """`which` of G kinds of grids each environment has, [P]."""
        cells = max(len(kind.led) for kind in kinds)
        led = torch.zeros(len(kinds), cells, kinds[0].led.shape[1], dtype=torch.int64)
        free, rank = led[:, :, 0].clone(), led[:, :, 0].clone()
        for number, kind in enumerate(kinds):
            led[number, : len(kind.led)] = kind.led
            free[number, : len(kind.free)] = kind.free
            rank[number, kind.free] = torch.arange(len(kind.free))
        self._led = led.to(device)  # [G, C, A]
        self._free = free.to(device)  # [G, C]: the cells that are no walls, in order
        self._rank = rank.to(device)  # [G, C]: where in that order each is
        self._which = torch.tensor(which, device=device)
        self._frees = torch.tensor([len(kind.free) for kind in kinds], device=device)[self._which]

    def move(self, cells: Tensor, actions: Tensor) -> Tensor:
        """Where actions [P] lead to from cells [P]; a wall leaves one where one is."""
        return self._led[self._which, cells, actions]

    def free_cells(self, numbers: Tensor, taken: Tensor) -> Tensor:
        """Different cells [P, N], evenly among those that are neither walls nor taken.

        numbers: [P, N], uniform in [0, 1). taken: [P, K], no walls, and different, but that the
        first may be among the others.
        """
        grids = self._which[:, None]
        ranks = self._rank[grids, taken]
        again = (ranks[:, 1:] == ranks[:, :1]).any(1)
        ranks[:, 0] = torch.where(again, self._free.shape[1], ranks[:, 0])  # beyond all others
        left = self._frees - ranks.shape[1] + again
        found: list[Tensor] = []  # different numbers of cells among those left
        in_order: list[Tensor] = []
        for before, each in enumerate(numbers.unbind(1)):
            room = left - before
            number = _skip((each * room).to(torch.int64).minimum(room - 1), in_order)
            in_order = _put_in(number, in_order)
            found.append(number)
        beside = ranks.sort(1).values.unbind(1)
        among_free = _skip(torch.stack(found, 1), [rank[:, None] for rank in beside])
        return self._free[grids, among_free]


def free_cell(number: Tensor, taken: Tensor) -> Tensor:
    """The cells [P] that have these numbers [P], counted from 0, among those that are not taken.

    taken: [P, K], all different in a row.
    """
    return _skip(number, taken.sort(1).values.unbind(1))


def _skip(number: Tensor, in_order: Sequence[Tensor]) -> Tensor:
    for cell in in_order:
        number = number + (number >= cell)
    return number


def _put_in(new: Tensor, in_order: Sequence[Tensor]) -> list[Tensor]:
    """K + 1 columns in order, of K that are and a new one."""
    columns = []
    for cell in in_order:
        columns.append(cell.minimum(new))
        new = cell.maximum(new)
    return [*columns, new]
