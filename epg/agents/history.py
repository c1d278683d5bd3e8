"""The newest steps of agents of one's own, as a learned loss wants to see them.

Shape letters: P agents, N buffer rows, O observation, A action, H memory.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from epg.agents.buffer import Buffer, Transitions
from epg.agents.normalizer import RunningStatistics
from epg.agents.spec import MEMORY_INPUTS, AgentSpec, init_flat, unflatten

Judged = tuple[Tensor, Tensor, Tensor, Tensor]


class History(nn.Module):
    """A buffer, running means and variances, and a memory, for P agents.

    Its parameters are those of the memory; they belong to the agents' optimiser.
    """

    def __init__(self, spec: AgentSpec, length: int, agents: int = 1, seed: int = 0) -> None:
        """spec: of a loss, `loss.spec`; length: N; seed: of the memory's first parameters."""
        super().__init__()
        self._distribution = spec.distribution
        self._buffer = Buffer(
            agents, length, spec.observation_size, spec.action_size, spec.discrete
        )
        self._observations = RunningStatistics(agents, spec.observation_size)
        self._actions = RunningStatistics(agents, spec.action_size)
        self._waiting: list[tuple[Tensor, ...]] = []
        shapes = spec.memory_shapes()
        drawn = [init_flat(np.random.default_rng([seed, i]), shapes) for i in range(agents)]
        weight, bias = unflatten(torch.from_numpy(np.stack(drawn)), shapes).values()
        self._weight, self._bias = nn.Parameter(weight), nn.Parameter(bias)

    def normalise(self, observations: Tensor) -> Tensor:
        """Observations [P, O] as a policy is to see them: by what was counted so far."""
        return self._observations.normalise(observations.float().unsqueeze(1)).squeeze(1)

    def add(self, observations: Tensor, actions: Tensor, rewards: Tensor, dones: Tensor) -> None:
        """A step of each agent, counted with the next `judged`.

        observations: [P, O] as observed; actions: [P, A], or [P] int64 if discrete; rewards: [P];
        dones: [P] bool, whether the episode ended.
        """
        step = (observations.float(), actions, rewards.float(), dones.bool())
        self._waiting.append(tuple(part.detach() for part in step))

    @torch.no_grad()
    def judged(self) -> Judged:
        """What the loss sees: observations [P, N, O], actions [P, N, A], rewards, dones [P, N].

        Oldest first, normalised, zeros in front while fewer than N were lived. To be asked for once
        an update: the steps that were added since are counted first.
        """
        buffer, new = self._buffer, len(self._waiting)
        if new > buffer.length:
            raise ValueError(f"{new} steps were added, more than the {buffer.length} of the buffer")
        if new:
            self._take_in()
        encoded = self._distribution.encode(buffer.actions)
        if new:
            self._observations.add(buffer.observations[:, -new:])
            self._actions.add(encoded[:, -new:])
        lived = torch.zeros(buffer.length, 1)
        lived[buffer.length - buffer.filled :] = 1.0
        return (
            self._observations.normalise(buffer.observations) * lived,
            self._actions.normalise(encoded) * lived,
            buffer.rewards,
            buffer.dones,
        )

    def memory(self) -> Tensor:
        """What each agent remembers beyond its buffer, [P, H], with gradient."""
        ones = self._weight.new_ones(len(self._weight), 1, MEMORY_INPUTS)
        return torch.tanh(torch.baddbmm(self._bias.unsqueeze(1), ones, self._weight)).squeeze(1)

    def _take_in(self) -> None:
        observations, actions, rewards, dones = (
            torch.stack(parts, 1) for parts in zip(*self._waiting, strict=True)
        )
        never = torch.zeros_like(dones)
        self._buffer.append(Transitions(observations, actions, rewards, dones, never, observations))
        self._waiting.clear()
