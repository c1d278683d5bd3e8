"""Delayed chains: the first action of an episode decides what its end pays.

Oh et al. 2020: https://arxiv.org/abs/2007.08794. Which action is the good one is drawn with the
chain, so that it can be learned in a life.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from epg.tasks.base import Batch, Mdp, Task, Varied
from epg.tasks.native import LifelongBatch, one_hot

LONGEST = 50
NOISE_BITS = 20
START, GOOD, BAD = 0, 1, 2
"""Where an episode is: before the first action, on the chain that pays 1, on the one of -1."""


class DelayedChainBatch(LifelongBatch):
    """P chains; state: steps done; START, GOOD or BAD; what the last one paid; 20 bits of noise."""

    def __init__(
        self,
        mdps: Sequence[Mdp],
        size: int,
        rngs: Sequence[np.random.Generator],
        horizon: int,
        device: str,
        restart: bool,
    ) -> None:
        """`size` of an observation."""
        super().__init__(rngs, 1, 2, horizon, device, restart)
        self._size = size
        self._length = torch.tensor([m["length"] for m in mdps], device=device)
        self._good = torch.tensor([m["good"] for m in mdps], device=device)

    def begin(self, drawn: Tensor) -> Tensor:
        nothing = torch.zeros_like(drawn)
        return torch.cat([nothing, nothing + START, nothing, _bits(drawn)], 1)

    def move(self, state: Tensor, actions: Tensor) -> Tensor:
        done, at = state[:, 0] + 1, state[:, 1]
        at = torch.where(at == START, torch.where(actions == self._good, GOOD, BAD), at)
        end = torch.where(at == GOOD, 1.0, -1.0)
        paid = torch.where(done >= self._length, end, self.inner(done))
        return torch.stack([done, at, paid, _bits(self.chance[:, 0])], 1)

    def inner(self, done: Tensor) -> Tensor:
        """The reward [P] of that many steps [P], where they are not the last."""
        return torch.zeros_like(done)

    def reward(self, state: Tensor) -> Tensor:
        return state[:, 2]

    def ends(self, state: Tensor) -> Tensor:
        return state[:, 0] >= self._length

    def observe(self, state: Tensor) -> Tensor:
        done, at = state[:, 0], state[:, 1]
        place = torch.where(at == BAD, done + self._length - 1, done)
        return one_hot(torch.where(self.ends(state), self._size, place), self._size)


class NoisyChainBatch(DelayedChainBatch):
    """P chains whose inner states pay 1 or -1, as it happens."""

    def inner(self, done: Tensor) -> Tensor:
        return torch.where(done > 1, self.noise(), 0.0)

    def noise(self) -> Tensor:
        """[P]: 1 or -1."""
        return torch.where(self.chance[:, 1] < 0.5, -1.0, 1.0)


class DistractingChainBatch(DelayedChainBatch):
    """P chains of which 2 bits are seen, on the good one and on the bad one, beside 20 of noise."""

    def observe(self, state: Tensor) -> Tensor:
        at, noise = state[:, 1], state[:, 3].to(torch.int64)
        bits = (noise[:, None] >> torch.arange(NOISE_BITS, device=noise.device)) & 1
        return torch.cat([torch.stack([at == GOOD, at == BAD], 1), bits], 1).to(torch.float64)


class DelayedChain(Task):
    """Two actions, of which the first takes to one of two chains; the others do nothing.

    Observation: 0 at the start, then 1 to length - 1 on the good chain, or length to
    2 length - 2 on the bad one, one-hot; zeros after the end.
    """

    name = "delayed-chain"
    summary = "take the first action that is paid when the episode ends; a chain of drawn length"
    observation_size = 2 * LONGEST - 1
    action_size = 2
    discrete = True
    horizon = LONGEST
    varied = (
        Varied("length", 5, 30, "steps", "of an episode", allowed=(2, LONGEST), whole=True),
        Varied("good", 0, 1, "", "the first action that pays; not observed", whole=True),
    )
    kind: type[DelayedChainBatch] = DelayedChainBatch

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        return self.kind(mdps, self.observation_size, rngs, self.horizon, device, restart)


class NoisyChain(DelayedChain):
    """Observation: as of a delayed chain. Steps between the first and the last pay 1 or -1."""

    name = "delayed-chain-noisy"
    summary = "a delayed chain whose inner steps pay 1 or -1 whatever one does"
    kind = NoisyChainBatch


class DistractingChain(DelayedChain):
    """Observation: whether on the good chain, whether on the bad one, and 20 bits of noise."""

    name = "delayed-chain-distract"
    summary = "a delayed chain of which two bits are seen, among 20 that mean nothing"
    observation_size = 2 + NOISE_BITS
    kind = DistractingChainBatch


def _bits(drawn: Tensor) -> Tensor:
    """20 bits in one whole number, of numbers in [0, 1)."""
    return (drawn * float(2**NOISE_BITS)).floor()
