"""What a loss is to an update.

Shape letters: P lifetimes, R rows seen, M new rows, B minibatch, K policy outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from epg.agents.agents import Agents, Experience

Objective = Callable[[Tensor, Tensor], Tensor]
"""(outputs [P, R, K], rows [P, B]) to a loss per agent [P], to be minimised.

`outputs` are the policy's of now, for the newest R rows; `rows` index the newest M.
"""


class Loss(Protocol):
    """PPO, a learned loss, or a mixture of them."""

    @property
    def history(self) -> int:
        """R, how many of the newest rows the loss must see policy outputs of (0: only the new)."""

    def objective(self, agents: Agents, experience: Experience) -> Objective:
        """Begin an update: work out once what all its minibatches share."""


def pick(values: Tensor, rows: Tensor) -> Tensor:
    """The rows [P, B] of values [P, M, …]: [P, B, …]."""
    if values.dim() == 2:
        return values.gather(1, rows)
    return values.gather(1, rows.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
