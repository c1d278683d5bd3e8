"""Grid worlds: an agent that walks from cell to cell, and objects that lie in them.

The two-coloured grid is that of Flennerhag et al. 2022: https://arxiv.org/abs/2109.04504

Shape letters: P environments, C cells, K of them taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from epg.tasks.base import Batch, Mdp, Task, Varied
from epg.tasks.native import LifelongBatch, one_hot

DIRECTIONS = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Rows and columns that each action leads on: up, right, down, left."""
SIZE = 5
CELLS = SIZE * SIZE
STEP_COST = 0.04


class Grid:
    """Cells numbered row by row, with a wall around them."""

    def __init__(self, height: int, width: int, device: str = "cpu") -> None:
        rows, columns = np.divmod(np.arange(height * width), width)
        led = [
            np.clip(rows + down, 0, height - 1) * width + np.clip(columns + right, 0, width - 1)
            for down, right in DIRECTIONS
        ]
        self._led = torch.from_numpy(np.stack(led, 1)).to(device)  # [C, 4]

    def move(self, cells: Tensor, actions: Tensor) -> Tensor:
        """Where actions [P] lead to from cells [P]; a wall leaves one where one is."""
        return self._led[cells, actions]


def free_cell(number: Tensor, taken: Tensor) -> Tensor:
    """The cells [P] that have these numbers [P], counted from 0, among those that are not taken.

    taken: [P, K], all different in a row.
    """
    for cell in taken.sort(1).values.unbind(1):
        number = number + (number >= cell)
    return number


class TwoColours(Task):
    """Observation: the cells of the agent and of the objects of colour 0 and of colour 1, one-hot.

    Colour 0 pays in the first `flip` steps of a life, colour 1 in the next, and so on.
    """

    name = "two-colours"
    summary = "collect objects of the colour that pays; which one does flips, untold"
    observation_size = 3 * CELLS
    action_size = len(DIRECTIONS)
    discrete = True
    horizon = 100
    varied = (
        Varied("flip", 100_000, 100_000, "steps", "of a life, between two flips; not observed",
               allowed=(1, 1e9), source="as in the paper"),
    )  # fmt: skip

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        return TwoColoursBatch(mdps, self.horizon, rngs, device, restart)


def _start(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    cells = rng.random((n, CELLS)).argsort(1)[:, :3]
    return np.concatenate([cells, np.zeros((n, 1))], 1)


def _new_cells(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Numbers of cells among those that the agent and one object leave free."""
    return rng.integers(0, CELLS - 2, (n, 1)).astype(np.float64)


class TwoColoursBatch(LifelongBatch):
    """P grids; state: cells of the agent and of both objects; 1 if it came to colour 0, -1 to 1."""

    def __init__(
        self,
        mdps: Sequence[Mdp],
        horizon: int,
        rngs: Sequence[np.random.Generator],
        device: str,
        restart: bool,
    ) -> None:
        super().__init__(rngs, _start, _new_cells, horizon, device, restart)
        self._flip = torch.tensor([m["flip"] for m in mdps], dtype=torch.float64, device=device)
        self._grid = Grid(SIZE, SIZE, device)

    def move(self, state: Tensor, actions: Tensor) -> Tensor:
        agent, *objects, _ = state.to(torch.int64).unbind(1)
        agent = self._grid.move(agent, actions)
        met = [agent == cell for cell in objects]
        stays = torch.where(met[0], objects[1], objects[0])
        new = free_cell(self.chance[:, 0].to(torch.int64), torch.stack([agent, stays], 1))
        placed = [torch.where(m, new, cell) for m, cell in zip(met, objects, strict=True)]
        colour = met[0].to(torch.int64) - met[1].to(torch.int64)
        return torch.stack([agent, *placed, colour], 1).to(torch.float64)

    def reward(self, state: Tensor) -> Tensor:
        flipped = (self.clock / self._flip).floor() % 2 == 1
        return torch.where(flipped, -state[:, 3], state[:, 3]) - STEP_COST

    def ends(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state[:, 0], dtype=torch.bool)

    def observe(self, state: Tensor) -> Tensor:
        return torch.cat([one_hot(cells, CELLS) for cells in state[:, :3].unbind(1)], 1)
