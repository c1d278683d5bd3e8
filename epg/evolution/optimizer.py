"""What moves φ along a gradient: EvoTorch's Adam and ClipUp, or one of a user's own.

ClipUp: Toklu et al. 2020 (arXiv 2008.02387).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from epg.registry import check_interface, find
from epg.settings import Named

BelowOne = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(ABC):
    """Climbs: φ moves up the gradients that it is given. It lives on the master alone."""

    Settings: ClassVar[type[Named]] = Named
    """The keys below `optimizer:`, besides `name`."""

    def __init__(self, settings: Any, phi: Tensor) -> None:
        """phi: [size] float32, where it starts."""
        self.settings = settings

    @property
    @abstractmethod
    def phi(self) -> Tensor:
        """[size] float32: where it is."""

    @abstractmethod
    def step(self, gradient: Tensor, learning_rate: float) -> None:
        """Move φ. gradient: [size], of what is to grow."""

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """All that must be kept to go on, φ included."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a state of before."""


class _EvoTorch(Optimizer):
    """An optimiser of EvoTorch's functional API."""

    moving: ClassVar[tuple[str, ...]]
    """what of its state changes from step to step; the rest is configuration"""
    _state: Any

    @property
    def phi(self) -> Tensor:
        center: Tensor = self._state.center
        return center

    def state_dict(self) -> dict[str, Tensor]:
        return {name: getattr(self._state, name) for name in self.moving}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._state = self._state._replace(**{name: state[name] for name in self.moving})


class Adam(_EvoTorch):
    """Adam (Kingma and Ba 2015, arXiv 1412.6980)."""

    class Settings(Named):
        """Adam's moments."""

        beta1: BelowOne = Field(0.0, description="β1")
        beta2: BelowOne = Field(0.999, description="β2")

    moving = ("center", "m", "v", "t")

    def __init__(self, settings: Any, phi: Tensor) -> None:
        from evotorch.algorithms.functional import adam  # takes seconds; workers do without

        super().__init__(settings, phi)
        self._state = adam(
            center_init=phi, center_learning_rate=1.0, beta1=settings.beta1, beta2=settings.beta2
        )

    def step(self, gradient: Tensor, learning_rate: float) -> None:
        from evotorch.algorithms.functional.funcadam import adam_tell

        state = self._state._replace(center_learning_rate=torch.tensor(learning_rate))
        self._state = adam_tell(state, follow_grad=gradient)


class ClipUp(_EvoTorch):
    """Steps of one length along a gradient with momentum, clipped to a largest speed."""

    class Settings(Named):
        """ClipUp's momentum and speed."""

        momentum: Annotated[float, Field(ge=0, le=1)] = Field(0.9, description="momentum")
        max_speed: PositiveFloat | None = Field(
            None, description="largest step; twice the learning rate if left out"
        )

    moving = ("center", "velocity")

    def __init__(self, settings: Any, phi: Tensor) -> None:
        from evotorch.algorithms.functional import clipup

        super().__init__(settings, phi)
        self._state = clipup(center_init=phi, center_learning_rate=1.0, momentum=settings.momentum)

    def step(self, gradient: Tensor, learning_rate: float) -> None:
        from evotorch.algorithms.functional.funcclipup import clipup_tell

        speed = self.settings.max_speed or 2 * learning_rate
        state = self._state._replace(
            center_learning_rate=torch.tensor(learning_rate), max_speed=torch.tensor(speed)
        )
        self._state = clipup_tell(state, follow_grad=gradient)


def make_optimizer(settings: Named, phi: Tensor) -> Optimizer:
    """The optimizer that settings speak of. Raises `UserError`."""
    made: Optimizer = find_optimizer(settings)(settings, phi)
    return made


def find_optimizer(settings: Named) -> Any:
    """Its class, which has all functions of the interface. Raises `UserError`."""
    found = find("optimizer", settings.name)
    check_interface("optimizer", settings.name, found, (Optimizer,))
    return found
