"""The numbers that rules are compared with, read from tests/metagradient_vectors, and agents made
from them. Sizes come from the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from epg.agents.distributions import Categorical
from epg.agents.network import Parameters
from epg.agents.optimizers import RmsProp
from epg.rules.a2c import EMBEDDING, A2c
from epg.rules.networks import HeadedNetworks
from epg.rules.rollout import Rollout
from epg.rules.rule import Fixed, Rule, Update

FOLDER = Path(__file__).parents[1] / "metagradient_vectors"
VALUES, GRADIENTS = 1e-9, 1e-8
"""Relative, beside 1e-10 of the largest entry of an array."""
Numbers = Mapping[str, Tensor]


def load(name: str) -> dict[str, Tensor]:
    arrays = np.load(FOLDER / f"{name}.npz")
    return {
        key: torch.from_numpy(arrays[key])
        for key in arrays.files
        if arrays[key].dtype.kind in "fib"
    }


def close(found: Tensor, wanted: Tensor, relative: float = VALUES) -> None:
    scale = float(wanted.abs().max())
    torch.testing.assert_close(found.detach(), wanted, rtol=relative, atol=1e-10 * scale)


def judged(
    rule: Rule, eta: Parameters, learned: Parameters, start: Parameters, rollouts: list[Rollout],
    update: Update, moments: Parameters,
) -> Tensor:  # fmt: skip
    """What η goes down, with all that counts as constant as it is."""
    return rule.outer(eta, learned, Fixed.of(eta, learned, start, moments), rollouts, update)


def rollout_of(numbers: Numbers, prefix: str, row: int | None = None) -> Rollout:
    """Of a file's rollouts [P, K + 1, T, …] the one in a row, or of [P, T, …] all of it."""
    which = slice(None) if row is None else (slice(None), row)
    names = ("obs", "a", "r", "cont", "next_obs")
    obs, actions, rewards, cont, after = (numbers[f"{prefix}{n}"][which] for n in names)
    joined = cont > 0
    joined[:, -1] = False
    log_mu = numbers.get(f"{prefix}mu_logp")
    return Rollout(obs, actions, rewards, cont.double(), joined, after, log_mu)


PLAIN = {
    "torso.0.weight": "W1", "torso.0.bias": "b1", "policy.weight": "W2", "policy.bias": "b2",
    "value.weight": "W3", "value.bias": "b3",
}  # fmt: skip
"""Our names of an actor-critic with one hidden layer, and the files'."""


def parameters(numbers: Numbers, prefix: str, names: Mapping[str, str]) -> Parameters:
    return {ours: numbers[f"{prefix}{theirs}"].clone() for ours, theirs in names.items()}


def networks_of(numbers: Numbers, prefix: str, context: int = 0) -> HeadedNetworks:
    inputs, hidden = numbers[f"{prefix}W1"].shape[1:]
    actions = numbers[f"{prefix}W2"].shape[2]
    return HeadedNetworks(inputs - context, Categorical(actions), (hidden,), context=context)


class OneAtFirst(RmsProp):
    """RMSProp whose mean squares begin at 1, and whose ε is within the root."""

    def init(self, parameters: Parameters) -> Parameters:
        return {f"square.{name}": torch.ones_like(p) for name, p in parameters.items()}

    def step(self, parameters: Parameters, state: Parameters, gradients: Parameters):  # type: ignore[no-untyped-def]
        smooth = RmsProp(self.learning_rate, self.decay, self.epsilon**0.5, "smooth")
        return smooth.step(parameters, state, gradients)


def control(numbers: Numbers) -> tuple[A2c, Parameters]:
    embedding = numbers["param_W_eta"].shape[2]
    gamma, smoothing = (float(x) for x in numbers["etabar"])
    rule = A2c(
        networks_of(numbers, "param_", embedding), gamma, smoothing, ("discount", "smoothing"),
        free=True, value_weight=float(numbers["b"]), entropy_weight=float(numbers["c"]),
        embedding=embedding,
    )  # fmt: skip
    return rule, parameters(numbers, "param_", {**PLAIN, EMBEDDING: "W_eta"})


def eta_of(numbers: Numbers) -> Parameters:
    eta = numbers["eta"]
    return {n: eta[:, i].clone().requires_grad_() for i, n in enumerate(("discount", "smoothing"))}
