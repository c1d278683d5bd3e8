"""A torso with linear heads, P of them at once, which can be differentiated any number of times.

Shape letters: P agents, R rows, O observation, I inputs, H units, K policy outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from epg.agents.distributions import Distribution
from epg.agents.network import ACTIVATIONS, Parameters, draw_layer, layer_shapes, mlp
from epg.agents.spec import Shapes

HEAD_NORM = 0.01
"""Of a head's weights at first, as of the last layers of other agents."""


@dataclass(frozen=True)
class HeadedNetworks:
    """A policy, a value and whatever else reads the same features.

    Parameters by name, each [P, …]: torso.0, …, policy, value, and what `heads` names.
    """

    observation_size: int
    distribution: Distribution
    hidden: tuple[int, ...]
    activation: str = "tanh"
    heads: Mapping[str, int] = field(default_factory=lambda: {"value": 1})
    """sizes by name, besides the policies' heads"""
    policies: tuple[str, ...] = ("policy",)
    """names of the policies' heads; the first one acts"""
    context: int = 0
    """inputs besides the observation"""

    @property
    def shapes(self) -> Shapes:
        """Of one agent."""
        sizes = (self.observation_size + self.context, *self.hidden)
        shapes = dict(layer_shapes("torso", sizes))
        said = self.distribution.action_size
        for name, size in {**dict.fromkeys(self.policies, said), **self.heads}.items():
            shapes |= {f"{name}.weight": (sizes[-1], size), f"{name}.bias": (size,)}
        if not self.distribution.discrete:
            shapes |= {f"{name}.log_std": (said,) for name in self.policies}
        return shapes

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One agent's parameters at first: normal weights, of norm 1 from an input of the torso,
        of 0.01 to a head; all else 0."""
        return {
            name: draw_layer(rng, shape, 1.0 if name.startswith("torso") else HEAD_NORM)
            if name.endswith(".weight")
            else np.zeros(shape, np.float32)
            for name, shape in self.shapes.items()
        }

    def features(self, theta: Parameters, inputs: Tensor) -> Tensor:
        """[P, R, H] of inputs [P, R, I]."""
        if not self.hidden:
            return inputs
        below = mlp(theta, "torso", len(self.hidden), inputs, self.activation, differentiable=True)
        return ACTIVATIONS[self.activation].plain(below)

    def head(self, theta: Parameters, name: str, features: Tensor) -> Tensor:
        """[P, R, n] what a head says of features."""
        bias = theta[f"{name}.bias"].unsqueeze(1)
        return torch.baddbmm(bias, features, theta[f"{name}.weight"])

    def outputs(self, theta: Parameters, features: Tensor, name: str = "policy") -> Tensor:
        """[P, R, K] of a policy."""
        head = self.head(theta, name, features)
        if self.distribution.discrete:
            return functional.log_softmax(head, dim=-1)
        log_std = theta[f"{name}.log_std"].unsqueeze(1)
        return torch.cat((head, log_std.expand_as(head)), dim=-1)

    def value(self, theta: Parameters, features: Tensor, name: str = "value") -> Tensor:
        """[P, R] of a head with one output."""
        return self.head(theta, name, features).squeeze(-1)

    def acting(self, theta: Parameters, context: Tensor | None = None) -> Parameters:
        """The policy that acts as one plain network, "policy"; context: [P, n] constant inputs."""
        layers = len(self.hidden)
        policy = {}
        for i in range(layers + 1):
            source = f"torso.{i}" if i < layers else self.policies[0]
            for kind in ("weight", "bias"):
                policy[f"policy.{i}.{kind}"] = theta[f"{source}.{kind}"].detach()
        if context is not None:
            weight, seen = policy["policy.0.weight"], self.observation_size
            shift = torch.bmm(context.detach().unsqueeze(1), weight[:, seen:]).squeeze(1)
            policy["policy.0.weight"] = weight[:, :seen].contiguous()
            policy["policy.0.bias"] = policy["policy.0.bias"] + shift
        if not self.distribution.discrete:
            policy["policy.log_std"] = theta[f"{self.policies[0]}.log_std"].detach()
        return policy
