"""Two colours: a grid with an object of each, of which one pays; which one flips within a life.

Flennerhag et al. 2022: https://arxiv.org/abs/2109.04504
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from epg.tasks.base import Batch, Mdp, Task, Varied
from epg.tasks.grid import DIRECTIONS, Grid, free_cell
from epg.tasks.native import LifelongBatch, one_hot

SIZE = 5
CELLS = SIZE * SIZE
STEP_COST = 0.04


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
