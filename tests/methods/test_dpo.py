"""DPO: the drift is the paper's, and agents learn by it."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from probes import Choose, OneStep, TwoSteps, grow, mdps_of, seeds_of, values_at

from epg import tasks
from epg.config import Setup
from epg.lifetime import live
from epg.methods.base import agents_with, make_algorithm
from epg.methods.dpo import Dpo, drift

RATIOS = (0.2, 0.7, 0.99, 1.0, 1.01, 1.3, 4.0)
ADVANTAGES = (-2.5, -0.4, 0.0, 0.4, 2.5)
SMALL = Setup().change(
    updates=100, steps_per_update=16, minibatch=16, buffer=32, learning_rate=1e-2, hidden=(32, 32)
)


def by_hand(ratio: float, advantage: float) -> float:
    """Equation of section 5, as it stands there, a number at a time."""
    if advantage >= 0:
        x = (ratio - 1) * advantage
        return max(0.0, x - 2 * math.tanh(x / 2))
    x = math.log(ratio) * advantage
    return max(0.0, x - 0.6 * math.tanh(x / 0.6))


def test_the_drift_is_the_papers() -> None:
    pairs = list(product(RATIOS, ADVANTAGES))
    ratio, advantage = torch.tensor(pairs, dtype=torch.float64).T
    found = drift(ratio.log(), advantage)
    expected = [by_hand(r, a) for r, a in pairs]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-15)
    assert (found > 0).any() and (found >= 0).all()


@pytest.mark.parametrize("advantage", [-1.5, -1e-3, 0.0, 1e-3, 1.5])
def test_the_drift_and_its_slope_vanish_at_the_old_policy(advantage: float) -> None:
    """So the first step of an update is that of the policy gradient."""
    log_ratio = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    value = drift(log_ratio, torch.tensor([advantage], dtype=torch.float64))
    (slope,) = torch.autograd.grad(value.sum(), log_ratio)
    assert value.item() == 0.0 and slope.item() == 0.0


def test_far_from_the_old_policy_nothing_is_gained_by_going_on() -> None:
    """r·A − drift is level where A is positive; where it is not, it pulls back."""

    def slope(advantage: float, log_ratio: float) -> float:
        x = torch.tensor([log_ratio], dtype=torch.float64, requires_grad=True)
        a = torch.full_like(x, advantage)
        (found,) = torch.autograd.grad((torch.exp(x) * a - drift(x, a)).sum(), x)
        return float(found)

    assert slope(1.0, 0.05) > 0.9 and abs(slope(1.0, 3.0)) < 0.01
    assert slope(-1.0, -0.05) < -0.9 and slope(-1.0, -3.0) > 0.5


def test_the_value_net_learns_with_it() -> None:
    networks, experience = grow(OneStep(), SMALL, Dpo(), seeds_of(range(3)))
    torch.testing.assert_close(
        values_at(networks, experience, 0), torch.ones(48), atol=0.05, rtol=0
    )
    networks, experience = grow(TwoSteps(), SMALL, Dpo(discount=0.5), seeds_of(range(3)))
    assert (values_at(networks, experience, 0) - 0.5).abs().max() < 0.05


def test_agents_learn_by_it() -> None:
    setup = SMALL.change(updates=40, steps_per_update=64, buffer=64, final_episodes=50)
    task, seeds = Choose(), seeds_of(range(3))
    agents = agents_with(Dpo(), task, setup, seeds)
    lived = live(task, mdps_of(task, seeds), agents, seeds, setup.lifetime)
    assert lived.final_return.min() > 0.9
    assert lived.episode_returns[:, 0].max() < 0.7


def test_it_is_a_method_like_any_other() -> None:
    dpo, ppo = make_algorithm("dpo"), make_algorithm("ppo")
    assert dpo.tuned_as == "dpo"
    assert (*dpo.searched, "clip") == ppo.searched
    for name in ("random-cart-pole", "point-goal"):
        task, seeds = tasks.make(name), seeds_of(range(2))
        setup = Setup().change(updates=2, final_episodes=1)
        lived = live(
            task, mdps_of(task, seeds), dpo.agents(task, setup, seeds), seeds, setup.lifetime
        )
        assert np.isfinite(lived.final_return).all() and (lived.metrics["kl"] > 0).all()
