"""All randomness: from (run seed, purpose, generation, pair, stream), never from clock or rank.

The numbers below are part of every published result: never change one, only add.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor


class Purpose(IntEnum):
    """What is being lived for. No two purposes ever share a random number."""

    START = 0
    TRAINING = 1
    VALIDATION = 2
    EVALUATION = 3
    TUNING = 4
    ESTIMATE = 5


class Stream(IntEnum):
    """What is being drawn."""

    EPSILON = 0
    MDP = 1
    MDP_OF_GENERATION = 2
    AGENT = 3
    RESET = 4
    ACTION = 5
    MINIBATCH = 6
    FINAL_RESET = 7
    FINAL_ACTION = 8
    LOSS = 9
    ANOTHER_LIBRARY = 10


@dataclass(frozen=True)
class Fate:
    """All the chance in a lifetime. The two lifetimes of an antithetic pair share one fate.

    `mdp` counts the MDPs on which one pair is judged.
    """

    seed: int
    purpose: Purpose
    generation: int
    pair: int
    mdp: int = 0

    def rng(self, stream: Stream, *more: int) -> np.random.Generator:
        """A fresh generator for one stream; `more` tells apart several of the same stream."""
        entropy = (self.seed, self.purpose, self.generation, self.pair, stream)
        return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(self.mdp, *more)))


class Fates:
    """The fates of P lifetimes that live in one batch, some of them shared.

    fates: the F different ones; owner: [P], which of them each lifetime has.
    """

    def __init__(self, fates: Sequence[Fate], owner: Sequence[int], device: str = "cpu") -> None:
        self.fates = list(fates)
        self.owner = list(owner)
        self.device = device
        self._index = torch.as_tensor(self.owner, device=device)
        self._rngs: dict[Stream, list[np.random.Generator]] = {}

    def __len__(self) -> int:
        return len(self.owner)

    def each(self) -> list[Fate]:
        """The fate of every lifetime, P of them."""
        return [self.fates[i] for i in self.owner]

    def draw(self, stream: Stream, sample: Callable[[np.random.Generator], np.ndarray]) -> Tensor:
        """`sample` once per fate, on from where its stream stands: [P, *shape of a sample]."""
        if stream not in self._rngs:
            self._rngs[stream] = [fate.rng(stream) for fate in self.fates]
        drawn = np.stack([sample(rng) for rng in self._rngs[stream]])
        return torch.from_numpy(drawn).to(self.device)[self._index]
