"""The grid worlds that LPG was found in, as distributions over levels.

Oh et al. 2020: https://arxiv.org/abs/2007.08794, with a start drawn for each level as in GROOVE,
Jackson et al. 2023: https://arxiv.org/abs/2310.02782. Where they differ these are the paper's:
    grid-longer                          7 × 9, 5 bad objects; in GROOVE 9 × 9 and 3
    random-grid-small, -sparse           5 × 7; in GROOVE 7 × 7
    objects that come up anywhere        never inside a wall; in GROOVE they may
    observation                          no time; in GROOVE time / 1000 is appended
The paper's agents collect by actions of their own, GROOVE's and these by walking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from epg.errors import UserError
from epg.tasks.base import Batch, Mdp, Task, Varied
from epg.tasks.collecting import ACTIONS, FixedBatch, RandomBatch

Kind = tuple[float, float, float]
"""Of objects: reward, probability that the episode ends with it, of returning in each step."""


class _Grid(Task):
    """What all share: a drawn start; five actions, that lead up, down, left, right and nowhere."""

    action_size = len(ACTIONS)
    discrete = True
    floor: str
    """A line for each row: # where a wall is, . where none is."""
    kinds: tuple[Kind, ...]
    things: tuple[int, ...]
    """The kind of each object."""

    @property
    def size(self) -> int:
        """Cells."""
        return len("".join(self.floor.split()))

    def draw(self, rng: np.random.Generator) -> Mdp:
        rows = self.floor.split()
        walls = [i for i, cell in enumerate("".join(rows)) if cell == "#"]
        things = list(self.things)
        cells = _draw_cells(rng, self.size, walls, 1 + len(things))
        return {
            "height": len(rows),
            "width": len(rows[0]),
            "blocked": walls,
            "kinds": [list(kind) for kind in self.kinds],
            "things": things,
            "start": cells[0],
            "places": cells[1:],
            "horizon": self.horizon,
        }


def _draw_cells(rng: np.random.Generator, size: int, walls: Sequence[int], n: int) -> list[int]:
    free = sorted(set(range(size)).difference(walls))
    cells: list[int] = rng.choice(free, n, replace=False).tolist()
    return cells


def _room(height: int, width: int) -> str:
    return "\n".join(["." * width] * height)


class _FixedGrid(_Grid):
    """Each object has its place, drawn with the level.

    Observation: 1 at cell + cells · Σ 2^i over the objects i that are there.
    """

    @property
    def count(self) -> int:
        """Objects, at most."""
        return len(self.things)

    def __init__(self, /, **ranges: Any) -> None:
        super().__init__(**ranges)
        self.observation_size = self.states = self.size << self.count

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        return FixedBatch(mdps, self.size, self.count, rngs, self.horizon, device, restart)


class _RandomGrid(_Grid):
    """Objects come up anywhere, in each episode and each time that they return.

    Observation: a plane of the cells for the agent, and one for each kind of objects.
    """

    def __init__(self, /, **ranges: Any) -> None:
        super().__init__(**ranges)
        self.observation_size = self.size * (1 + len(self.kinds))

    def draw(self, rng: np.random.Generator) -> Mdp:
        level = super().draw(rng)
        del level["places"]
        return level

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        return RandomBatch(mdps, rngs, self.horizon, device, restart)


class GridDense(_FixedGrid):
    """Two good objects that return soon, one that may end the episode, one often in the way."""

    name = "grid-dense"
    summary = "collect two objects that return; two others cost, at drawn places"
    floor = _room(11, 11)
    kinds = ((1.0, 0.0, 0.05), (-1.0, 0.5, 0.1), (-1.0, 0.0, 0.5))
    things = (0, 0, 1, 2)
    horizon = 500


class GridSparse(_FixedGrid):
    """A good object and a bad one; each ends the episode."""

    name = "grid-sparse"
    summary = "find the good object of two, at drawn places; either ends the episode"
    floor = _room(13, 13)
    kinds = ((1.0, 1.0, 0.0), (-1.0, 1.0, 0.0))
    things = (0, 1)
    horizon = 50


class GridLong(_FixedGrid):
    """Good objects return late, bad ones at once."""

    name = "grid-long"
    summary = "collect two objects that return late; two others cost and may end it"
    floor = _room(11, 11)
    kinds = ((1.0, 0.0, 0.01), (-1.0, 0.5, 1.0))
    things = (0, 0, 1, 1)
    horizon = 1000


class GridLonger(_FixedGrid):
    """Two rooms with two doors between them."""

    name = "grid-longer"
    summary = "collect in two rooms with two doors, among five objects that may end it"
    floor = """
        ....#....
        .........
        ....#....
        ...###...
        ....#....
        .........
        ....#....
    """
    kinds = ((1.0, 0.1, 0.01), (-1.0, 0.8, 1.0))
    things = (0, 0, 1, 1, 1, 1, 1)
    horizon = 2000


