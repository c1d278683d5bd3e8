"""Chains: states one after the other, nothing to decide, values to predict.

Xu, van Hasselt & Silver 2018: https://arxiv.org/abs/1805.09801
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from epg.tasks.base import Batch, Mdp, Task
from epg.tasks.native import LifelongBatch, one_hot

STATES = 10
SIGNAL = 0.1


class _ChainTask(Task):
    """What both tasks share: the only action moves on; an episode ends after the last state."""

    action_size = 1
    discrete = True
    horizon = 2 * STATES  # never reached
    kind: type[ChainBatch]

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        return self.kind(rngs, _start, _noise, self.horizon, device, restart)


def _start(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return np.zeros((n, 1))


def _noise(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return rng.standard_normal((n, 1))


class ChainBatch(LifelongBatch):
    """P chains; state: how many states have been left."""

    @abstractmethod
    def pay(self, left: Tensor) -> Tensor:
        """The reward [P] of leaving these states [P]."""

    def move(self, state: Tensor, actions: Tensor) -> Tensor:
        return state + 1

    def reward(self, state: Tensor) -> Tensor:
        return self.pay(state[:, 0] - 1)

    def ends(self, state: Tensor) -> Tensor:
        return state[:, 0] >= STATES

    def observe(self, state: Tensor) -> Tensor:
        return one_hot(state[:, 0], STATES)


class SignalBatch(ChainBatch):
    """P chains whose even states pay the signal, and the odd ones noise."""

    def pay(self, left: Tensor) -> Tensor:
        return torch.where(left % 2 == 0, SIGNAL, self.chance[:, 0])


class AliasedBatch(ChainBatch):
    """P chains whose states pay the same, and whose odd states look the same."""

    def pay(self, left: Tensor) -> Tensor:
        return SIGNAL + self.chance[:, 0]

    def observe(self, state: Tensor) -> Tensor:
        at = state[:, 0]
        feature = torch.where(at % 2 == 0, at / 2, STATES // 2)
        return one_hot(feature, STATES // 2 + 1) * (at < STATES)[:, None]


class SignalChain(_ChainTask):
    """Observation: the state, one-hot; zeros after the last."""

    name = "signal-chain"
    summary = "predict a chain whose even states pay 0.1 and whose odd states pay noise"
    observation_size = STATES
    kind = SignalBatch


class AliasedChain(_ChainTask):
    """Observation: a feature for each even state, one for all odd states; zeros after the last."""

    name = "aliased-chain"
    summary = "predict a chain that pays 0.1 and noise, and whose odd states look the same"
    observation_size = STATES // 2 + 1
    kind = AliasedBatch
