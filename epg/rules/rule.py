"""What a rule is: how an agent learns, as a function of its parameters θ, of η, which tunes the
rule, and of what was lived; and how η is judged by what became of θ.

Shape letters: P agents, T steps, R rows, O observation, K policy outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from epg.agents.distributions import Distribution
from epg.agents.network import Parameters
from epg.agents.optimizers import State, Stepped, clip_by_norm
from epg.rules.rollout import Rollout


class Optimizer(Protocol):
    """One of `epg.agents.optimizers`."""

    def init(self, parameters: Parameters) -> State:
        """Before the first step."""

    def step(self, parameters: Parameters, state: State, gradients: Parameters) -> Stepped:
        """New parameters and state."""


@dataclass(frozen=True)
class Fixed:
    """What counts as constant where η is judged: targets, advantages and the like are of these."""

    eta: Parameters
    """η as it is"""
    theta: Parameters
    """θ after K updates"""
    start: Parameters
    """θ before them"""
    moments: State
    """of θ's optimiser, after them"""

    @classmethod
    def of(cls, eta: Parameters, theta: Parameters, start: Parameters, moments: State) -> Fixed:
        """Of what may have a graph."""
        return cls(
            *(
                {name: p.detach() for name, p in each.items()}
                for each in (eta, theta, start, moments)
            )
        )


class Rule(ABC):
    """How P agents learn. Every leaf of θ and η is [P, …], and agents never mix.

    What must not be moved by a loss is read from `frozen`, the same numbers as θ, in which the
    caller does not differentiate; rules detach data alone: what an action's probability was, and an
    η that is an input.
    """

    distribution: Distribution
    ahead: int = 0
    """rollouts between those that η's graph goes through and the one that judges"""
    same_rollout: bool = False
    """whether what was learned is judged on the rollout that it was learned from"""

    @abstractmethod
    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One agent's θ at first."""

    @abstractmethod
    def init_eta(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One agent's η at first, of its free numbers; empty if nothing is learned."""

    @abstractmethod
    def loss(
        self, eta: Parameters, theta: Parameters, frozen: Parameters, rollout: Rollout
    ) -> Tensor:
        """[P] what agents go down."""

    @abstractmethod
    def outer(
        self, eta: Parameters, learned: Parameters, fixed: Fixed, rollouts: Sequence[Rollout],
        update: Update,
    ) -> Tensor:  # fmt: skip
        """[P] what η goes down: how good θ is after K updates.

        learned: θ after them, which hangs on η; fixed: all that counts as constant; rollouts:
        `ahead` of them and the one that judges; update: how θ moves.
        """

    @abstractmethod
    def acting(self, eta: Parameters, theta: Parameters) -> Parameters:
        """The policies that act, as networks "policy"; see `HeadedNetworks.acting`."""

    @abstractmethod
    def outputs(self, eta: Parameters, theta: Parameters, observations: Tensor) -> Tensor:
        """[P, R, K] of the policies that act."""

    def shown(self, eta: Parameters, rollout: Rollout | None = None) -> dict[str, Tensor]:
        """Numbers [P] by name that say what η has come to, for people; on a rollout, if any, where
        they hang on one."""
        return {}


@dataclass(frozen=True)
class Update:
    """How θ moves: by a rule's gradient, clipped for each agent by itself, and an optimiser."""

    rule: Rule
    optimizer: Optimizer
    clip: float | None = None
    """most that the norm of an agent's gradient may be"""
    exact: bool = True
    """whether η's gradient goes through what θ says in its own targets, too; see
    docs/within-a-life.md: it is the same where only one update hangs on η"""

    def __call__(
        self, eta: Parameters, theta: Parameters, moments: State, rollout: Rollout,
        graph: bool = True,
    ) -> tuple[Parameters, State]:  # fmt: skip
        """θ and moments after an update; with their graph in θ, moments and η, or cut from it."""
        if not graph:
            eta = {name: p.detach() for name, p in eta.items()}
            theta = {name: p.detach() for name, p in theta.items()}
        theta, seen, frozen = views_of(theta, self.exact and graph)
        loss = self.rule.loss(eta, seen, frozen, rollout)
        return descend(loss, seen, theta, moments, self.optimizer, self.clip, graph)


def descend(
    loss: Tensor, seen: Parameters, theta: Parameters, moments: State, optimizer: Optimizer,
    clip: float | None = None, graph: bool = True,
) -> tuple[Parameters, State]:  # fmt: skip
    """θ and moments after a step down a loss [P] of what it has `seen` of θ."""
    found = torch.autograd.grad(
        loss.sum(), list(seen.values()), create_graph=graph, materialize_grads=True
    )
    gradients = dict(zip(seen, found, strict=True))
    if clip is not None:
        gradients = clip_by_norm(gradients, clip, epsilon=0.0)
    if graph:
        return optimizer.step(theta, moments, gradients)
    with torch.no_grad():
        theta, moments = optimizer.step(theta, moments, gradients)
    return {name: p.detach() for name, p in theta.items()}, moments


def views_of(theta: Parameters, exact: bool) -> tuple[Parameters, Parameters, Parameters]:
    """θ, the same as a loss sees it, in which alone it is differentiated, and as it counts as
    constant; exact: whether that has a graph all the same."""
    theta = {n: p if p.requires_grad else p.detach().requires_grad_() for n, p in theta.items()}
    seen = {name: p.view_as(p) for name, p in theta.items()}
    return theta, seen, theta if exact else {name: p.detach() for name, p in theta.items()}


def meta_gradient(outer: Tensor, eta: Parameters) -> Parameters:
    """Of what η goes down, [P], by each leaf of η.

    Raises `RuntimeError` for a leaf that no gradient reaches: the graph was cut, or a rule does not
    read it.
    """
    found = torch.autograd.grad(outer.sum(), list(eta.values()), allow_unused=True)
    for name, gradient in zip(eta, found, strict=True):
        if gradient is None:
            raise RuntimeError(f"η: no gradient reaches {name!r}")
    return dict(zip(eta, found, strict=True))


def entropy_of(distribution: Distribution, outputs: Tensor) -> Tensor:
    """[P] mean over rows [P, R, K]."""
    return distribution.entropy(outputs).mean(1)
