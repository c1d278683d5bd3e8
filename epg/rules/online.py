"""Learning and tuning how to learn in one life: θ moves by a rule, η by what became of θ.

Shape letters: P agents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from epg.agents.network import Parameters
from epg.agents.optimizers import State, norms_of
from epg.rules.rollout import Rollout
from epg.rules.rule import Fixed, Optimizer, Update, meta_gradient
from epg.rules.trace import Trace, Tracer


@dataclass(frozen=True)
class Tuning:
    """How η moves.

    optimizer: None: not at all; inner_steps: K, updates that hang on one η; judged: on the rollout
    after them, or on the other half of the rollout that was learned from; tracer: how far back η
    counts where a trace is carried in the place of a graph.
    """

    optimizer: Optimizer | None
    inner_steps: int = 1
    judged: Literal["next", "halves"] = "next"
    tracer: Tracer | None = None


class Online:
    """P agents of a rule: θ, η and the moments of both. Every leaf is [P, …]."""

    def __init__(self, update: Update, tuning: Tuning, theta: Parameters, eta: Parameters) -> None:
        _check(update, tuning)
        self.update = update
        self.tuning = tuning
        self.eta = {name: p.detach() for name, p in eta.items()}
        self.theta = {name: p.detach() for name, p in theta.items()}
        self.moments = update.optimizer.init(self.theta)
        self._optimizer = tuning.optimizer if eta else None
        if self._optimizer is not None:
            self._eta_moments = self._optimizer.init(self.eta)
        self._trace: Trace | None = None
        self._begin()

    @property
    def tunes(self) -> bool:
        """Whether η moves."""
        return self._optimizer is not None

    def _begin(self) -> None:
        """θ and η are leaves from here; no graph leads further back."""
        if self._optimizer is not None:
            self.eta = {name: p.detach().requires_grad_() for name, p in self.eta.items()}
        self.theta = {name: p.detach().requires_grad_() for name, p in self.theta.items()}
        self.moments = {name: p.detach() for name, p in self.moments.items()}
        self._start = self.theta
        self._learned = self.theta, self.moments
        self._count = 0
        self._between: list[Rollout] = []

    def learn(self, rollout: Rollout) -> Tensor:
        """θ learns from a rollout, and η from what θ has learned before or does now; [P] the norm
        of η's gradient, 0 where it did not move."""
        nothing = rollout.rewards.new_zeros(len(rollout.rewards))
        if self._optimizer is None:
            self.theta, self.moments = self._moved(self.theta, self.moments, rollout, False)
            return nothing
        if self.tuning.tracer is not None:
            return self._learn_by_trace(rollout, self.tuning.tracer)
        if self.update.rule.same_rollout or self.tuning.judged == "halves":
            return self._learn_at_once(rollout)
        rule, size = self.update.rule, nothing
        # the window is whole: this rollout judges, and then is learned from
        if self._count == self.tuning.inner_steps + rule.ahead:
            size = self._tune(self._judged([*self._between, rollout]))
            self._begin()
        graph = self._count < self.tuning.inner_steps
        self.theta, self.moments = self._moved(self.theta, self.moments, rollout, graph)
        if graph:
            self._learned = self.theta, self.moments
        else:
            self._between.append(rollout)
        self._count += 1
        return size

    def _moved(
        self, theta: Parameters, moments: State, rollout: Rollout, graph: bool
    ) -> tuple[Parameters, State]:
        return self.update(self.eta, theta, moments, rollout, graph)

    def _judged(self, rollouts: list[Rollout]) -> Tensor:
        """[P]"""
        learned, moments = self._learned
        fixed = Fixed.of(self.eta, learned, self._start, moments)
        return self.update.rule.outer(self.eta, learned, fixed, rollouts, self.update)

    def _learn_at_once(self, rollout: Rollout) -> Tensor:
        """η by a rollout that is learned from: by all of it, or by halves that judge each other."""
        if self.update.rule.same_rollout:
            self._learned = self._moved(self.theta, self.moments, rollout, True)
            size = self._tune(self._judged([rollout]))
            self.theta, self.moments = self._learned
        else:
            total: Tensor | float = 0.0
            for which in (0, 1):
                self._learned = self._moved(self.theta, self.moments, rollout.half(which), True)
                total = total + self._judged([rollout.half(1 - which)]) / 2
            assert isinstance(total, Tensor)
            size = self._tune(total)
            self.theta, self.moments = self._moved(self.theta, self.moments, rollout, False)
        self._begin()
        return size

    def _learn_by_trace(self, rollout: Rollout, tracer: Tracer) -> Tensor:
        """The same with what a trace says of how θ hangs on η."""
        size = rollout.rewards.new_zeros(len(rollout.rewards))
        if self._trace is None:
            self._trace = tracer.begin(self.eta, self.theta, self.moments)
            moved, _ = self._moved(self.theta, self.moments, rollout, True)
            meta_gradient(norms_of(moved), self.eta)  # is an error where some η is not read
        else:
            outer = self._judged([rollout])
            size = self._step(tracer.gradient(self.eta, self.theta, outer, self._trace))
        start = {name: p.detach() for name, p in self.theta.items()}
        self.theta, self.moments, self._trace = tracer.update(
            self.update, self.eta, self.theta, self.moments, rollout, self._trace
        )
        self._begin()
        self._start = start
        return size

    def _tune(self, outer: Tensor) -> Tensor:
        return self._step(meta_gradient(outer, self.eta))

    @torch.no_grad()
    def _step(self, gradients: Parameters) -> Tensor:
        """[P] the norm of η's gradient, which η has gone down."""
        assert self._optimizer is not None
        self.eta, self._eta_moments = self._optimizer.step(self.eta, self._eta_moments, gradients)
        return norms_of(gradients)


def _check(update: Update, tuning: Tuning) -> None:
    """Raise `ValueError` for a way of tuning that a rule does not have."""
    rule = update.rule
    other = tuning.judged == "halves" or tuning.tracer is not None
    for wrong, why in (
        (rule.ahead and other, "a rule that looks ahead is judged by rollouts of its window alone"),
        (rule.same_rollout and other, "a rule judged on what it learned from knows no other way"),
        (tuning.judged == "halves" and tuning.tracer, "halves have no trace"),
        (
            tuning.inner_steps > 1 and (other or rule.same_rollout),
            f"{tuning.inner_steps} inner steps are for windows alone; found a way of one",
        ),
    ):
        if wrong:
            raise ValueError(why)
