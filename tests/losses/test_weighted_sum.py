"""Losses added with weights: the sum, and what has weight 0 left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from probes import Follow, grow, learned_loss, seeds_of

from epg.agents.age import Age
from epg.config import Setup
from epg.losses.ppo import Ppo
from epg.losses.temporal_conv import TemporalConvLoss
from epg.losses.weighted_sum import Fading, WeightedSum

SETTINGS = Setup().change(updates=2, steps_per_update=16, minibatch=16, buffer=30, hidden=(8,))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_it_is_the_weighted_sum(alpha: float) -> None:
    agents, experience = grow(Follow(), SETTINGS, Ppo(), seeds_of(range(2)))
    learned, ppo = learned_loss(Follow(), SETTINGS, 2), Ppo()
    rows = torch.arange(16).repeat(2, 1)
    outputs = agents.outputs(experience.observations)
    parts = [loss.objective(agents, experience)(outputs, rows) for loss in (learned, ppo)]
    weighted = WeightedSum([(1 - alpha, learned), (alpha, ppo)])
    mixed = weighted.objective(agents, experience)(outputs, rows)
    torch.testing.assert_close(mixed, (1 - alpha) * parts[0] + alpha * parts[1])


@pytest.mark.parametrize(("age", "weight"), [(0, 0.6), (5, 0.3), (15, 0.15), (5_000_000, 0.0)])
def test_one_that_fades_leaves_its_weight_to_the_other(age: int, weight: float) -> None:
    agents, experience = grow(Follow(), SETTINGS, Ppo(), seeds_of(range(2)))
    learned, ppo = learned_loss(Follow(), SETTINGS, 2), Ppo()
    rows = torch.arange(16).repeat(2, 1)
    outputs = agents.outputs(experience.observations)
    parts = [loss.objective(agents, experience)(outputs, rows) for loss in (learned, ppo)]
    aged = replace(experience, age=Age(age, 10_000_000))
    fading = Fading(0.6, learned, ppo, updates=5)
    assert fading.history == learned.history
    mixed = fading.objective(agents, aged)(outputs, rows)
    torch.testing.assert_close(mixed, weight * parts[0] + (1 - weight) * parts[1])


def test_weight_0_leaves_even_a_broken_loss_out() -> None:
    agents, experience = grow(Follow(), SETTINGS, Ppo(), seeds_of(range(2)))
    broken, ppo = learned_loss(Follow(), SETTINGS, 2), Ppo()
    nothing = {name: torch.full_like(p, torch.nan) for name, p in broken.params.items()}
    broken = TemporalConvLoss(broken.layout, nothing)
    rows = torch.arange(16).repeat(2, 1)
    alone = broken.objective(agents, experience)(agents.outputs(experience.observations), rows)
    assert alone.isnan().all()
    weighted = WeightedSum([(0.0, broken), (1.0, ppo)])
    assert weighted.history == 0
    outputs = agents.outputs(experience.observations[:, -16:])
    mixed = weighted.objective(agents, experience)(outputs, rows)
    assert torch.equal(mixed, ppo.objective(agents, experience)(outputs, rows))


def test_without_ppo_the_value_net_is_not_touched() -> None:
    agents, experience = grow(Follow(), SETTINGS, Ppo(), seeds_of(range(2)))
    agents_before = agents.parameters["value.0.weight"]
    agents_before.grad = None
    weighted = WeightedSum([(1.0, learned_loss(Follow(), SETTINGS, 2)), (0.0, Ppo())])
    assert weighted.history == 30
    outputs = agents.outputs(experience.observations)
    loss = weighted.objective(agents, experience)(outputs, torch.arange(16).repeat(2, 1))
    loss.sum().backward()
    assert agents_before.grad is None
    assert agents.parameters["policy.0.weight"].grad.abs().sum() > 0
