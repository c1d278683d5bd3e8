"""Worlds of objects: an agent walks over a grid and collects what it comes to.

Oh et al. 2020: https://arxiv.org/abs/2007.08794

A level, one MDP, is a dict of
    height, width, blocked    the grid, and those of its cells that are walls
    kinds                     of objects: [reward, probability that the episode ends, of returning]
    things                    the kind of each object
    start                     the agent's cell
    places                    that of each object, where it always returns to the same
    horizon                   steps until an episode is truncated
    living                    what each step pays besides, where it is not 0

Shape letters: P environments, N objects, K kinds, C cells, S numbers in a state, O observation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from epg.tasks.base import Mdp
from epg.tasks.grid import Grid, Grids
from epg.tasks.native import LifelongBatch, ones_at

ACTIONS = ((-1, 0), (1, 0), (0, -1), (0, 1), (0, 0))
"""Rows and columns that each leads on: up, down, left, right, nowhere."""
NOWHERE = -1
"""The cell of an object that a level does not have."""


class Objects(NamedTuple):
    """Where the objects of P environments are, and which of them are there."""

    cells: Tensor
    """[P, N] int64: also of those that are not there"""
    there: Tensor
    """[P, N] bool"""


class Chance(NamedTuple):
    """What is drawn for a step of P environments."""

    respawn: Tensor
    """[P, N]: an object that is not there returns where this is below its probability"""
    end: Tensor
    """[P]: the episode ends where this is below the probabilities of what was collected"""
    cells: Tensor
    """[P, N] int64: where each object would return to"""


class Collected(NamedTuple):
    """What came of a step."""

    objects: Objects
    reward: Tensor
    """[P]"""
    ended: Tensor
    """[P] bool"""


class Levels:
    """P levels in tensors, each padded to N objects with some that are never there."""

    def __init__(self, levels: Sequence[Mdp], count: int, device: str) -> None:
        shapes = [(m["height"], m["width"], tuple(m["blocked"])) for m in levels]
        kinds = {shape: number for number, shape in enumerate(dict.fromkeys(shapes))}
        grids = [
            Grid(height, width, directions=ACTIONS, blocked=blocked)
            for height, width, blocked in kinds
        ]
        self.grids = Grids(grids, [kinds[shape] for shape in shapes], device)

        def column(name: str) -> Tensor:
            return torch.tensor([m[name] for m in levels], device=device)

        def padded(rows: list[list[int]], value: int) -> Tensor:
            return torch.tensor([r + [value] * (count - len(r)) for r in rows], device=device)

        self.start, self.horizon = column("start"), column("horizon")  # [P]
        living = [float(m.get("living", 0.0)) for m in levels]
        self.living = torch.tensor(living, dtype=torch.float64, device=device)  # [P]
        self.kinds = padded([m["things"] for m in levels], NOWHERE)  # [P, N]
        self.there = self.kinds != NOWHERE
        self.places = padded([m.get("places", []) for m in levels], NOWHERE)
        triples = np.zeros((len(levels), count, 3))
        for triple, m in zip(triples, levels, strict=True):
            triple[: len(m["things"])] = [m["kinds"][kind] for kind in m["things"]]
        reward, end, respawn = torch.from_numpy(triples).to(device).unbind(2)
        self.reward, self.end = reward.contiguous(), end.contiguous()  # [P, N], as the next
        self.respawn = respawn.contiguous()

    def collect(self, agent: Tensor, objects: Objects, chance: Chance) -> Collected:
        """What happens where agents [P] have come to: nothing that returns now is collected yet."""
        met = objects.there & (objects.cells == agent[:, None])
        returns = ~objects.there & (chance.respawn < self.respawn)
        there = (objects.there | returns) & ~met
        cells = torch.where(returns, chance.cells, objects.cells)
        reward = self.living + (self.reward * met).sum(1)
        ended = chance.end < (self.end * met).sum(1)
        return Collected(Objects(cells, there), reward, ended)


class FixedBatch(LifelongBatch):
    """P levels whose objects return to their places.

    Observation: one of C · 2^N places, which tells where the agent is and what is there; or, if
    `numbered` is set, its number [P, 1].

    State: the agent's cell; what it was paid and whether that was the end; what is there.
    """

    numbered = False

    def __init__(
        self,
        levels: Sequence[Mdp],
        size: int,
        count: int,
        rngs: Sequence[np.random.Generator],
        horizon: int,
        device: str,
        restart: bool,
    ) -> None:
        """`size`: C, at least as many cells as any level has. `count`: N."""
        self.levels = Levels(levels, count, device)
        self._size, self._count = size, count
        until = self.levels.horizon.clamp(max=horizon)
        super().__init__(rngs, 0, count + 1, until, device, restart)
        nothing = torch.zeros_like(until)
        self._first = _state(self.levels.start, nothing, nothing, self.levels.there)
        self._weights = size * 2 ** torch.arange(count, device=device)

    def begin(self, drawn: Tensor) -> Tensor:
        return self._first

    def move(self, state: Tensor, actions: Tensor) -> Tensor:
        agent = self.levels.grids.move(state[:, 0].to(torch.int64), actions)
        places = self.levels.places
        chance = Chance(self.chance[:, 1:], self.chance[:, 0], places)
        after = self.levels.collect(agent, Objects(places, state[:, 3:] > 0), chance)
        return _state(agent, after.reward, after.ended, after.objects.there)

    def reward(self, state: Tensor) -> Tensor:
        return state[:, 1]

    def ends(self, state: Tensor) -> Tensor:
        return state[:, 2] > 0

    def place(self, state: Tensor) -> Tensor:
        """[P] int64: what is 1 of the observation."""
        whole = state.to(torch.int64)
        return whole[:, 0] + (whole[:, 3:] * self._weights).sum(1)

    def observe(self, state: Tensor) -> Tensor:
        if self.numbered:
            return self.place(state)[:, None].to(torch.float64)
        return ones_at(self.place(state)[:, None], 1.0, self._size << self._count)


class RandomBatch(LifelongBatch):
    """P levels of equal grids, whose objects come up anywhere, each time anew.

    Observation: C numbers that tell where the agent is, and C for each kind of objects.

    State: the agent's cell; what it was paid and whether that was the end; what is there, and
    where.
    """

    def __init__(
        self,
        levels: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        horizon: int,
        device: str,
        restart: bool,
    ) -> None:
        count = len(levels[0]["things"])
        self.levels = Levels(levels, count, device)
        self._size = levels[0]["height"] * levels[0]["width"]
        self._planes = 1 + len(levels[0]["kinds"])
        self._count = count
        super().__init__(
            rngs, count, 2 * count + 1, self.levels.horizon.clamp(max=horizon), device, restart
        )
        self._beside = torch.zeros_like(self.levels.kinds[:, :1])
        self._offsets = self._size * torch.cat([self._beside, self.levels.kinds + 1], 1)

    def begin(self, drawn: Tensor) -> Tensor:
        start, nothing = self.levels.start, self._beside[:, 0]
        cells = self.levels.grids.free_cells(drawn, start[:, None])
        return _state(start, nothing, nothing, torch.cat([self.levels.there, cells], 1))

    def move(self, state: Tensor, actions: Tensor) -> Tensor:
        whole, n = state.to(torch.int64), self._count
        agent = self.levels.grids.move(whole[:, 0], actions)
        objects = Objects(whole[:, 3 + n :], whole[:, 3 : 3 + n] > 0)
        taken = torch.cat([agent[:, None], objects.cells], 1)
        cells = self.levels.grids.free_cells(self.chance[:, 1 + n :], taken)
        chance = Chance(self.chance[:, 1 : 1 + n], self.chance[:, 0], cells)
        after = self.levels.collect(agent, objects, chance)
        return _state(agent, after.reward, after.ended, torch.cat(after.objects[::-1], 1))

    def reward(self, state: Tensor) -> Tensor:
        return state[:, 1]

    def ends(self, state: Tensor) -> Tensor:
        return state[:, 2] > 0

    def observe(self, state: Tensor) -> Tensor:
        whole, n = state.to(torch.int64), self._count
        places = torch.cat([whole[:, :1], whole[:, 3 + n :]], 1) + self._offsets
        lit = torch.cat([self._beside + 1, whole[:, 3 : 3 + n]], 1)
        return ones_at(places, lit, self._planes * self._size)


def _state(agent: Tensor, reward: Tensor, ended: Tensor, objects: Tensor) -> Tensor:
    state = torch.empty(len(agent), 3 + objects.shape[1], dtype=torch.float64, device=agent.device)
    state[:, 0], state[:, 1], state[:, 2], state[:, 3:] = agent, reward, ended, objects
    return state