class GridLongDense(_FixedGrid):
    """Four rooms; good objects alone, which return late."""

    name = "grid-long-dense"
    summary = "collect four objects that return late, in four rooms"
    floor = """
        ...........
        .....#.....
        .....#.....
        .....#.....
        ##.#####.##
        .....#.....
        .....#.....
        ...........
        .....#.....
        .....#.....
        .....#.....
    """
    kinds = ((1.0, 0.0, 0.005),)
    things = (0, 0, 0, 0)
    horizon = 2000


class RandomGridDense(_RandomGrid):
    """`grid-dense` with objects that come up anywhere."""

    name = "random-grid-dense"
    summary = "collect two objects that return soon and anywhere; two others cost"
    floor, kinds, things = GridDense.floor, GridDense.kinds, GridDense.things
    horizon = 500


class RandomGridLong(_RandomGrid):
    """`grid-long` with objects that come up anywhere."""

    name = "random-grid-long"
    summary = "collect two objects that return late and anywhere; two others cost and may end it"
    floor, kinds, things = GridLong.floor, GridLong.kinds, GridLong.things
    horizon = 1000


class RandomGridSmall(_RandomGrid):
    """Small, with two pillars."""

    name = "random-grid-small"
    summary = "collect two objects between two pillars; two others cost and may end it"
    floor = """
        .......
        ..#....
        .......
        ....#..
        .......
    """
    kinds = ((1.0, 0.0, 0.05), (-1.0, 0.5, 0.1))
    things = (0, 0, 1, 1)
    horizon = 500


class RandomGridSparse(_RandomGrid):
    """Small; every object ends the episode."""

    name = "random-grid-sparse"
    summary = "find the good object of three, anywhere; each ends the episode"
    floor = _room(5, 7)
    kinds = ((1.0, 1.0, 1.0), (-1.0, 1.0, 1.0))
    things = (0, 1, 1)
    horizon = 50


class RandomGridVeryDense(_RandomGrid):
    """One good object that is always somewhere."""

    name = "random-grid-very-dense"
    summary = "run after an object that comes up anywhere as soon as it is collected"
    floor = _room(11, 11)
    kinds = ((1.0, 0.0, 1.0),)
    things = (0,)
    horizon = 2000


class GridAll(_FixedGrid):
    """GROOVE's `all`: sizes, walls, objects and what they are worth are drawn.

    The first object's reward is uniform in [0, 1), the others' in [-1, 1); the logarithms of the
    probabilities of ending are uniform in 0.01 to 1, of returning in 0.001 to 0.1. Walls are drawn
    among the cells of the largest size, and may cut an object off.
    """

    name = "grid-all"
    summary = "collect objects of drawn worth, at drawn places between drawn walls"
    varied = (
        Varied("size", 4, 10, "cells", "height and width", allowed=(3, 15), whole=True),
        Varied("walls", 15, 15, "", "among as many cells as the largest size has; those beyond "
               "a smaller one are dropped", allowed=(0, 225), whole=True),
        Varied("objects", 1, 5, allowed=(1, 8), whole=True),
        Varied("horizon", 20, 750, "steps", "its logarithm uniform", allowed=(1, 100_000),
               whole=True, log=True),
        Varied("living", 0, 0, "a step", "what each step pays besides", allowed=(-1, 1)),
    )  # fmt: skip

    @property
    def size(self) -> int:
        return int(self._highest["size"]) ** 2

    @property
    def count(self) -> int:
        return int(self._highest["objects"])

    @property
    def _highest(self) -> dict[str, float]:
        return {v.name: v.high for v in self.varied}

    def __init__(self, /, **ranges: Any) -> None:
        super().__init__(**ranges)
        self.horizon = int(self._highest["horizon"])
        walls = int(self._highest["walls"])
        if walls > self.size:
            raise UserError(
                f"walls: found {walls}, allowed: at most {self.size}, the cells of the largest size"
            )

    def draw(self, rng: np.random.Generator) -> Mdp:
        *first, living = self.varied
        mdp = {varied.name: varied.draw(rng) for varied in first}
        size, count = mdp["size"], mdp["objects"]
        walls = rng.permutation(self.size)[: mdp["walls"]].tolist()
        inside = [wall for wall in walls if wall < size**2][: size**2 - count - 1]
        cells = _draw_cells(rng, size**2, inside, 1 + count)
        rewards = np.append(rng.random(), rng.uniform(-1, 1, count - 1))
        ends, returns = (10 ** rng.uniform(low, low + 2, count) for low in (-2, -3))
        return {
            **mdp,
            "height": size,
            "width": size,
            "blocked": sorted(inside),
            "kinds": np.stack([rewards, ends, returns], 1).tolist(),
            "things": list(range(count)),
            "start": cells[0],
            "places": cells[1:],
            "living": living.draw(rng),
        }
