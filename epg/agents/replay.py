"""What off-policy agents remember: their newest steps and where their episodes begin, P at once.

Shape letters: P lifetimes, N rows, M new rows, B pieces, T steps, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from epg.agents.buffer import Transitions
from epg.agents.pieces import Pieces

KEPT = ("observations", "next_observations", "actions", "rewards", "terminated")


class Episodes:
    """Where each whole episode of one life begins, and how long it is, the oldest first."""

    def __init__(self, episodes: Sequence[tuple[int, int]] = ()) -> None:
        self._rows = np.zeros((max(64, 2 * len(episodes)), 2), np.int64)
        self._rows[: len(episodes)] = np.array(episodes, np.int64).reshape(-1, 2)
        self._first, self._last = 0, len(episodes)

    def __len__(self) -> int:
        return self._last - self._first

    @property
    def table(self) -> np.ndarray:
        """[n, 2] begin and length."""
        return self._rows[self._first : self._last]

    def append(self, begun: int, count: int) -> None:
        """The newest one has ended."""
        if self._last == len(self._rows):  # to the front, and twice the room if most is taken
            kept = self.table.copy()
            if 2 * len(kept) > len(self._rows):
                self._rows = np.zeros((2 * len(self._rows), 2), np.int64)
            self._first, self._last = 0, len(kept)
            self._rows[: self._last] = kept
        self._rows[self._last] = begun, count
        self._last += 1

    def forget(self, oldest: int) -> None:
        """Those that began before a row are not whole any more."""
        while self._first < self._last and self._rows[self._first, 0] < oldest:
            self._first += 1


class Replay:
    """The newest N steps of each lifetime in a ring."""

    def __init__(
        self, lifetimes: int, length: int, observation_size: int, action_size: int,
        device: str = "cpu",
    ) -> None:  # fmt: skip
        self.length = length
        self.lived = 0
        """rows so far, those that were overwritten included"""
        self.since = [0] * lifetimes
        """rows that had been lived when each life began"""
        shape = (lifetimes, length)
        self._observations = torch.zeros(*shape, observation_size, device=device)
        self._next_observations = torch.zeros_like(self._observations)
        self._actions = torch.zeros(*shape, action_size, device=device)
        self._rewards, self._terminated = torch.zeros(2, *shape, device=device)
        self._begun = [0] * lifetimes
        self._finished = [Episodes() for _ in range(lifetimes)]

    def state(self) -> dict[str, Tensor]:
        """All of it, as tensors [P, …] of constant shapes."""
        lengths = torch.zeros(len(self._begun), self.length, dtype=torch.int32)
        for life, episodes in enumerate(self._finished):
            for begun, count in episodes.table.tolist():
                lengths[life, begun % self.length] = count
        counts = [
            [self.lived, since, begun] for since, begun in zip(self.since, self._begun, strict=True)
        ]
        return {
            **{name: getattr(self, f"_{name}").clone() for name in KEPT},
            "lengths": lengths,
            "counts": torch.tensor(counts),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state of before."""
        for name in KEPT:
            getattr(self, f"_{name}").copy_(state[name])
        counts = state["counts"].tolist()
        self.lived = counts[0][0]
        self.since = [since for _, since, _ in counts]
        self._begun = [begun for _, _, begun in counts]
        oldest = max(0, self.lived - self.length)
        # the absolute rows of all that is there, the oldest first
        rows = torch.arange(oldest, self.lived)
        found = state["lengths"][:, rows % self.length]
        self._finished = [
            Episodes([(int(rows[i]), int(life[i])) for i in life.nonzero().flatten()])
            for life in found
        ]

    def append(self, new: Transitions) -> None:
        """Take in M new steps; the oldest give way."""
        count = new.rewards.shape[1]
        rows = torch.arange(self.lived, self.lived + count) % self.length
        self._observations[:, rows] = new.observations
        self._next_observations[:, rows] = new.next_observations
        self._actions[:, rows] = new.actions
        self._rewards[:, rows] = new.rewards
        self._terminated[:, rows] = new.terminated.to(torch.float32)
        for life, row in (new.terminated | new.truncated).nonzero().tolist():
            end = self.lived + row + 1
            self._finished[life].append(self._begun[life], end - self._begun[life])
            self._begun[life] = end
        self.lived += count
        oldest = self.lived - self.length
        for episodes in self._finished:
            episodes.forget(oldest)

    @property
    def ages(self) -> list[int]:
        """[P] steps that each life has lasted."""
        return [self.lived - since for since in self.since]

    @property
    def episodes(self) -> list[int]:
        """[P] whole ones of each life."""
        return [len(each) for each in self._finished]

    def begin_anew(self, life: int) -> None:
        """Forget all of one life."""
        self.since[life] = self._begun[life] = self.lived
        self._finished[life] = Episodes()

    def newest_returns(self) -> list[float]:
        """[P] of each life's newest whole episode; NaN where there is none."""
        returns = []
        for life, episodes in enumerate(self._finished):
            begun, count = episodes.table[-1].tolist() if len(episodes) else (0, 0)
            rows = torch.arange(begun, begun + count) % self.length
            known = float(self._rewards[life, rows].sum()) if count else float("nan")
            returns.append(known)
        return returns

    def running_actions(self, life: int) -> Tensor:
        """[n, A] of the episode that runs on."""
        rows = torch.arange(self._begun[life], self.lived) % self.length
        return self._actions[life, rows]

    def steps(self, chance: Tensor) -> Pieces:
        """Single steps drawn from all that are there; chance: [P, B] in [0, 1)."""
        there = torch.tensor(self.ages, device=chance.device).clamp(1, self.length).unsqueeze(1)
        back = (chance * there).long().minimum(there - 1)
        rows = (self.lived - there + back) % self.length
        return self._pieces(rows.unsqueeze(-1), torch.ones_like(rows))

    def pieces(self, chance: Tensor, steps: int) -> Pieces:
        """Pieces of whole episodes, each as likely as any other; chance: [P, B, 2] in [0, 1).

        A piece begins anywhere in its episode where so many steps follow; an episode that is
        shorter is taken whole, with zeros behind it. All is 0 of a life without a whole episode.
        """
        starts, lengths = [], []
        for life, episodes in enumerate(self._finished):
            whole = episodes.table if len(episodes) else np.zeros((1, 2), np.int64)
            table = torch.from_numpy(whole).to(chance.device)
            count = len(table)
            chosen = table[(chance[life, :, 0] * count).long().clamp(max=count - 1)]
            room = (chosen[:, 1] - steps + 1).clamp(min=1)
            offset = (chance[life, :, 1] * room).long().clamp(max=room - 1)
            starts.append(chosen[:, 0] + offset)
            lengths.append(chosen[:, 1].clamp(max=steps))
        first, length = torch.stack(starts), torch.stack(lengths)
        rows = first.unsqueeze(-1) + torch.arange(steps, device=chance.device)
        return self._pieces(rows % self.length, length)

    def _pieces(self, rows: Tensor, lengths: Tensor) -> Pieces:
        """rows: [P, B, T]"""
        steps = torch.arange(rows.shape[2], device=rows.device)
        lived = (steps < lengths.unsqueeze(-1)).to(torch.float32)
        flat = rows.flatten(1)

        def take(values: Tensor) -> Tensor:
            if values.ndim == 2:
                return values.gather(1, flat).reshape(rows.shape) * lived
            index = flat.unsqueeze(-1).expand(-1, -1, values.shape[-1])
            return values.gather(1, index).reshape(*rows.shape, -1) * lived.unsqueeze(-1)

        return Pieces(
            take(self._observations), take(self._actions), take(self._rewards),
            take(self._terminated), take(self._next_observations), lengths,
        )  # fmt: skip
