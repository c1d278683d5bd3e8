"""All randomness: from (run seed, purpose, step, member, stream), never from clock or rank.

The numbers below are part of every published result: never change one, only add.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Purpose(IntEnum):
    """What a lifetime is for. No two purposes ever share a random number."""

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
    LENGTH = 11
    ARM = 12


@dataclass(frozen=True)
class LifetimeSeed:
    """What the randomness of a lifetime is seeded with. Both lifetimes of a pair share one.

    step: of the outer loop; member: its number in that step, of a pair or of a lifetime; mdp: which
    of the MDPs on which one member is judged.
    """

    run: int
    purpose: Purpose
    step: int
    member: int
    mdp: int = 0

    def rng(self, stream: Stream, *more: int) -> np.random.Generator:
        """A fresh generator for one stream; `more` tells apart several of the same stream."""
        entropy = (self.run, self.purpose, self.step, self.member, stream)
        return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(self.mdp, *more)))


class LifetimeSeeds:
    """The seeds of P lifetimes in one batch, some of them shared.

    distinct: the F different ones; index: [P], which of them each lifetime has.
    """

    def __init__(
        self, distinct: Sequence[LifetimeSeed], index: Sequence[int], device: str = "cpu"
    ) -> None:
        self.distinct = list(distinct)
        self.index = list(index)
        self.device = device
        self._index = torch.as_tensor(self.index, device=device)
        self._rngs: dict[Stream, list[np.random.Generator]] = {}

    @classmethod
    def of(
        cls, run: int, purpose: Purpose, first: int, count: int, device: str = "cpu", step: int = 0
    ) -> LifetimeSeeds:
        """Those of lifetimes `first`, …, `first + count − 1`, each with one of its own."""
        each = [LifetimeSeed(run, purpose, step, first + i) for i in range(count)]
        return cls(each, range(count), device)

    def __len__(self) -> int:
        return len(self.index)

    def those(self, lifetimes: Sequence[int]) -> LifetimeSeeds:
        """Of some of the lifetimes, all streams at their beginning."""
        index = [self.index[i] for i in lifetimes]
        used = sorted(set(index))
        distinct = [self.distinct[i] for i in used]
        return LifetimeSeeds(distinct, [used.index(i) for i in index], self.device)

    def each(self) -> list[LifetimeSeed]:
        """The seed of every lifetime, P of them."""
        return [self.distinct[i] for i in self.index]

    def replace(self, lifetime: int, seed: LifetimeSeed) -> None:
        """One lifetime, none of which share a seed, goes on with another."""
        self.distinct[lifetime] = seed
        for stream, rngs in self._rngs.items():
            rngs[lifetime] = seed.rng(stream)

    def states(self, stream: Stream) -> Tensor:
        """[P, 6] int64: where a stream of each lifetime stands."""
        rngs = self._rngs.get(stream) or [seed.rng(stream) for seed in self.distinct]
        return torch.stack([pack(rng.bit_generator.state) for rng in rngs])

    def load_states(self, stream: Stream, states: Tensor) -> None:
        """Go on from there."""
        self._rngs[stream] = [unpack(state) for state in states]

    def restart(self, stream: Stream) -> None:
        """The next `draw` of a stream begins it anew."""
        self._rngs.pop(stream, None)

    def draw(self, stream: Stream, sample: Callable[[np.random.Generator], np.ndarray]) -> Tensor:
        """`sample` once per distinct seed, on from where its stream stands: [P, *its shape]."""
        if stream not in self._rngs:
            self._rngs[stream] = [seed.rng(stream) for seed in self.distinct]
        drawn = np.stack([sample(rng) for rng in self._rngs[stream]])
        return torch.from_numpy(drawn).to(self.device)[self._index]


HALF = 2**64


def pack(state: Mapping[str, Any]) -> Tensor:
    """[6] int64 of the state of a generator's bits."""
    halves = [half for n in state["state"].values() for half in divmod(n, HALF)]
    numbers = [*halves, state["has_uint32"], state["uinteger"]]
    return torch.from_numpy(np.array(numbers, dtype=np.uint64).view(np.int64))


def unpack(packed: Tensor) -> np.random.Generator:
    """A generator that goes on from there."""
    a, b, c, d, has, uinteger = map(int, packed.cpu().numpy().view(np.uint64))
    bits = np.random.PCG64()
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": a * HALF + b, "inc": c * HALF + d},
        "has_uint32": has,
        "uinteger": uinteger,
    }
    return np.random.Generator(bits)
