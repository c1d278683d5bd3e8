"""Deterministic policies with twin critics, P of each at once: what DDPG, TD3 and MetaGenRL teach
(Fujimoto et al. 2018, arXiv 1802.09477; Kirsch et al. 2020, arXiv 1910.04098).

All of it can be differentiated twice. Shape letters: P agents, B pieces, T steps,
O observation, A action, R rows.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from epg.agents.network import Parameters
from epg.agents.pieces import Pieces
from epg.agents.spec import Shapes
from epg.agents.twice import standardise

NORM_EPSILON = 1e-12


def standardised_rows(values: Tensor, exact: bool = True) -> Tensor:
    """Values [P, R, n] with mean 0 and variance 1 along n: a layer norm without gain and shift.

    exact: without it no gradient flows through the mean within the variance, as in the released
    code: first derivatives are the same, second ones are not (its defect D11).
    """
    if exact:
        return standardise(values, NORM_EPSILON)
    mean = values.mean(-1, keepdim=True)
    spread = (values - mean.detach()).square().mean(-1, keepdim=True)
    return (values - mean) * torch.rsqrt(spread + NORM_EPSILON)


def dense(parameters: Parameters, layer: str, inputs: Tensor, normed: str | None = None) -> Tensor:
    """A linear layer: [P, R, in] to [P, R, out].

    normed: the layer whose layer norm's gain and shift its inputs still lack; they go into the
    weights, of which there are fewer numbers than of inputs.
    """
    weight, bias = parameters[f"{layer}.weight"], parameters[f"{layer}.bias"].unsqueeze(1)
    if normed is not None:
        bias = torch.baddbmm(bias, parameters[f"{normed}.shift"].unsqueeze(1), weight)
        weight = parameters[f"{normed}.gain"].unsqueeze(-1) * weight
    return torch.baddbmm(bias, inputs, weight)


def normed_shapes(name: str, sizes: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network whose hidden layers end in a layer norm."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        shapes |= {f"{name}.{i}.weight": (inputs, outputs), f"{name}.{i}.bias": (outputs,)}
        if i < len(sizes) - 2:
            shapes |= {f"{name}.{i}.gain": (outputs,), f"{name}.{i}.shift": (outputs,)}
    return shapes


@dataclass(frozen=True)
class DeterministicNetworks:
    """How policies and critics are built, for agents of one size.

    Parameters by name, each [P, …]: policy, critic1, critic2.
    """

    observation_size: int
    action_size: int
    hidden: tuple[int, ...]
    limit: float = 1.0
    """of actions: they lie within ± limit"""
    exact_norm: bool = True
    """see `standardised_rows`"""

    @property
    def shapes(self) -> Shapes:
        """Of one agent."""
        both = self.observation_size + self.action_size
        return {
            **normed_shapes("policy", (self.observation_size, *self.hidden, self.action_size)),
            **normed_shapes("critic1", (both, *self.hidden, 1)),
            **normed_shapes("critic2", (both, *self.hidden, 1)),
        }

    def act(self, parameters: Parameters, observations: Tensor) -> Tensor:
        """Actions for observations, [P, …, O] to [P, …, A]."""
        return self.limit * torch.tanh(self._network(parameters, "policy", observations))

    def value(
        self, parameters: Parameters, name: str, observations: Tensor, actions: Tensor
    ) -> Tensor:
        """Q of a critic: [P, …]."""
        inputs = torch.cat((observations, actions), dim=-1)
        return self._network(parameters, name, inputs).squeeze(-1)

    def _network(self, parameters: Parameters, name: str, inputs: Tensor) -> Tensor:
        rows = inputs.reshape(inputs.shape[0], -1, inputs.shape[-1])
        layer, normed = 0, None
        while f"{name}.{layer}.gain" in parameters:
            active = torch.relu(dense(parameters, f"{name}.{layer}", rows, normed))
            rows, normed = standardised_rows(active, self.exact_norm), f"{name}.{layer}"
            layer += 1
        outputs = dense(parameters, f"{name}.{layer}", rows, normed)
        return outputs.reshape(*inputs.shape[:-1], outputs.shape[-1])

    def state_values(self, parameters: Parameters, pieces: Pieces) -> Tensor:
        """[P, B, T + 1] the first critic's opinion of the policy in each state, and in the one
        after the last step."""
        states = torch.cat((pieces.observations, pieces.next_observations[:, :, -1:]), dim=2)
        return self.value(parameters, "critic1", states, self.act(parameters, states))


@dataclass(frozen=True)
class CriticLoss:
    """What critics learn: of twins, clipped double Q-learning with a smoothed target."""

    discount: float = 0.99
    noise_limit: float = 0.5
    """of the target's noise"""
    end_bonus: float = 0.0
    """that the end of an episode earns: 1 in MetaGenRL's released code (its defect D3)"""

    def targets(
        self, networks: DeterministicNetworks, target: Parameters, pieces: Pieces, noise: Tensor
    ) -> Tensor:
        """[P, B, T] what Q should be; noise: [P, B, T, A], clipped here."""
        after, limit = pieces.next_observations, networks.limit
        smoothed = networks.act(target, after) + noise.clamp(-self.noise_limit, self.noise_limit)
        actions = smoothed.clamp(-limit, limit)
        opinions = [networks.value(target, name, after, actions) for name in critics_in(target)]
        least = torch.stack(opinions).amin(0)
        going_on = self.discount * (1 - pieces.ended) * least
        return pieces.rewards + going_on + self.end_bonus * pieces.ended

    def __call__(
        self, networks: DeterministicNetworks, live: Parameters, pieces: Pieces, targets: Tensor
    ) -> Tensor:
        """[P] the sum of the critics' mean squared errors; padding counts as 0."""
        mask = pieces.mask
        total = pieces.rewards.new_zeros(pieces.rewards.shape[0])
        for name in critics_in(live):
            q = networks.value(live, name, pieces.observations, pieces.actions)
            total = total + (mask * (q - targets).square()).mean((1, 2))
        return total


def critics_in(parameters: Parameters) -> list[str]:
    """One, or twins."""
    return [name for name in ("critic1", "critic2") if f"{name}.0.weight" in parameters]


def moved_towards(target: Parameters, live: Parameters, speed: float) -> Parameters:
    """Target networks a step nearer to the live ones."""
    return {name: t + speed * (live[name] - t) for name, t in target.items()}
