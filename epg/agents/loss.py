"""What a loss is to an update.

Shape letters: P lifetimes, R rows seen, M new rows, B minibatch, K policy outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from epg.agents.actor_critic import ActorCritic, Experience

Objective = Callable[[Tensor, Tensor], Tensor]
"""(outputs [P, R, K], rows [P, B]) to a loss per agent [P], to be minimised.

`outputs` are the policy's of now, for the newest R rows; `rows` index the newest M.
"""


class Loss(Protocol):
    """PPO, a learned loss, or a weighted sum of them."""

    @property
    def history(self) -> int:
        """R, how many of the newest rows the loss must see policy outputs of (0: only the new)."""

    def objective(self, agents: ActorCritic, experience: Experience) -> Objective:
        """Begin an update: work out once what all its minibatches share."""
