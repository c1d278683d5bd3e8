"""A2C agents with two nets whose γ moves, by each reading of the replication's line 11, and what
the change of γ is made of.

Shape letters: P agents, T steps, R rows, K policy outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.autograd.forward_ad as forward
from torch import Tensor
from torch.nn import functional

from epg.agents.base import Metrics
from epg.agents.buffer import Transitions
from epg.agents.distributions import Categorical
from epg.agents.network import Parameters, layer_shapes, mlp
from epg.agents.optimizers import Adam, Sgd, State, Stepped, clip_by_norm
from epg.agents.spec import Shapes
from epg.rules.a2c import A2c
from epg.rules.agents import RuleAgents
from epg.rules.networks import HeadedNetworks
from epg.rules.online import Tuning
from epg.rules.rollout import Rollout
from epg.rules.rule import Fixed, Update, meta_gradient
from epg.seeds import LifetimeSeeds

GAMMA = "discount"
OUTER_GAMMA = 0.99
"""γ̄"""
HIDDEN, RATE, CLIP = 40, 0.01, 0.5


WAYS = {
    "naive": "not at all",
    "definition": "by ∂f/∂γ of the update by τ, through clip and Adam",
    "formula": "by line 10 with equation 11's ∂f/∂γ, on τ, with γ̄, without clip and Adam",
    "literal": "by line 11 as printed",
    "second": "as definition, but by ∂f/∂γ of an update by τ′ at θ′",
}
"""How γ moves."""


def a2c(observation_size: int) -> A2c:
    """The rule: λ = 1, no entropy; γ is free to leave [0, 1]."""
    networks = TwoNetworks(observation_size, Categorical(2), (HIDDEN, HIDDEN), "relu")
    return A2c(
        networks, OUTER_GAMMA, 1.0, (GAMMA,), free=True, value_weight=1.0, entropy_weight=0.0
    )


@dataclass(frozen=True)
class TwoNetworks(HeadedNetworks):
    """A policy and a value that share nothing, of layers as torch.nn.Linear begins them."""

    @property
    def shapes(self) -> Shapes:
        sizes = (self.observation_size, *self.hidden)
        said = self.distribution.output_size
        return layer_shapes("policy", (*sizes, said)) | layer_shapes("value", (*sizes, 1))

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        drawn, bound = {}, 0.0
        for name, shape in self.shapes.items():  # a weight (in, out), and then its bias (out)
            bound = shape[0] ** -0.5 if name.endswith(".weight") else bound
            drawn[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
        return drawn

    def features(self, theta: Parameters, inputs: Tensor) -> Tensor:
        return inputs

    def _says(self, theta: Parameters, name: str, rows: Tensor) -> Tensor:
        layers = len(self.hidden) + 1
        return mlp(theta, name, layers, rows, self.activation, differentiable=True)

    def outputs(self, theta: Parameters, features: Tensor, name: str = "policy") -> Tensor:
        return functional.log_softmax(self._says(theta, name, features), dim=-1)

    def value(self, theta: Parameters, features: Tensor, name: str = "value") -> Tensor:
        return self._says(theta, name, features).squeeze(-1)

    def acting(self, theta: Parameters, context: Tensor | None = None) -> Parameters:
        return {name: p.detach() for name, p in theta.items() if name.startswith("policy.")}


@dataclass(frozen=True)
class ClippedAdam(Adam):
    """Adam after each net's gradient is clipped by itself."""

    def step(self, parameters: Parameters, state: State, gradients: Parameters) -> Stepped:
        clipped: Parameters = {}
        for net in ("policy.", "value."):
            own = {name: g for name, g in gradients.items() if name.startswith(net)}
            clipped |= clip_by_norm(own, CLIP)
        return super().step(parameters, state, clipped)


# What moves γ


def slopes(rule: A2c, eta: Parameters, theta: Parameters, rollout: Rollout) -> Tensor:
    """[P, T] ∂g_η/∂γ"""
    with torch.no_grad(), forward.dual_level():
        fixed = {name: p.detach() for name, p in eta.items()}
        fixed[GAMMA] = forward.make_dual(fixed[GAMMA], torch.ones_like(fixed[GAMMA]))
        slope = forward.unpack_dual(rule.returns(fixed, theta, rollout)).tangent
    assert isinstance(slope, Tensor)
    return slope


def policy_gradient(
    rule: A2c, eta: Parameters, theta: Parameters, rollout: Rollout, weights: Tensor
) -> Tensor:
    """[P, |θ|] ∇_θ of the mean over steps of weights [P, T] times log π."""
    leaves = {name: p.detach().requires_grad_() for name, p in theta.items()}
    log_probs = rule.distribution.log_prob(
        rule.outputs(eta, leaves, rollout.observations), rollout.actions
    )
    mean = (weights.detach() * log_probs).mean(1).sum()
    found = torch.autograd.grad(mean, list(leaves.values()), materialize_grads=True)
    return torch.cat([g.reshape(len(g), -1) for g in found], 1)


