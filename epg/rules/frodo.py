"""FRODO: an actor-critic whose target is put out by a network that goes backwards over a rollout,
and is learned in the same life (Xu et al. 2020, arXiv 2007.08433).

Shape letters: P agents, T steps, L units of the LSTM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from epg.agents.network import Parameters
from epg.agents.optimizers import norms_of
from epg.rules.a2c import A2c
from epg.rules.recurrent import backward_lstm
from epg.rules.rollout import Rollout, next_rows
from epg.rules.rule import Fixed, Update, entropy_of

INPUTS = 3
"""Of the LSTM: reward, γ or 0 at an end, the value of what the step led to."""


@dataclass(frozen=True)
class Frodo(A2c):
    """A2C down a learned target.

    η: the LSTM's weights, [P, 4L, 3], [P, 4L, L], bias [P, 4L], and out of it [P, L], [P].
    """

    units: int = 32
    consistency: float = 0.1
    """weight of how far the target is from the reward and the target of the step after it"""
    stop: bool = True
    """whether the target of the step after counts as a constant there, as in TD"""

    def init_eta(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Small and random; what is put out at first is about 0, so that values shrink before they
        learn: the slow start is the paper's."""
        bound = 1 / np.sqrt(self.units)
        shapes = {
            "inputs": (4 * self.units, INPUTS), "recurrent": (4 * self.units, self.units),
            "bias": (4 * self.units,), "out": (self.units,), "shift": (),
        }  # fmt: skip
        drawn = {name: rng.uniform(-bound, bound, shape) for name, shape in shapes.items()}
        return {name: np.asarray(array, np.float32) for name, array in drawn.items()}

    def shown(self, eta: Parameters, rollout: Rollout | None = None) -> dict[str, Tensor]:
        return {"weights_norm": norms_of(eta)}

    def returns(self, eta: Parameters, theta: Parameters, rollout: Rollout) -> Tensor:
        """[P, T] G, with values of θ among its inputs."""
        following = self.values({}, theta, rollout.next_observations)
        inputs = torch.stack((rollout.rewards, self.discount * rollout.going_on, following), -1)
        hidden = backward_lstm(inputs, rollout.joined, eta["inputs"], eta["recurrent"], eta["bias"])
        return (hidden * eta["out"].unsqueeze(1)).sum(-1) + eta["shift"].unsqueeze(1)

    def inconsistency(
        self, eta: Parameters, theta: Parameters, fixed: Fixed, rollout: Rollout
    ) -> Tensor:
        """[P] mean squared distance of targets from r + γ̄ times the target of the step after."""
        targets = self.returns(eta, theta, rollout)
        source, read = (fixed.eta, fixed.theta) if self.stop else (eta, theta)
        last = self.values({}, read, rollout.next_observations)
        after = next_rows(self.returns(source, read, rollout), rollout.joined, last)
        return (
            (targets - rollout.rewards - self.discount * rollout.going_on * after).square().mean(1)
        )

    def outer(
        self, eta: Parameters, learned: Parameters, fixed: Fixed, rollouts: Sequence[Rollout],
        update: Update,
    ) -> Tensor:  # fmt: skip
        """A2C's whole loss at γ̄ on the next rollout, and the consistency of the targets there."""
        rollout = rollouts[-1]
        targets = self.outer_returns({}, fixed.theta, rollout)
        advantages = targets - self.values({}, fixed.theta, rollout.observations)
        features = self.features({}, learned, rollout.observations)
        outputs = self.networks.outputs(learned, features)
        log_probs = self.distribution.log_prob(outputs, rollout.actions)
        errors = targets - self.networks.value(learned, features)
        total = (self.value_weight / 2 * errors.square() - advantages * log_probs).mean(1)
        total = total - self.entropy_weight * entropy_of(self.distribution, outputs)
        if self.consistency:
            total = total + self.consistency * self.inconsistency(eta, learned, fixed, rollout)
        return total
