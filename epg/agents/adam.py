"""Adam over the parameters of all agents at once, in place (Kingma and Ba 2015, 1412.6980)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from epg.agents.optimizers import clip_by_norm

ADAM_EPSILON = 1e-8
BETAS = (0.9, 0.999)
REGISTER = 64
"""Numbers, of which the widest registers hold a whole part."""


class Leaves(Protocol):
    """What an optimiser moves, of P agents."""

    @property
    def lifetimes(self) -> int: ...

    @property
    def device(self) -> str: ...

    def trained(self) -> list[Tensor]:
        """Leaves, each [P, …]."""


class AgentAdam:
    """Adam with a count of steps for each agent, so that one can begin anew beside the others, and
    with a state that can be kept.

    clip: the most that the norm of an agent's gradient may be; None for any.
    """

    def __init__(
        self, parameters: Sequence[Tensor], learning_rate: float, clip: float | None = None
    ) -> None:
        """parameters: each [P, …]"""
        self._parameters = list(parameters)
        self._learning_rate = learning_rate
        self._clip = clip
        first = self._parameters[0]
        lifetimes, size = len(first), sum(p[0].numel() for p in self._parameters)
        self.mean, self.square = torch.zeros(2, lifetimes, size, device=first.device)
        self.steps = torch.zeros(lifetimes, dtype=torch.int64, device=first.device)
        self.broken = torch.zeros(lifetimes, dtype=torch.bool, device=first.device)
        """[P] whose loss was not finite"""

    def descend(self, loss: Tensor, active: Tensor) -> None:
        """One step down the losses [P] of the agents that are active, [P] bool."""
        self.broken |= active & ~torch.isfinite(loss.detach())
        found = torch.autograd.grad(loss.sum(), self._parameters)
        self._step(torch.cat([g.flatten(1) for g in found], 1), active)

    @torch.no_grad()
    def _step(self, gradient: Tensor, active: Tensor) -> None:
        if self._clip is not None:
            gradient = clip_by_norm({"": gradient}, self._clip)[""]
        # moments and step of those that learn; each has had steps of its own
        self.steps += active
        chosen = active.unsqueeze(1)
        mean = BETAS[0] * self.mean + (1 - BETAS[0]) * gradient
        square = BETAS[1] * self.square + (1 - BETAS[1]) * gradient.square()
        count = self.steps.unsqueeze(1).to(torch.float64)
        scales = [(1 - beta**count).to(mean.dtype) for beta in BETAS]
        moved = self._learning_rate * (mean / scales[0])
        moved = torch.where(chosen, moved / ((square / scales[1]).sqrt() + ADAM_EPSILON), 0.0)
        self.mean = torch.where(chosen, mean, self.mean)
        self.square = torch.where(chosen, square, self.square)
        # back to the shapes of the parameters
        first = 0
        for parameter in self._parameters:
            last = first + parameter[0].numel()
            parameter -= moved[:, first:last].view_as(parameter)
            first = last

    def begin_anew(self, agent: int) -> None:
        """As if one of them had never learned."""
        self.mean[agent], self.square[agent] = 0.0, 0.0
        self.steps[agent], self.broken[agent] = 0, False


class FusedAdam:
    """Adam that works elementwise, so that agents never mix.

    torch.optim.Adam(fused=True), without the second that importing torch's compiler takes. The
    parameters become views of one vector, whole registers long: torch rounds what is left over of
    the last one otherwise, and a lifetime would depend on its batch. It cuts the graph: what is to
    be differentiated through takes the steps of `epg.agents.optimizers`.
    """

    def __init__(self, networks: Leaves, learning_rate: float) -> None:
        self._parameters = networks.trained()
        self.learning_rate = learning_rate
        self._moved: list[Tensor] = []
        self._steps = 0
        self.broken = torch.zeros(networks.lifetimes, dtype=torch.bool, device=networks.device)
        """[P] whose loss was not finite: such a loss can still have finite gradients"""

    def descend(self, loss: Tensor) -> None:
        """One step down the sum of the agents' losses [P].

        What the first loss does not touch stays for good.
        """
        self.broken |= ~torch.isfinite(loss.detach())
        for parameter in self._parameters:
            parameter.grad = None
        loss.sum().backward()
        self._step()

    def epsilon(self, steps: int) -> float:
        """The ε of step number `steps`."""
        return ADAM_EPSILON

    @torch.no_grad()
    def _step(self) -> None:
        if not self._steps:
            self._begin([p for p in self._parameters if p.grad is not None])
        self._steps += 1
        gradients = [p.grad.reshape(-1) for p in self._moved if p.grad is not None]
        torch.cat([*gradients, self._padding], out=self._gradient)
        torch._fused_adam_(
            [self._vector], [self._gradient], [self._mean], [self._square], [],
            [torch.tensor(float(self._steps), device=self._vector.device)],
            lr=self.learning_rate, beta1=BETAS[0], beta2=BETAS[1], weight_decay=0.0,
            eps=self.epsilon(self._steps), amsgrad=False, maximize=False,
        )  # fmt: skip

    def _begin(self, moved: list[Tensor]) -> None:
        self._moved = moved
        rest = -sum(p.numel() for p in moved) % REGISTER
        self._padding = moved[0].new_zeros(rest)
        self._vector = torch.cat([*(p.reshape(-1) for p in moved), self._padding])
        self._gradient, self._mean, self._square = torch.zeros(3, len(self._vector)).to(
            self._vector.device
        )
        first = 0
        for parameter in moved:
            last = first + parameter.numel()
            parameter.data = self._vector[first:last].view_as(parameter)
            first = last
