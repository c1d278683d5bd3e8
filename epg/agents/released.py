"""Agents as the released EPG code has them: its defects 9 and 10 (docs/released-epg.md)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from epg.agents.actor_critic import ActorCritic
from epg.agents.adam import ADAM_EPSILON, BETAS, FusedAdam
from epg.agents.buffer import Buffer, Transitions
from epg.agents.network import Parameters
from epg.agents.spec import AgentSpec


class ReleasedActorCritic(ActorCritic):
    """Counts all of the buffer anew in every update, and shows losses a constant signal."""

    def __init__(self, spec: AgentSpec, parameters: Parameters, train_memory: bool) -> None:
        super().__init__(spec, parameters, train_memory)
        self._signals = self._statistics(1)

    def counted(self, buffer: Buffer, new: Transitions) -> slice:
        return slice(buffer.length - buffer.filled, None)

    def auxiliary(self, buffer: Buffer, counted: slice, lived: Tensor) -> Tensor | None:
        signal = torch.ones_like(buffer.rewards).unsqueeze(-1)
        self._signals.add(signal[:, counted])
        return (self._signals.normalise(signal) * lived).squeeze(-1)


class ReleasedAdam(FusedAdam):
    """Adam whose ε stands outside the bias correction."""

    def epsilon(self, steps: int) -> float:
        return ADAM_EPSILON / math.sqrt(1 - BETAS[1] ** steps)
