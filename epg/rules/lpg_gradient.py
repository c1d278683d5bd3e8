"""How LPG is judged: by the advantages of agents that went down it for K updates, and by how little
they and it went to extremes (Oh et al. 2020, arXiv 2007.08794, equation 6).

Shape letters: P agents, W environments of each, T steps, K updates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from epg.agents.network import Parameters
from epg.agents.optimizers import State, Stepped, clip_by_norm
from epg.rules.lpg import Lpg
from epg.rules.rollout import Rollout
from epg.rules.rule import Optimizer, descend, views_of


@dataclass(frozen=True)
class Apart:
    """An optimiser for each of several networks, whose gradients are clipped apart.

    parts: by the first word of parameters' names; clip: most that the norm of an agent's gradient
    of one network may be.
    """

    parts: Mapping[str, Optimizer]
    clip: float | None = None

    def init(self, parameters: Parameters) -> State:
        """The states of all, each name after that of its part."""
        return {
            f"{part}:{name}": tensor
            for part, optimizer in self.parts.items()
            for name, tensor in optimizer.init(_of(part, parameters)).items()
        }

    def step(self, parameters: Parameters, state: State, gradients: Parameters) -> Stepped:
        """New parameters and states."""
        moved: Parameters = {}
        after: State = {}
        for part, optimizer in self.parts.items():
            mine = _of(part, gradients)
            if self.clip is not None:
                mine = clip_by_norm(mine, self.clip, epsilon=0.0)
            before = {n.removeprefix(f"{part}:"): t for n, t in state.items() if _is(n, part)}
            some, later = optimizer.step(_of(part, parameters), before, mine)
            moved |= some
            after |= {f"{part}:{name}": tensor for name, tensor in later.items()}
        return moved, after


def _of(part: str, parameters: Parameters) -> Parameters:
    return {name: p for name, p in parameters.items() if name.startswith(f"{part}.")}


def _is(name: str, part: str) -> bool:
    return name.startswith(f"{part}:")


@dataclass(frozen=True)
class Regularisers:
    """Weights beside the advantages in what η goes down (GROOVE's)."""

    policy_entropy: float = 0.05
    """β₀"""
    prediction_entropy: float = 0.001
    """β₁"""
    policy_size: float = 0.005
    """β₂, of π̂ squared"""
    prediction_size: float = 0.001
    """β₃, of ŷ squared"""


@dataclass(frozen=True)
class LpgGradient:
    """K updates down a rule, and what the rule goes down."""

    rule: Lpg
    optimizer: Apart
    weights: Regularisers = Regularisers()
    exact: bool = True
    """whether η's gradient goes through what the rule reads of θ in later updates, too"""

    def update(
        self, eta: Parameters, theta: Parameters, moments: State, rollout: Rollout,
        age: Tensor | None = None, graph: bool = True,
    ) -> tuple[Parameters, State, dict[str, Tensor]]:  # fmt: skip
        """θ and moments after an update, with their graph or cut from it, and what is noted of it:
        by name [P], entropies after it, squares of what the rule said, and the prediction's loss.
        """
        if not graph:
            theta = {name: p.detach() for name, p in theta.items()}
        theta, seen, frozen = views_of(theta, self.exact and graph)
        with torch.set_grad_enabled(graph):
            said = self.rule.said(eta, frozen, rollout, age)
        policy, prediction = self.rule.loss_of(said, seen, rollout)
        loss = policy + self.rule.prediction_weight * prediction
        theta, moments = descend(loss, seen, theta, moments, self.optimizer, graph=graph)
        with torch.set_grad_enabled(graph):
            entropies = self.rule.entropies(theta, rollout)
            noted = {
                "policy_entropy": entropies[0],
                "prediction_entropy": entropies[1],
                "policy_size": said.policy.square().mean((1, 2)),
                "prediction_size": said.prediction.square().sum(-1).mean((1, 2)),
                "prediction_loss": prediction,
            }
        return theta, moments, noted

    def updates(
        self, eta: Parameters, theta: Parameters, moments: State, rollouts: Sequence[Rollout],
        ages: Sequence[Tensor | None] | None = None,
    ) -> tuple[Parameters, State, dict[str, Tensor]]:  # fmt: skip
        """θ and moments after an update on each of K rollouts, and means of what was noted of them;
        ages: of the agents at each update, where the rule reads them."""
        noted = []
        for k, rollout in enumerate(rollouts):
            age = ages[k] if ages else None
            theta, moments, told = self.update(eta, theta, moments, rollout, age)
            noted.append(told)
        return theta, moments, mean_of(noted)

    def loss(
        self, learned: Parameters, noted: Mapping[str, Tensor], rollout: Rollout, advantages: Tensor
    ) -> Tensor:
        """[P] what η goes down; learned: θ after K updates, of which `noted` tells; advantages:
        [P, W·T] of the next rollout, constant, by a value net that nothing else reads."""
        weights = self.weights
        gained = (advantages * self.rule.log_chosen(learned, rollout)).mean(1)
        return (
            weights.policy_size * noted["policy_size"]
            + weights.prediction_size * noted["prediction_size"]
            - weights.policy_entropy * noted["policy_entropy"]
            - weights.prediction_entropy * noted["prediction_entropy"]
            - gained
        )


def mean_of(noted: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """By name [P], over K updates."""
    return {name: torch.stack([each[name] for each in noted]).mean(0) for name in noted[0]}
