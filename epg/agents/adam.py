"""Adam over the parameters of all agents at once, in place (Kingma and Ba 2015, 1412.6980)."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

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
