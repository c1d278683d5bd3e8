"""What the inner loop needs of agents, P at once: they act, and they learn from what they lived.

Shape letters: P lifetimes, W environments of each, M new rows, E episodes, O observation, A action.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor

from epg.agents.buffer import Transitions
from epg.tasks.base import Step

Metrics = dict[str, Tensor]
"""Numbers by name, each [P], of one update: such as kl and entropy."""


class Policy(Protocol):
    """P policies as they stand, made ready to act many times; good until the agents learn."""

    def act(self, step: Step) -> Tensor:
        """Actions for what the environments last answered, in the same order.

        [P·W, A] float32, or [P·W] int64 if the task is discrete; P·E of them in judged episodes.
        """


class Agents(ABC):
    """P agents, each in a life of its own; every tensor has a leading axis P."""

    environments: int = 1
    """W, of its MDP, in which each of them learns side by side."""
    course: tuple[str, ...] = ()
    """Names of the metrics whose course over a life is kept."""

    @abstractmethod
    def policy(self, episodes: int | None = None) -> Policy:
        """What acts for them until they learn.

        episodes: None in the W environments in which they learn; E for policies that are judged in
        E episodes each, side by side, and rest where an episode has ended.
        """

    @abstractmethod
    def learn(self, new: Transitions) -> Metrics:
        """Learn from the newest M steps of each life, environment by environment, or do nothing."""

    def kept(self) -> dict[str, Tensor]:
        """By what they came to tune their learning with, by name, each [P, …]: nothing."""
        return {}

    @property
    @abstractmethod
    def failed(self) -> Tensor:
        """[P] bool: whose learning has left the finite."""