@dataclass(frozen=True)
class Parts:
    """What Δγ is made of, each [P]: u = ∇_θ mean(∂g/∂γ · log π) on τ, w = the policy gradient on
    τ′ at θ′ with γ̄."""

    error: Tensor
    """mean of g(τ′) − v(s′), which weighs w"""
    cosine: Tensor
    """of u and w"""
    inner: Tensor
    """u · w"""
    scores: Tensor
    """cosine of ∇_θ mean(log π) on τ and on τ′, which nothing weighs"""


def decompose(
    rule: A2c, eta: Parameters, before: Parameters, after: Parameters, first: Rollout,
    second: Rollout,
) -> Parts:  # fmt: skip
    """Of the pair of τ, which θ = `before` learned from, and τ′, which judges θ′ = `after`."""
    with torch.no_grad():
        errors = rule.outer_returns(eta, after, second) - rule.values(
            eta, after, second.observations
        )
    u = policy_gradient(rule, eta, before, first, slopes(rule, eta, before, first))
    w = policy_gradient(rule, eta, after, second, errors)
    ones = torch.ones_like(errors)
    plain = (policy_gradient(rule, eta, *each, ones) for each in ((before, first), (after, second)))
    return Parts(errors.mean(1), cosine(u, w), (u * w).sum(1), cosine(*plain))


def cosine(u: Tensor, w: Tensor) -> Tensor:
    """[P] of [P, n]; NaN where one is 0."""
    return (u * w).sum(1) / (u.square().sum(1) * w.square().sum(1)).sqrt()


def line_11(
    rule: A2c, eta: Parameters, before: Parameters, after: Parameters, first: Rollout,
    second: Rollout,
) -> Tensor:  # fmt: skip
    """[P] by which γ rises, over α, as printed: ∂g_η(τ′)/∂η beside ∂log π of τ at θ, step by step,
    and g_η(τ′) − v_φ′(S′) with the γ that is learned."""
    with torch.no_grad():
        errors = rule.returns(eta, after, second) - rule.values(eta, after, second.observations)
    u = policy_gradient(rule, eta, before, first, slopes(rule, eta, after, second))
    return (u * policy_gradient(rule, eta, after, second, errors)).sum(1)


class Agents(RuleAgents):
    """P of them that share a reading; they tell what Δγ was made of."""

    def __init__(
        self, rule: A2c, way: str, joint: bool, meta_rate: float, seeds: LifetimeSeeds,
        starts: Tensor,
    ) -> None:  # fmt: skip
        """way: one of WAYS; joint: whether both nets are clipped as one; starts: [P] γ₀."""
        update = Update(rule, Adam(RATE) if joint else ClippedAdam(RATE), CLIP if joint else None)
        tuning = Tuning(Sgd(meta_rate) if way == "definition" else None)
        super().__init__(update, tuning, seeds, "relu", eta={GAMMA: starts})
        self._a2c, self._way, self._meta_rate = rule, way, meta_rate
        self._last: tuple[Parameters, Rollout] | None = None

    @property
    def theta(self) -> Parameters:
        """θ as it is, by name."""
        return {name: p.detach() for name, p in self._online.theta.items()}

    def stand(self, theta: Parameters) -> None:
        """From now on it is these that act."""
        self._policies.append((self.eta, theta))

    def learn(self, new: Transitions) -> Metrics:
        second, found = Rollout.of(new), {}
        if self._last is not None:
            pair = (self._a2c, self.eta, self._last[0], self.theta, self._last[1], second)
            parts = decompose(*pair)
            found = {"error": parts.error, "cosine": parts.cosine, "scores": parts.scores}
            # "definition" moves γ in `Online.learn`, at the same moment
            if self._way == "literal":
                self._raise(line_11(*pair))
            elif self._way == "formula":
                self._raise(parts.inner)
            elif self._way == "second":
                self._raise(-self._second(second))
        self._last = self.theta, second
        super().learn(new)
        return found

    def _raise(self, slope: Tensor) -> None:
        eta = self.eta
        self._online.eta = {**eta, GAMMA: eta[GAMMA] + self._meta_rate * slope}

    def _second(self, rollout: Rollout) -> Tensor:
        """[P] ∂J̄(τ′, θ′)/∂θ′ · ∂f/∂γ of the update by τ′ at θ′, down which γ goes."""
        eta, update = self.eta, self._online.update
        theta = {name: p.requires_grad_() for name, p in self.theta.items()}
        fixed = Fixed.of(eta, theta, theta, {})
        outer = self._a2c.outer(eta, theta, fixed, [rollout], update).sum()
        slopes_of = torch.autograd.grad(outer, list(theta.values()), materialize_grads=True)
        leaf = {name: p.requires_grad_() for name, p in eta.items()}
        moved, _ = update(leaf, theta, self._online.moments, rollout)
        each = zip(slopes_of, moved.values(), strict=True)
        return meta_gradient(torch.stack([(g * p).sum() for g, p in each]), leaf)[GAMMA]
