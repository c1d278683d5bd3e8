"""What a task is: a distribution over MDPs, and a batch of P environments drawn from it.

Shape letters: P environments in a batch, O observation, A action.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Mdp = dict[str, Any]
"""One MDP: the drawn value of every parameter that the task varies, by name."""


@dataclass(frozen=True)
class Varied:
    """A parameter that a task draws anew for each MDP, uniformly unless `note` says otherwise."""

    name: str
    low: float
    high: float
    unit: str
    note: str = ""


class Step(NamedTuple):
    """What P environments answer to P actions."""

    observation: Tensor
    """[P, O] float64: what to act on next; the first of a new episode where the last one ended."""
    next_observation: Tensor
    """[P, O] float64: what the action led to, also where the episode ended with it."""
    reward: Tensor
    """[P] float64"""
    terminated: Tensor
    """[P] bool: the MDP ended; nothing follows."""
    truncated: Tensor
    """[P] bool: the horizon cut the episode; the MDP would have gone on."""


class Batch(ABC):
    """P environments that live side by side and never touch each other."""

    @property
    @abstractmethod
    def failures(self) -> NDArray[np.int64]:
        """[P]: episodes ended because the simulation, or an action, left the finite, so far."""

    @abstractmethod
    def reset(self) -> Tensor:
        """Start a new episode everywhere; the first observations, [P, O] float64."""

    @abstractmethod
    def step(self, actions: Tensor) -> Step:
        """Act once everywhere: actions [P, A] float32, or [P] int64 if the task is discrete.

        An episode that ends restarts at once; in a batch made with `restart=False` it rests
        instead: its observation stays, its reward is 0, `terminated` and `truncated` stay as
        they were, and its environment is not stepped any more.
        """


class Task(ABC):
    """A distribution over MDPs that share their sizes."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line for `epg tasks`."""
    observation_size: ClassVar[int]
    action_size: ClassVar[int]
    """Dimensions of a continuous action, or the number of discrete ones."""
    discrete: ClassVar[bool]
    horizon: ClassVar[int]
    """Steps after which an episode is truncated."""
    varied: ClassVar[tuple[Varied, ...]]

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Mdp:
        """Draw one MDP."""

    @abstractmethod
    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        """P environments, one for each MDP; `rngs[i]` draws the resets of environment i."""
