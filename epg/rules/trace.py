"""Traces of how θ hangs on η, carried along with the updates, where η is a few numbers.

An update is θ′ = θ + f(θ, η); a trace z = ∂θ/∂η goes with it, z′ = μ(I + ∂f/∂θ) z + ∂f/∂η, and the
gradient of what η goes down is ∂J/∂θ′ · z′ (Xu et al. 2018, arXiv 1805.09801, equations 6 to 9).

Shape letters: P agents, n numbers in η of an agent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.autograd.forward_ad as forward
from torch import Tensor

from epg.agents.network import Parameters
from epg.agents.optimizers import State
from epg.rules.rollout import Rollout
from epg.rules.rule import Update

Trace = dict[str, Tensor]
"""How θ and the optimiser's moments change with each of the n numbers, by name, [n, P, …]."""
MOMENT = "moment."


@dataclass(frozen=True)
class Tracer:
    """How a trace is carried.

    decay: μ; 1: all updates count alike, 0: the last one alone ("truncated"); identity: whether
    ∂f/∂θ is left out.
    """

    decay: float = 1.0
    identity: bool = False

    def begin(self, eta: Parameters, theta: Parameters, moments: State) -> Trace:
        """Before the first update: 0."""
        leaves = {**theta, **{f"{MOMENT}{n}": p for n, p in moments.items() if p.ndim}}
        count = numbers_of(eta)
        return {name: torch.zeros(count, *p.shape).to(p) for name, p in leaves.items()}

    def update(
        self, update: Update, eta: Parameters, theta: Parameters, moments: State, rollout: Rollout,
        trace: Trace,
    ) -> tuple[Parameters, State, Trace]:  # fmt: skip
        """θ, moments and trace after an update."""
        carried = {name: self.decay * z for name, z in trace.items()}
        nothing = {name: torch.zeros_like(z) for name, z in trace.items()}
        moved, later, slopes = _slopes(
            update, eta, theta, moments, rollout, nothing if self.identity else carried
        )
        if self.identity:
            slopes = {n: slopes[n] + carried[n] if n in theta else z for n, z in nothing.items()}
        return moved, later, slopes

    def gradient(
        self, eta: Parameters, learned: Parameters, outer: Tensor, trace: Trace
    ) -> Parameters:
        """Of what η goes down, [P], by each leaf of η; outer: of `learned` and η, leaves with a
        graph."""
        leaves = [*learned.values(), *eta.values()]
        every = torch.autograd.grad(outer.sum(), leaves, materialize_grads=True)
        by_theta = zip(learned, every, strict=False)
        # [n, P] by way of θ
        each = sum((g * trace[n]).flatten(2).sum(2) for n, g in by_theta)
        assert isinstance(each, Tensor)
        gradients, first = {}, 0
        for (name, leaf), direct in zip(eta.items(), every[len(learned) :], strict=True):
            count = leaf[0].numel()
            gradients[name] = direct + each[first : first + count].T.reshape(leaf.shape)
            first += count
        return gradients


def numbers_of(eta: Parameters) -> int:
    """n"""
    return sum(leaf[0].numel() for leaf in eta.values())


def _slopes(
    update: Update, eta: Parameters, theta: Parameters, moments: State, rollout: Rollout,
    tangent: Trace,
) -> tuple[Parameters, State, Trace]:  # fmt: skip
    """An update, and how it changes with each of η's numbers, where θ and moments change by
    `tangent` besides: all agents n times side by side, each time with another number."""
    count = numbers_of(eta)

    def times(leaf: Tensor) -> Tensor:
        return leaf.detach().repeat(count, *[1] * (leaf.ndim - 1))

    with forward.dual_level():
        # η: in copy i of the agents number i changes by 1
        dual_eta, first = {}, 0
        for name, leaf in eta.items():
            size = leaf[0].numel()
            change = torch.zeros(count, len(leaf), size).to(leaf)
            for i in range(size):
                change[first + i, :, i] = 1.0
            first += size
            dual_eta[name] = forward.make_dual(times(leaf), change.reshape(-1, *leaf.shape[1:]))
        dual_theta = {
            name: forward.make_dual(times(p).requires_grad_(), tangent[name].flatten(0, 1))
            for name, p in theta.items()
        }
        dual_moments = {
            name: forward.make_dual(times(p), tangent[f"{MOMENT}{name}"].flatten(0, 1))
            if p.ndim
            else p
            for name, p in moments.items()
        }
        after, later = update(dual_eta, dual_theta, dual_moments, rollout.mapped(times))
        named = {**after, **{f"{MOMENT}{n}": p for n, p in later.items()}}
        parts = {name: forward.unpack_dual(p) for name, p in named.items()}
    # the first copy of what moved, and the slopes of all copies
    agents = len(rollout.rewards)
    moved = {n: parts[n].primal.detach()[:agents] for n in after}
    kept = {
        n: p.detach() if p.ndim == 0 else parts[f"{MOMENT}{n}"].primal.detach()[:agents]
        for n, p in later.items()
    }
    slopes = {
        name: (torch.zeros_like(p) if slope is None else slope.detach()).unflatten(
            0, (count, agents)
        )
        for name, (p, slope) in parts.items()
        if p.ndim
    }
    return moved, kept, slopes
