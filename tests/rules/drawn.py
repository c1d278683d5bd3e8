"""Rules of small networks, and rollouts and parameters drawn for them, in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from epg.agents.distributions import Categorical, Distribution
from epg.agents.network import Parameters
from epg.rules.bmg import SEEN
from epg.rules.networks import HeadedNetworks
from epg.rules.rollout import Rollout
from epg.rules.rule import Rule
from epg.rules.stacx import NAMES, Stacx, heads

AGENTS, STEPS, SEES, ACTIONS = 3, 8, 3, 2
BOTH = ("discount", "smoothing")


def networks(distribution: Distribution | None = None, **other: object) -> HeadedNetworks:
    return HeadedNetworks(SEES, distribution or Categorical(ACTIONS), (4,), **other)  # type: ignore[arg-type]


def stacx(learned: tuple[str, ...] = NAMES, count: int = 3, **other: float) -> Stacx:
    policies, values = heads(count)
    return Stacx(networks(heads=values, policies=policies), learned, **other)  # type: ignore[arg-type]


def rollouts(rule: Rule, count: int, seed: int = 0) -> list[Rollout]:
    """Drawn, with an end and a cut in the middle."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal((AGENTS, STEPS, *shape)))

    def draw() -> Rollout:
        going_on = torch.ones(AGENTS, STEPS, dtype=torch.float64)
        going_on[:, 2] = 0.0
        joined = going_on > 0
        joined[:, 5] = joined[:, -1] = False
        if rule.distribution.discrete:
            size = rule.distribution.action_size
            actions = torch.from_numpy(rng.integers(0, size, (AGENTS, STEPS)))
        else:
            actions = normal(ACTIONS)
        mu = -1.0 + 0.3 * normal()
        recent = torch.from_numpy(rng.standard_normal((AGENTS, SEEN)))
        return Rollout(normal(SEES), actions, normal(), going_on, joined, normal(SEES), mu, recent)

    return [draw() for _ in range(count)]


def drawn(init: Callable[[np.random.Generator], dict[str, np.ndarray]], seed: int) -> Parameters:
    """[P, …], each agent's a little off what `init` says, so that nothing is 0 by chance."""
    each = []
    for agent in range(AGENTS):
        rng = np.random.default_rng([seed, agent])
        each.append({n: a + 0.3 * rng.standard_normal(np.shape(a)) for n, a in init(rng).items()})
    return {n: torch.from_numpy(np.stack([e[n] for e in each])) for n in each[0]}
