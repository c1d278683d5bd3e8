"""What states are worth, for judging alone: no agent reads it.

Shape letters: P agents, R rows, O observation, S states.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from epg.agents.network import Parameters, layer_shapes, mlp
from epg.agents.optimizers import Adam, State
from epg.agents.spec import Shapes, init_flat
from epg.rules.returns import lambda_returns
from epg.rules.rollout import Rollout
from epg.rules.rule import descend, views_of

TABLE_SHARE = 0.3
"""Of the way to the target that a visit takes a table's entry."""
NETWORK_RATE = 3e-3
PASSES = 4
"""Steps of Adam's that a network takes on a rollout."""


@dataclass(frozen=True)
class OuterValue:
    """A table of S states, or a network, for each of P agents."""

    observation_size: int
    """S for tables"""
    hidden: tuple[int, ...] = ()
    """empty for tables"""
    discount: float = 0.99
    smoothing: float = 0.95

    @property
    def shapes(self) -> Shapes:
        """Of one agent."""
        if not self.hidden:
            return {"value.table": (self.observation_size,)}
        return layer_shapes("value", (self.observation_size, *self.hidden, 1))

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One agent's parameters at first: tables of 0, small networks."""
        if not self.hidden:
            return {name: np.zeros(shape, np.float32) for name, shape in self.shapes.items()}
        flat, found, first = init_flat(rng, self.shapes), {}, 0
        for name, shape in self.shapes.items():
            found[name] = flat[first : first + int(np.prod(shape))].reshape(shape)
            first += found[name].size
        return found

    def moments(self, theta: Parameters) -> State:
        """Before the first step."""
        return Adam(NETWORK_RATE).init(theta) if self.hidden else {}

    def of(self, theta: Parameters, observations: Tensor) -> Tensor:
        """[P, R] of observations [P, R, O], or of the numbers of states [P, R]."""
        if not self.hidden:
            return theta["value.table"].gather(1, observations)
        layers = len(self.hidden) + 1
        return mlp(theta, "value", layers, observations, "relu", differentiable=True).squeeze(-1)

    @torch.no_grad()
    def targets(self, theta: Parameters, rollout: Rollout) -> Tensor:
        """[P, R] λ-returns."""
        following = self.of(theta, rollout.next_observations)
        return lambda_returns(
            rollout.rewards, self.discount * rollout.going_on, following, rollout.joined,
            self.smoothing,
        )  # fmt: skip

    def advantages(self, theta: Parameters, rollout: Rollout) -> Tensor:
        """[P, R] λ-returns above the values, standardised over each agent's rows."""
        with torch.no_grad():
            raw = self.targets(theta, rollout) - self.of(theta, rollout.observations)
            centred = raw - raw.mean(1, keepdim=True)
            return centred / (centred.square().mean(1, keepdim=True).sqrt() + 1e-8)

    def learn(
        self, theta: Parameters, moments: State, rollout: Rollout
    ) -> tuple[Parameters, State]:
        """Moved towards the targets of a rollout."""
        targets = self.targets(theta, rollout)
        if not self.hidden:
            table = _moved(theta["value.table"], rollout.observations, targets)
            return {"value.table": table}, moments
        for _ in range(PASSES):
            theta, seen, _ = views_of({n: p.detach() for n, p in theta.items()}, False)
            loss = 0.5 * (self.of(seen, rollout.observations) - targets).square().mean(1)
            theta, moments = descend(
                loss, seen, theta, moments, Adam(NETWORK_RATE), clip=1.0, graph=False
            )
        return theta, moments


def _moved(table: Tensor, states: Tensor, targets: Tensor) -> Tensor:
    """A table [P, S] moved towards the mean of the targets [P, R] of each state [P, R], the further
    the more of them there are."""
    count = torch.zeros_like(table).scatter_add_(1, states, torch.ones_like(targets))
    total = torch.zeros_like(table).scatter_add_(1, states, targets)
    share = 1 - (1 - TABLE_SHARE) ** count
    return table + share * (total / count.clamp(min=1) - table)
