"""A mixture: the weighted sum, and what has weight 0 left out."""

from __future__ import annotations

import pytest
import torch
from probes import Follow, fates_of, grow, learned_loss

from epg.config import Lifetime
from epg.losses.mixture import Mixture
from epg.losses.ppo import Ppo

SETTINGS = Lifetime(updates=2, steps_per_update=16, minibatch=16, buffer=30, hidden=(8,))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_mixture_is_the_weighted_sum(alpha: float) -> None:
    agents, experience = grow(Follow(), SETTINGS, Ppo(), fates_of(range(2)))
    learned, ppo = learned_loss(Follow(), SETTINGS, 2), Ppo()
    rows = torch.arange(16).repeat(2, 1)
    outputs = agents.outputs(experience.observations)
    parts = [loss.objective(agents, experience)(outputs, rows) for loss in (learned, ppo)]
    mixture = Mixture([(1 - alpha, learned), (alpha, ppo)])
    mixed = mixture.objective(agents, experience)(outputs, rows)
    torch.testing.assert_close(mixed, (1 - alpha) * parts[0] + alpha * parts[1])


def test_weight_0_leaves_even_a_broken_loss_out() -> None:
    agents, experience = grow(Follow(), SETTINGS, Ppo(), fates_of(range(2)))
    broken, ppo = learned_loss(Follow(), SETTINGS, 2), Ppo()
    broken.phi.fill_(torch.nan)
    broken.__post_init__()
    mixture = Mixture([(0.0, broken), (1.0, ppo)])
    assert mixture.history == 0
    rows = torch.arange(16).repeat(2, 1)
    outputs = agents.outputs(experience.observations[:, -16:])
    mixed = mixture.objective(agents, experience)(outputs, rows)
    assert torch.equal(mixed, ppo.objective(agents, experience)(outputs, rows))


def test_without_ppo_the_value_net_is_not_touched() -> None:
    agents, experience = grow(Follow(), SETTINGS, Ppo(), fates_of(range(2)))
    agents_before = agents.parameters["value.0.weight"]
    agents_before.grad = None
    mixture = Mixture([(1.0, learned_loss(Follow(), SETTINGS, 2)), (0.0, Ppo())])
    assert mixture.history == 30
    outputs = agents.outputs(experience.observations)
    loss = mixture.objective(agents, experience)(outputs, torch.arange(16).repeat(2, 1))
    loss.sum().backward()
    assert agents_before.grad is None
    assert agents.parameters["policy.0.weight"].grad.abs().sum() > 0
