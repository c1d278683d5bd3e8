"""Losses with parameters: what an outer loop can learn, and a user can write.

Shape letters: P lifetimes, M new rows, B minibatch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from epg.agents.base import Agents
from epg.agents.loss import Loss
from epg.agents.network import Parameters
from epg.agents.spec import AgentSpec, Shapes
from epg.errors import UserError
from epg.registry import check_interface, find
from epg.seeds import LifetimeSeeds
from epg.settings import Named
from epg.tasks.base import Task


class LearnedLoss(ABC):
    """A loss with parameters φ, the same function for all agents of one spec.

    Attributes: `settings`, as its `Settings` has checked them; `spec`, of the agents; `buffer`, N,
    the rows of their buffers. Raises `UserError`, when made, for what does not fit.
    """

    Settings: ClassVar[type[Named]] = Named
    """The keys below `loss:`, besides `name`."""
    sized: ClassVar[bool] = True
    """Whether φ is for observations and actions of one size; False for one that fits any task."""
    removable: tuple[str, ...] = ()
    """Inputs that `without` can take away."""

    def __init__(self, settings: Any, spec: AgentSpec, buffer: int) -> None:
        self.settings = settings
        self.spec = spec
        self.buffer = buffer

    @property
    @abstractmethod
    def shapes(self) -> Shapes:
        """Names and shapes of φ."""

    @abstractmethod
    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """The φ that a run starts from, float32."""

    @abstractmethod
    def bind(self, params: Parameters) -> Loss:
        """The losses of P agents; params: each [P, *shape]."""

    def residual(self, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The same φ with which the loss is a constant, so that it adds nothing at first."""
        raise UserError(f"start: found residual, which the loss {self.settings.name} does not know")

    def without(self, params: Parameters, name: str) -> Parameters:
        """φ blind to one of its inputs, of those in `removable`; params: each [P, *shape]."""
        raise NotImplementedError


class TeachingLoss(LearnedLoss):
    """A loss whose agents are of a kind of its own."""

    @property
    def says(self) -> str:
        """What its agents learn with, for people."""
        return "agents of its own"

    @classmethod
    def at_rate(cls, settings: Any, learning_rate: float) -> Any:
        """The same settings, with agents that learn at another rate."""
        raise UserError(f"--learning-rate: loss {settings.name} knows no rate of its agents")

    @abstractmethod
    def agents(
        self, params: Parameters, task: Task, hidden: tuple[int, ...], seeds: LifetimeSeeds,
        updates: int, steps_per_update: int, blind: bool = False,
    ) -> Agents:  # fmt: skip
        """Fresh agents that learn by it, one for each of P seeds.

        params: each [P, …]; hidden: units of their layers; updates, steps_per_update: of their
        lives; blind: to reward, ends of episodes and all that derives from them.
        """

    def bind(self, params: Parameters) -> Loss:
        raise UserError(f"loss {self.settings.name}: is for agents of its own")


def make_loss(settings: Named, spec: AgentSpec, buffer: int) -> LearnedLoss:
    """The learned loss that settings speak of. Raises `UserError`."""
    found = find("loss", settings.name)
    check_interface("loss", settings.name, found, (LearnedLoss,))
    made: LearnedLoss = found(settings, spec, buffer)
    return made


def take_rows(values: Tensor, rows: Tensor) -> Tensor:
    """The rows [P, B] of values [P, M, …]: [P, B, …]."""
    if values.dim() == 2:
        return values.gather(1, rows)
    return values.gather(1, rows.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
