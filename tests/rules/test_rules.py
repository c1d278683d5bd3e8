"""What must hold of every rule whose η is learned: gradients, batches, and that nothing is cut.

In float64, on drawn rollouts; the letters are those of the checks that the methods' papers share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import ACTIONS, AGENTS, BOTH, SEES, STEPS, drawn, networks, rollouts, stacx
from torch import Tensor

from epg.agents.distributions import Gaussian
from epg.agents.network import Parameters
from epg.agents.optimizers import Adam, RmsProp, Sgd
from epg.rules.a2c import OUTER_VALUE, A2c
from epg.rules.bmg import Bmg, LearnedEntropy
from epg.rules.frodo import Frodo
from epg.rules.lirpg import Lirpg
from epg.rules.online import Online, Tuning
from epg.rules.prediction import Prediction
from epg.rules.rollout import Rollout
from epg.rules.rule import Fixed, Optimizer, Rule, Update, meta_gradient
from epg.rules.trace import Tracer

RULES: dict[str, Callable[[], Rule]] = {
    "xu": lambda: A2c(networks(), learned=BOTH),
    "xu, discount": lambda: A2c(networks(), learned=BOTH[:1]),
    "xu, embedded": lambda: A2c(networks(context=3), learned=BOTH, embedding=3),
    "xu, outer value": lambda: A2c(networks(heads={"value": 1, OUTER_VALUE: 1}), learned=BOTH),
    "xu, continuous": lambda: A2c(networks(Gaussian(ACTIONS)), learned=BOTH),
    "stacx": stacx,
    "stac": lambda: stacx(count=1),
    "frodo": lambda: Frodo(networks(), units=2, stop=False),
    "bmg": lambda: Bmg(networks(), entropy_weight=0.3, ahead=3),
    "bmg, network": lambda: Bmg(networks(), entropy_weight=0.3, ahead=2, units=4),
    "meta-entropy": lambda: LearnedEntropy(networks(), entropy_weight=0.3, units=4),
    "lirpg": lambda: Lirpg(networks(), own_share=0.5),
    "lirpg, continuous": lambda: Lirpg(networks(Gaussian(ACTIONS)), own_share=0.5),
    "prediction": lambda: Prediction(SEES, 0.9, 0.8),
    "prediction, states": lambda: Prediction(SEES, 0.9, 0.8, states=torch.arange(STEPS) % 4),
}
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Sgd(0.1),
    "adam": Adam(0.01, denominator="exact"),
    "adam, stopped": Adam(0.01),
    "rmsprop, stopped": RmsProp(0.01),
    "rmsprop": RmsProp(0.01, denominator="smooth", epsilon=1e-2),
}


CASES = [(name, "sgd") for name in RULES] + [
    (name, way) for name in ("xu", "stac", "bmg", "lirpg") for way in ("adam", "rmsprop")
]
"""Every rule, and some of them with other optimisers."""


def unrolled(
    rule: Rule, update: Update, eta: Parameters, theta: Parameters, parts: list[Rollout],
    inner: int, fixed: Fixed | None = None,
) -> tuple[Tensor, Fixed]:  # fmt: skip
    """What η goes down after K updates, and what counted as constant: that given, if it is."""
    theta, moments = started(rule, update, theta)
    theta = {name: p.requires_grad_() for name, p in theta.items()}
    learned = theta
    for part in parts[:inner]:
        learned, moments = update(eta, learned, moments, part)
    fixed = fixed or Fixed.of(eta, learned, theta, moments)
    judges = parts[inner - 1 : inner] if rule.same_rollout else parts[inner:]
    return rule.outer(eta, learned, fixed, judges, update), fixed


def started(rule: Rule, update: Update, theta: Parameters) -> tuple[Parameters, Parameters]:
    """θ and moments after an update with an η of their own: Adam's first step is a sign, which
    has no slope to speak of."""
    eta = drawn(rule.init_eta, 5)
    return update(eta, theta, update.optimizer.init(theta), rollouts(rule, 1, 7)[0], graph=False)


def setting(name: str, inner: int) -> tuple[Rule, Parameters, Parameters, list[Rollout]]:
    rule = RULES[name]()
    eta = {n: p.requires_grad_() for n, p in drawn(rule.init_eta, 1).items()}
    return rule, eta, drawn(rule.init, 2), rollouts(rule, inner + rule.ahead + 1)


@pytest.mark.parametrize("inner", [1, 3])
@pytest.mark.parametrize(
    ("name", "optimizer"), [case for case in CASES if case[0] != "xu, embedded"]
)  # through whose context η gets no gradient: test_xu.py has its numbers
def test_a_central_differences(name: str, optimizer: str, inner: int) -> None:
    rule, eta, theta, parts = setting(name, inner)
    update = Update(rule, OPTIMIZERS[optimizer], clip=0.5)
    outer, fixed = unrolled(rule, update, eta, theta, parts, inner)
    gradient = meta_gradient(outer, eta)
    assert all(g.abs().max() > 0 for g in gradient.values())
    rng = np.random.default_rng(3)
    for _ in range(3):
        way = {n: torch.from_numpy(rng.standard_normal(p.shape)) for n, p in eta.items()}
        step = 1e-5

        def at(sign: float, way: Parameters = way, step: float = step) -> Tensor:
            there = {n: (p + sign * step * way[n]).detach() for n, p in eta.items()}
            return unrolled(rule, update, there, theta, parts, inner, fixed)[0].detach()

        wanted = (at(1) - at(-1)) / (2 * step)
        found = sum((g * way[n]).reshape(AGENTS, -1).sum(1) for n, g in gradient.items())
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", RULES)
def test_b_agents_together_are_each_alone(name: str) -> None:
    rule, eta, theta, _ = setting(name, 1)
    parts = rollouts(rule, 6 + 2 * rule.ahead)

    def lives(which: slice) -> Online:
        def some(leaves: Parameters) -> Parameters:
            return {n: p[which].clone() for n, p in leaves.items()}

        online = Online(
            Update(rule, Adam(0.01)),
            Tuning(Adam(0.1), 1 if rule.same_rollout else 2),
            some(theta),
            some(eta),
        )
        for part in parts:
            online.learn(part.mapped(lambda leaf: leaf[which]))
        return online

    together = lives(slice(None))
    assert any(not torch.equal(together.eta[n], eta[n]) for n in eta)
    for agent in range(AGENTS):
        alone = lives(slice(agent, agent + 1))
        for ours, theirs in ((together.theta, alone.theta), (together.eta, alone.eta)):
            for leaf, own in theirs.items():
                torch.testing.assert_close(
                    ours[leaf][agent : agent + 1], own, rtol=1e-9, atol=1e-12
                )


@pytest.mark.parametrize(("name", "optimizer"), CASES)
def test_c_one_exact_update_is_a_truncated_trace(name: str, optimizer: str) -> None:
    rule, eta, theta, parts = setting(name, 1)
    update = Update(rule, OPTIMIZERS[optimizer], clip=0.5)
    wanted = meta_gradient(unrolled(rule, update, eta, theta, parts, 1)[0], eta)
    for tracer in (
        (Tracer(0.0), Tracer(0.0, identity=True)) if optimizer == "sgd" else (Tracer(0.0),)
    ):
        found = traced(rule, update, tracer, eta, theta, parts, 1)
        for leaf in eta:
            torch.testing.assert_close(found[leaf], wanted[leaf], rtol=1e-9, atol=1e-12)


STOPPED = [("xu", "adam, stopped"), ("bmg", "rmsprop, stopped")]


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [case for case in CASES + STOPPED if not RULES[case[0]]().same_rollout],
)
def test_an_exact_trace_is_the_gradient_through_all_updates(name: str, optimizer: str) -> None:
    rule, eta, theta, parts = setting(name, 3)
    update = Update(rule, OPTIMIZERS[optimizer])
    wanted = meta_gradient(unrolled(rule, update, eta, theta, parts, 3)[0], eta)
    found = traced(rule, update, Tracer(), eta, theta, parts, 3)
    for leaf in eta:
        torch.testing.assert_close(found[leaf], wanted[leaf], rtol=1e-8, atol=1e-11)


def traced(
    rule: Rule, update: Update, tracer: Tracer, eta: Parameters, theta: Parameters,
    parts: list[Rollout], inner: int,
) -> Parameters:  # fmt: skip
    theta, moments = started(rule, update, theta)
    trace, learned = tracer.begin(eta, theta, moments), theta
    for part in parts[:inner]:
        learned, moments, trace = tracer.update(update, eta, learned, moments, part, trace)
    leaves = {n: p.clone().requires_grad_() for n, p in learned.items()}
    fixed = Fixed.of(eta, leaves, theta, moments)
    judges = parts[inner - 1 : inner] if rule.same_rollout else parts[inner:]
    outer = rule.outer(eta, leaves, fixed, judges, update)
    return tracer.gradient(eta, leaves, outer, trace)


def test_a_trace_through_adam_is_finite_where_a_unit_is_dead() -> None:
    rule, eta, theta, parts = setting("xu", 2)
    for name in ("torso.0.weight", "policy.weight", "value.weight"):
        rows = (slice(None), slice(None), 0) if name.startswith("torso") else (slice(None), 0)
        theta[name][rows] = 0.0  # it says nothing, and nobody listens
    update = Update(rule, Adam(0.01))
    found = traced(rule, update, Tracer(), eta, theta, parts, 2)
    assert all(g.isfinite().all() and g.any() for g in found.values())


@pytest.mark.parametrize("name", RULES)
def test_d_without_learning_there_is_no_gradient(name: str) -> None:
    rule, eta, theta, parts = setting(name, 2)
    if isinstance(rule, Frodo):
        rule = replace(rule, consistency=0.0)
    if isinstance(rule, Lirpg):
        rule = replace(rule, outer_value_weight=0.0)
    outer, _ = unrolled(rule, Update(rule, Sgd(0.0)), eta, theta, parts, 2)
    found = torch.autograd.grad(outer.sum(), list(eta.values()), materialize_grads=True)
    assert all(not gradient.any() for gradient in found)


@pytest.mark.parametrize("name", RULES)
def test_e_what_an_update_does_not_read_is_told_or_zero(name: str) -> None:
    rule, eta, theta, parts = setting(name, 1)
    more = {**eta, "unread": torch.ones(AGENTS, dtype=torch.float64, requires_grad=True)}
    outer, _ = unrolled(rule, Update(rule, Sgd(0.1)), more, theta, parts, 1)
    with pytest.raises(RuntimeError, match="no gradient reaches 'unread'"):
        meta_gradient(outer, more)


def test_e_a_state_that_is_never_entered_has_no_gradient() -> None:
    rule = Prediction(SEES, 0.9, 0.8, states=torch.arange(STEPS) % 4)
    eta = drawn(replace(rule, states=torch.arange(6)).init_eta, 1)
    eta = {n: p.requires_grad_() for n, p in eta.items()}
    outer, _ = unrolled(
        rule, Update(rule, Sgd(0.1)), eta, drawn(rule.init, 2), rollouts(rule, 2), 1
    )
    for gradient in meta_gradient(outer, eta).values():
        assert gradient[:, :4].all()
        assert not gradient[:, 4:].any()


@pytest.mark.parametrize("name", RULES)
def test_f_where_eta_stands_still_learning_is_the_plain_rule(name: str) -> None:
    rule, eta, theta, _ = setting(name, 1)
    parts = rollouts(rule, 4 + rule.ahead)

    def lives(tuning: Tuning) -> Parameters:
        online = Online(Update(rule, Adam(0.01), clip=0.5), tuning, theta, eta)
        for part in parts:
            online.learn(part)
        return online.theta

    plain = lives(Tuning(None))
    tunings = [Tuning(Sgd(0.0))]
    if not rule.same_rollout:
        tunings.append(Tuning(Sgd(0.0), 2))
    if not (rule.ahead or rule.same_rollout) and name != "prediction, states":
        tunings.append(Tuning(Sgd(0.0), judged="halves"))
    for tuning in tunings:
        moved = lives(tuning)
        assert all(torch.equal(plain[leaf], moved[leaf]) for leaf in plain)


@pytest.mark.parametrize("name", RULES)
def test_detached_is_exact_where_one_update_counts_and_not_where_more_do(name: str) -> None:
    rule, eta, theta, parts = setting(name, 3)
    one, more = [], []
    for exact in (True, False):
        update = Update(rule, Sgd(0.1), exact=exact)
        ahead = [*parts[:1], *parts[3:]]
        one.append(meta_gradient(unrolled(rule, update, eta, theta, ahead, 1)[0], eta))
        more.append(meta_gradient(unrolled(rule, update, eta, theta, parts, 3)[0], eta))
    for leaf in eta:
        torch.testing.assert_close(one[0][leaf], one[1][leaf], rtol=1e-12, atol=1e-15)
    assert any(not torch.allclose(more[0][leaf], more[1][leaf], rtol=1e-3) for leaf in eta)
