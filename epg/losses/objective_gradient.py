"""How an objective is judged by what a critic thinks of policies that went down it, and its
gradient through their steps (MetaGenRL: Kirsch et al. 2020, arXiv 1910.04098, equations 5 to 7).

Shape letters: P agents, B pieces, T steps, K inner steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from epg.agents.deterministic import DeterministicNetworks
from epg.agents.network import Parameters
from epg.agents.optimizers import Sgd, clip_by_norm
from epg.agents.pieces import Pieces
from epg.losses.lstm import LstmObjective

INNER_RATE = 1e-3
"""Of the inner steps' gradient descent, whose loss is a sum over pieces and steps."""


@dataclass(frozen=True)
class ObjectiveGradient:
    """Networks that learn by an objective, and the objective's own loss."""

    networks: DeterministicNetworks
    objective: LstmObjective
    inner_rate: float = INNER_RATE

    def judged(
        self, alpha: Parameters, live: Parameters, policy: Parameters, pieces: Pieces
    ) -> Tensor:
        """[P, B, T] the objective of every step; 0 in padding. live: all networks, of which the
        critic alone is used; policy: the one that learns."""
        frozen = {name: p.detach() for name, p in (live | policy).items()}
        values = self.networks.state_values(frozen, pieces)
        actions = self.networks.act(policy, pieces.observations)
        return pieces.mask * self.objective.judge(alpha, pieces, actions, values)

    def policy_loss(
        self, alpha: Parameters, live: Parameters, policy: Parameters, pieces: Pieces,
        share: Tensor | float = 1.0,
    ) -> Tensor:  # fmt: skip
        """[P] what policies go down: the objective, and for 1 − share of it the critic's value;
        share: one for all, or [P]."""
        loss = self.judged(alpha, live, policy, pieces).mean((1, 2))
        if (torch.as_tensor(share) < 1).any():
            loss = share * loss - (1 - share) * self._valued(live, policy, pieces).mean((1, 2))
        return loss

    def inner_steps(
        self, alpha: Parameters, live: Parameters, policy: Parameters, parts: list[Pieces]
    ) -> list[Parameters]:
        """The policies after each of K steps down the objective, a part of the pieces a step; they
        hang on α by all derivatives. policy: leaves that require a gradient."""
        sgd, policies = Sgd(self.inner_rate), []
        for part in parts:
            total = self.judged(alpha, live, policy, part).sum()
            names = list(policy)
            found = torch.autograd.grad(total, [policy[n] for n in names], create_graph=True)
            policy, _ = sgd.step(policy, {}, dict(zip(names, found, strict=True)))
            policies.append(policy)
        return policies

    def gradient(
        self, alpha: Parameters, live: Parameters, pieces: Pieces, inner_steps: int
    ) -> tuple[Parameters, Tensor]:
        """The gradient of the objective's loss, each leaf [P, …], of each agent clipped to norm 1
        by itself, and its norm before that, [P].

        alpha: [P, …], of each agent; pieces: [P, (K + 1) B, …], of which each of the K inner steps
        sees B, and the loss all.
        """
        alpha = {name: p.detach().requires_grad_() for name, p in alpha.items()}
        policy = {
            name: p.detach().requires_grad_()
            for name, p in live.items()
            if name.startswith("policy")
        }
        count = pieces.rewards.shape[1] // (inner_steps + 1)
        parts = [pieces.part(i * count, count) for i in range(inner_steps)]
        learned = self.inner_steps(alpha, live, policy, parts)[-1]
        found = torch.autograd.grad(self.loss(live, learned, pieces).sum(), list(alpha.values()))
        gradients = dict(zip(alpha, found, strict=True))
        norm = torch.stack([g.flatten(1).square().sum(1) for g in found]).sum(0).sqrt()
        return clip_by_norm(gradients, 1.0), norm

    def loss(self, live: Parameters, policy: Parameters, pieces: Pieces) -> Tensor:
        """[P] what the objective goes down: less of what the critic thinks of its policies."""
        return -self._valued(live, policy, pieces).mean((1, 2))

    def _valued(self, live: Parameters, policy: Parameters, pieces: Pieces) -> Tensor:
        """[P, B, T] the first critic's value of a policy's actions; 0 in padding."""
        critic = {name: p.detach() for name, p in live.items()}
        actions = self.networks.act(policy, pieces.observations)
        value = self.networks.value(critic, "critic1", pieces.observations, actions)
        return pieces.mask * value
