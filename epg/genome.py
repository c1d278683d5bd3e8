"""What φ holds: the parameters of a loss and, where evolved, those of the policy at birth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from epg.agents.agents import draw_parameters
from epg.config import Config
from epg.lifetime import body_of
from epg.losses.temporal_conv import INPUTS, REFERENCE_INPUTS, Architecture
from epg.seeds import Fate, Purpose, Stream
from epg.tasks.base import Task


@dataclass(frozen=True)
class Genome:
    """The layout of φ, a flat vector: first the loss, then the initial policy if that evolves."""

    architecture: Architecture
    with_policy: bool

    @cached_property
    def size(self) -> int:
        """Length of φ."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of everything in φ, in order."""
        policy = self.architecture.body.policy_shapes() if self.with_policy else {}
        return self.architecture.shapes | policy

    def draw(self, seed: int, zero_output: bool) -> Tensor:
        """The φ that a run starts from, [size] float32."""
        fate = Fate(seed, Purpose.START, 0, 0)
        loss = self.architecture.draw(fate.rng(Stream.LOSS), zero_output)
        if not self.with_policy:
            return loss
        shapes = self.architecture.body.policy_shapes()
        policy = draw_parameters(fate.rng(Stream.AGENT), shapes)
        return torch.cat((loss, torch.from_numpy(policy)))

    def split(self, phi: Tensor) -> tuple[Tensor, Tensor | None]:
        """φ [P, size] to the losses [P, D] and the initial policies [P, n], if these evolve."""
        loss = phi[:, : self.architecture.size]
        return loss, phi[:, self.architecture.size :] if self.with_policy else None

    def name(self, phi: Tensor) -> dict[str, Tensor]:
        """φ [size] as tensors by name."""
        pieces = phi.split([math.prod(shape) for shape in self.shapes.values()])
        return {
            name: piece.reshape(shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def flatten(self, named: dict[str, Tensor]) -> Tensor:
        """The inverse of `name`."""
        return torch.cat([named[name].reshape(-1) for name in self.shapes])


def genome_of(config: Config, task: Task) -> Genome:
    """The layout of φ in a run."""
    inputs = REFERENCE_INPUTS if config.reference else INPUTS
    architecture = Architecture(body_of(task, config.lifetime), inputs)
    return Genome(architecture, config.evolution.evolve_policy_init)
