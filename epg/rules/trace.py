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

Trace = list[Parameters]
"""For each of the n numbers the change of θ and of the optimiser's moments with it, by name."""
MOMENT = "moment."


@dataclass(frozen=True)
class Tracer:
    """How a trace is carried.

    decay: μ; 1: all updates count alike, 0: the last one alone ("truncated"); identity: whether
    ∂f/∂θ is left out, which spares half of the time.
    """

    decay: float = 1.0
    identity: bool = False

    def begin(self, eta: Parameters, theta: Parameters, moments: State) -> Trace:
        """Before the first update: 0."""
        zeros = {name: torch.zeros_like(p) for name, p in theta.items()}
        zeros |= {
            f"{MOMENT}{name}": torch.zeros_like(p)
            for name, p in moments.items()
            if p.is_floating_point()
        }
        return [dict(zeros) for _ in range(numbers_of(eta))]

    def update(
        self, update: Update, eta: Parameters, theta: Parameters, moments: State, rollout: Rollout,
        trace: Trace,
    ) -> tuple[Parameters, State, Trace]:  # fmt: skip
        """θ, moments and trace after an update."""
        moved = None
        traces = []
        for number, before in enumerate(trace):
            carried = {name: self.decay * p for name, p in before.items()}
            tangent = {n: torch.zeros_like(p) for n, p in carried.items()}
            moved, slopes = _slopes(
                update, eta, theta, moments, rollout, tangent if self.identity else carried, number
            )
            if self.identity:
                slopes = {name: slopes[name] + carried[name] for name in theta}
                slopes |= {name: p for name, p in tangent.items() if name.startswith(MOMENT)}
            traces.append(slopes)
        if moved is None:
            moved = update(eta, theta, moments, rollout, graph=False)
        return *moved, traces

    def gradient(
        self, eta: Parameters, learned: Parameters, outer: Tensor, trace: Trace
    ) -> Parameters:
        """Of what η goes down, [P], by each leaf of η; outer: of `learned` and η, leaves with a
        graph."""
        leaves = [*learned.values(), *eta.values()]
        every = torch.autograd.grad(outer.sum(), leaves, materialize_grads=True)
        found, direct = every[: len(learned)], every[len(learned) :]
        each = [
            torch.stack(
                [(g * z[n]).reshape(len(g), -1).sum(1) for n, g in zip(learned, found, strict=True)]
            ).sum(0)
            for z in trace
        ]
        gradients, first = {}, 0
        for (name, leaf), own in zip(eta.items(), direct, strict=True):
            count = leaf[0].numel()
            carried = torch.stack(each[first : first + count], 1).reshape(leaf.shape)
            gradients[name] = own + carried
            first += count
        return gradients


def numbers_of(eta: Parameters) -> int:
    """n"""
    return sum(leaf[0].numel() for leaf in eta.values())


def _slopes(
    update: Update, eta: Parameters, theta: Parameters, moments: State, rollout: Rollout,
    tangent: Parameters, number: int,
) -> tuple[tuple[Parameters, State], Parameters]:  # fmt: skip
    """An update, and how it changes where θ and moments change by `tangent` and one number of every
    agent's η by 1."""
    with forward.dual_level():
        dual_eta, first = {}, 0
        for name, leaf in eta.items():
            flat = torch.zeros_like(leaf).reshape(len(leaf), -1)
            if first <= number < first + flat.shape[1]:
                flat[:, number - first] = 1.0
            first += flat.shape[1]
            dual_eta[name] = forward.make_dual(leaf.detach(), flat.reshape(leaf.shape))
        dual_theta = {
            name: forward.make_dual(p.detach().requires_grad_(), tangent[name])
            for name, p in theta.items()
        }
        dual_moments = {
            name: forward.make_dual(p.detach(), tangent[f"{MOMENT}{name}"])
            if p.is_floating_point()
            else p
            for name, p in moments.items()
        }
        after, later = update(dual_eta, dual_theta, dual_moments, rollout)
        slopes, moved = {}, {}
        for name, p in after.items():
            moved[name], slopes[name] = _parts(p)
        kept = {}
        for name, p in later.items():
            kept[name], slope = _parts(p)
            if p.is_floating_point():
                slopes[f"{MOMENT}{name}"] = slope
    return (moved, kept), slopes


def _parts(dual: Tensor) -> tuple[Tensor, Tensor]:
    """A number and its slope, cut from what they came from."""
    primal, slope = forward.unpack_dual(dual)
    primal = primal.detach()
    return primal, torch.zeros_like(primal) if slope is None else slope.detach()
