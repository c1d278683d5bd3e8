"""What each paper's method comes to where that is known: limits, closed forms, what must not move.

In float64. Shape letters: P agents, T steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from drawn import AGENTS, STEPS, drawn, networks, rollouts, stacx
from torch import Tensor

from epg.agents.network import Parameters
from epg.agents.optimizers import Sgd
from epg.rules.a2c import A2c
from epg.rules.bmg import WEIGHT, Bmg
from epg.rules.frodo import Frodo
from epg.rules.lirpg import Lirpg
from epg.rules.prediction import VALUE, Prediction
from epg.rules.returns import bootstrapped, lambda_returns, vtrace
from epg.rules.rollout import Rollout
from epg.rules.rule import Fixed, Update, meta_gradient
from epg.rules.stacx import NAMES, Stacx

ONE = A2c(networks())
TO_THE_BIT = {"rtol": 1e-12, "atol": 1e-14}


def moved(rule: A2c | Stacx, eta: Parameters, part: Rollout, rate: float = 0.1) -> Parameters:
    """θ after an update."""
    theta = drawn(rule.init, 2)
    return Update(rule, Sgd(rate))(eta, theta, {}, part)[0]


# Xu, van Hasselt & Silver 2018


def test_lambda_of_0_is_td_and_of_1_all_rewards_to_the_end_of_the_rollout() -> None:
    part = rollouts(ONE, 1)[0]
    following = torch.from_numpy(np.random.default_rng(0).standard_normal((AGENTS, STEPS)))
    discounts = 0.9 * part.going_on
    td = lambda_returns(part.rewards, discounts, following, part.joined, 0.0)
    torch.testing.assert_close(td, part.rewards + discounts * following, **TO_THE_BIT)
    found = lambda_returns(part.rewards, discounts, following, part.joined, 1.0)
    for agent in range(AGENTS):
        for first in range(STEPS):
            total, weight, t = 0.0, 1.0, first
            while True:
                total += weight * float(part.rewards[agent, t])
                weight *= float(discounts[agent, t])
                if not part.joined[agent, t]:
                    break
                t += 1
            total += weight * float(following[agent, t])
            assert float(found[agent, first]) == pytest.approx(total, rel=1e-12)


def test_gamma_of_0_leaves_lambda_without_a_say() -> None:
    rule = A2c(networks(), learned=("discount", "smoothing"), free=True)
    eta = {
        "discount": torch.zeros(AGENTS, dtype=torch.float64, requires_grad=True),
        "smoothing": torch.full((AGENTS,), 0.5, dtype=torch.float64, requires_grad=True),
    }
    returns = rule.returns(eta, drawn(rule.init, 2), rollouts(rule, 1)[0])
    slopes = torch.autograd.grad(returns.sum(), list(eta.values()))
    assert slopes[0].all() and not slopes[1].any()


def test_the_slope_of_an_update_by_eta_is_the_papers() -> None:
    """∂f/∂η = α mean(∂g/∂η ∂v/∂θ): equation 8, for linear values."""
    rule = Prediction(3, learned=("discount", "smoothing"), free=True)
    part, theta = rollouts(rule, 1)[0], drawn(rule.init, 2)
    eta = {
        n: torch.full((AGENTS,), x, dtype=torch.float64, requires_grad=True)
        for n, x in (("discount", 0.9), ("smoothing", 0.7))
    }
    after = Update(rule, Sgd(0.1))(eta, theta, {}, part)[0][VALUE]
    returns = rule.returns(eta, theta, part)
    for name, number in eta.items():
        wanted = torch.zeros_like(after)
        for t in range(STEPS):
            slope = torch.autograd.grad(returns[:, t].sum(), number, retain_graph=True)[0]
            wanted += 0.1 / STEPS * slope.unsqueeze(1) * part.observations[:, t]
        for i in range(after.shape[1]):
            found = torch.autograd.grad(after[:, i].sum(), number, retain_graph=True)[0]
            torch.testing.assert_close(found, wanted[:, i].detach(), **TO_THE_BIT)
        assert wanted.abs().max() > 0, name


# Zahavy et al. 2020


def targets_of(
    ratios: Tensor, leak: tuple[Tensor | float, Tensor | float], smoothing: float = 0.9
) -> tuple[Tensor, Tensor, Rollout, Tensor, Tensor]:
    part = rollouts(ONE, 1)[0]
    rng = np.random.default_rng(4)
    values, following = (torch.from_numpy(rng.standard_normal((AGENTS, STEPS))) for _ in range(2))
    found, weights = vtrace(
        values, following, part.rewards, 0.9 * part.going_on, part.joined, ratios, smoothing, leak
    )
    return found, weights, part, values, following


def ratios(most: float) -> Tensor:
    drawn = np.random.default_rng(5).uniform(0.2, most, (AGENTS, STEPS))
    return torch.from_numpy(drawn)


def test_a_leak_of_0_is_plain_importance_sampling() -> None:
    each = ratios(3.0)
    found, weights, part, values, following = targets_of(each, (0.0, 0.0))
    torch.testing.assert_close(weights, each, **TO_THE_BIT)
    # from the last step to the first: v + ρ(r + d v′ − v) + d λρ(v″ − v′)
    for t in range(STEPS - 1, -1, -1):
        discount = 0.9 * part.going_on[:, t]
        error = each[:, t] * (part.rewards[:, t] + discount * following[:, t] - values[:, t])
        wanted = values[:, t] + error
        if t + 1 < STEPS:
            later = 0.9 * each[:, t] * discount * (found[:, t + 1] - values[:, t + 1])
            wanted = wanted + torch.where(part.joined[:, t], later, 0.0)
        torch.testing.assert_close(found[:, t], wanted, **TO_THE_BIT)


def test_on_policy_the_leaks_do_not_matter_and_targets_are_returns() -> None:
    """Where v of the next row is v of what the step led to."""
    part = rollouts(ONE, 1)[0]
    values = torch.from_numpy(np.random.default_rng(4).standard_normal((AGENTS, STEPS)))
    following = torch.where(part.joined, torch.roll(values, -1, 1), 0.3)
    discounts = 0.9 * part.going_on
    found = [
        vtrace(
            values, following, part.rewards, discounts, part.joined, torch.ones_like(values), 1.0,
            (leak, leak),
        )[0]
        for leak in (0.0, 0.4, 1.0)
    ]  # fmt: skip
    wanted = lambda_returns(part.rewards, discounts, following, part.joined, 1.0)
    for each in found:
        torch.testing.assert_close(each, wanted, **TO_THE_BIT)


def test_leaks_have_no_slope_where_no_ratio_is_above_1() -> None:
    leak = torch.full((AGENTS, 1), 0.6, dtype=torch.float64, requires_grad=True)
    for most, moves in ((1.0, False), (3.0, True)):
        found = targets_of(ratios(most), (leak, leak))[0]
        slope = torch.autograd.grad(found.square().sum(), leak)[0]
        assert bool(slope.any()) == moves


def test_a_target_of_the_next_row_is_what_an_action_was_worth() -> None:
    found, _, part, values, following = targets_of(ratios(1.0), (1.0, 1.0))
    worth = bootstrapped(part.rewards, 0.9 * part.going_on, found, values, following, part.joined)
    joined = part.joined[:, 0]
    wanted = part.rewards[:, 0] + 0.9 * part.going_on[:, 0] * found[:, 1]
    torch.testing.assert_close(worth[:, 0][joined], wanted[joined], **TO_THE_BIT)


def test_heads_that_do_not_act_reach_eta_through_the_torso_alone() -> None:
    rule = stacx()
    eta = {n: p.requires_grad_() for n, p in drawn(rule.init_eta, 1).items()}
    parts, theta = rollouts(rule, 2), drawn(rule.init, 2)
    for frozen in (False, True):
        learned = Update(rule, Sgd(0.1))(eta, theta, {}, parts[0])[0]
        if frozen:
            learned |= {n: p for n, p in theta.items() if n.startswith("torso")}
        outer = rule.outer(
            eta, learned, Fixed.of(eta, learned, theta, {}), parts[1:], Update(rule, Sgd(0.1))
        )
        for name, gradient in meta_gradient(outer, eta).items():
            assert gradient[:, 0].all(), name
            assert bool(gradient[:, 1:].any()) != frozen, name


def test_the_divergence_from_before_holds_a_policy_where_it_is() -> None:
    """The larger its weight, the more η's gradient is the divergence's, which for an unmoved policy
    is 0."""
    parts, theta = rollouts(stacx(), 2), drawn(stacx().init, 2)
    sizes = []
    for rate in (0.0, 0.1):
        rule = stacx(kl_weight=1e6)
        eta = {n: p.requires_grad_() for n, p in drawn(rule.init_eta, 1).items()}
        learned = Update(rule, Sgd(rate))(eta, theta, {}, parts[0])[0]
        fixed = Fixed.of(eta, learned, theta, {})
        sizes.append(rule.outer(eta, learned, fixed, parts[1:], Update(rule, Sgd(rate))))
    assert (sizes[0].abs() < 2).all() and (sizes[1] > 5).all()


def test_tied_leaks_are_one_number() -> None:
    rule = stacx(tie_leak=True)
    eta = drawn(rule.init_eta, 1)
    assert "leak_trace" not in eta
    both = (rule.coefficient(eta, name, 1) for name in NAMES[-2:])
    assert torch.equal(*both)  # type: ignore[arg-type]


# Xu et al. 2020


@dataclass(frozen=True)
class Recursion(Frodo):
    """FRODO whose target is the recursion that A2C has."""

    def returns(self, eta: Parameters, theta: Parameters, rollout: Rollout) -> Tensor:
        return A2c.returns(self, {}, theta, rollout)


def test_a_target_that_is_the_return_makes_it_a2c() -> None:
    rule = Recursion(networks(), units=2)
    part = rollouts(rule, 1)[0]
    plain = moved(ONE, {}, part)
    found = moved(rule, drawn(rule.init_eta, 1), part)
    assert all(torch.equal(plain[n], found[n]) for n in plain)


def test_true_returns_are_consistent() -> None:
    rule = Recursion(networks(), smoothing=1.0, units=2)
    theta, part = drawn(rule.init, 2), rollouts(rule, 1)[0]
    fixed = Fixed.of({}, theta, theta, {})
    assert rule.inconsistency({}, theta, fixed, part).abs().max() < 1e-28
    assert Frodo.inconsistency(
        replace(rule, smoothing=0.5), {}, theta, fixed, part
    ).min() > 1e-3  # fmt: skip


def test_consistency_reaches_the_target_though_nothing_was_learned() -> None:
    for weight, moves in ((0.0, False), (0.1, True)):
        rule = Frodo(networks(), units=2, consistency=weight)
        eta = {n: p.requires_grad_() for n, p in drawn(rule.init_eta, 1).items()}
        parts, theta = rollouts(rule, 2), drawn(rule.init, 2)
        update = Update(rule, Sgd(0.0))
        learned = update(eta, theta, {}, parts[0])[0]
        fixed = Fixed.of(eta, learned, theta, {})
        outer = rule.outer(eta, learned, fixed, parts[1:], update)
        found = torch.autograd.grad(outer.sum(), list(eta.values()))
        assert any(bool(g.any()) for g in found) == moves


# Flennerhag et al. 2022


def test_where_the_target_is_the_policy_there_is_nothing_to_match() -> None:
    """No updates ahead but one plain one that moves nothing."""
    rule = Bmg(networks(), ahead=1)
    eta = {WEIGHT: torch.ones(AGENTS, dtype=torch.float64, requires_grad=True)}
    theta, parts = drawn(rule.init, 2), rollouts(rule, 3)
    for rate, distance in ((0.0, False), (0.1, True)):
        learned = Update(rule, Sgd(0.1))(eta, theta, {}, parts[0])[0]
        fixed = Fixed.of(eta, learned, theta, {})
        outer = rule.outer(eta, learned, fixed, parts[1:], Update(rule, Sgd(rate)))
        gradient = meta_gradient(outer, eta)[WEIGHT]
        assert bool((outer.abs() > 1e-12).all()) == distance
        assert bool((gradient.abs() > 1e-9).all()) == distance


def test_no_gradient_goes_through_the_target() -> None:
    rule = Bmg(networks(), ahead=2)
    eta = {WEIGHT: torch.ones(AGENTS, dtype=torch.float64, requires_grad=True)}
    theta, parts = drawn(rule.init, 2), rollouts(rule, 3)
    fixed = Fixed.of(eta, theta, theta, {})
    target = rule.target(fixed, parts[:2], Update(rule, Sgd(0.1)))
    assert not any(p.requires_grad for p in target.values())


# Zheng, Oh & Singh 2018


def test_without_a_share_of_its_own_rewards_it_is_a2c_and_they_get_no_gradient() -> None:
    rule = Lirpg(networks(), own_share=0.0, outer_value_weight=0.0)
    eta = {n: p.requires_grad_() for n, p in drawn(rule.init_eta, 1).items()}
    part, theta = rollouts(rule, 1)[0], drawn(rule.init, 2)
    plain, found = moved(ONE, {}, part), moved(rule, eta, part)
    assert all(torch.equal(plain[n], found[n]) for n in plain)
    update = Update(rule, Sgd(0.1))
    learned = update(eta, theta, {}, part)[0]
    outer = rule.outer(eta, learned, Fixed.of(eta, learned, theta, {}), [part], update)
    gradients = torch.autograd.grad(outer.sum(), list(eta.values()), materialize_grads=True)
    assert not any(g.any() for g in gradients)


def test_returns_are_linear_in_its_own_rewards() -> None:
    rule = Lirpg(networks(), own_share=0.5)
    part, theta, eta = rollouts(rule, 1)[0], drawn(rule.init, 2), drawn(rule.init_eta, 1)
    own = rule.own_rewards(eta, part)
    assert (own.abs() < 1).all() and own.std() > 0.01
    found = rule.returns(eta, theta, part) - rule.returns({}, theta, part)
    wanted = lambda_returns(
        0.5 * own, rule.discount * part.going_on, torch.zeros_like(own), part.joined,
        rule.smoothing,
    )  # fmt: skip
    torch.testing.assert_close(found, wanted, **TO_THE_BIT)
