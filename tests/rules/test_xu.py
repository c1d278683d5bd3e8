"""Xu et al. 2018 against numbers that were computed apart from it, in float64: λ-returns, traces,
prediction, control.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from vectors import (
    GRADIENTS,
    PLAIN,
    Numbers,
    OneAtFirst,
    close,
    control,
    eta_of,
    judged,
    load,
    rollout_of,
)

from epg.agents.optimizers import Adam, Sgd
from epg.rules.a2c import EMBEDDING
from epg.rules.prediction import VALUE, Prediction
from epg.rules.returns import lambda_returns
from epg.rules.rollout import Rollout
from epg.rules.rule import Update, meta_gradient
from epg.rules.trace import Tracer


def test_lambda_returns_are_those_of_rlax() -> None:
    numbers = load("xu_prediction")
    gamma, smoothing = numbers["eta"]
    joined = torch.ones_like(numbers["r"][:-1], dtype=torch.bool)
    joined[:, -1] = False
    joined &= numbers["cont"][:-1] > 0
    following = (numbers["x_next"][:-1] * numbers["theta"][:-1].unsqueeze(1)).sum(-1)
    found = lambda_returns(
        numbers["r"][:-1], gamma * numbers["cont"][:-1], following, joined, smoothing
    )
    close(found, numbers["rlax_lambda_returns"])
    close(found, numbers["g"])


def test_prediction_and_its_traces() -> None:
    numbers = load("xu_prediction")
    steps, updates = numbers["r"].shape[1], len(numbers["r"]) - 1
    gamma, smoothing = (float(x) for x in numbers["etabar"])
    rule = Prediction(numbers["phi"].shape[1], gamma, smoothing, free=True)
    update = Update(rule, Sgd(float(numbers["alpha"])))
    eta = {n: numbers["eta"][i : i + 1].clone() for i, n in enumerate(rule.learned)}
    parts = [prediction_part(numbers, k, steps) for k in range(updates + 1)]
    for decay, identity, key in [
        (1.0, False, None),
        *[
            (float(mu), way == "identity", way)
            for mu in numbers["mus"]
            for way in ("identity", "decay")
        ],
    ]:
        tracer = Tracer(decay, identity)
        theta = {VALUE: numbers["theta"][:1].clone()}
        trace = tracer.begin(eta, theta, {})
        for k in range(updates):
            theta, _, trace = tracer.update(update, eta, theta, {}, parts[k], trace)
            close(theta[VALUE][0], numbers["theta"][k + 1])
            place = () if key is None else (list(numbers["mus"]).index(decay),)
            found = trace[VALUE][:, 0].T
            wanted = numbers[f"z_{key or 'exact'}"][(k, *place)]
            close(found, wanted, GRADIENTS)
            learned = {VALUE: theta[VALUE].clone().requires_grad_()}
            outer = judged(rule, {}, learned, theta, [parts[k + 1]], update, {})
            leaves = {n: p.requires_grad_() for n, p in eta.items()}
            gradient = tracer.gradient(leaves, learned, outer, trace)
            found = torch.cat([gradient[n] for n in rule.learned])
            close(found, numbers[f"metagrad_{key or 'exact'}"][(k, *place)], GRADIENTS)


@pytest.mark.parametrize("free", [True, False])
def test_prediction_unrolled_is_the_exact_trace(free: bool) -> None:
    numbers = load("xu_prediction")
    steps, updates = numbers["r"].shape[1], len(numbers["r"]) - 1
    gamma, smoothing = (float(x) for x in numbers["etabar"])
    rule = Prediction(numbers["phi"].shape[1], gamma, smoothing, free=free)
    update = Update(rule, Sgd(float(numbers["alpha"])))
    start = numbers["eta"] if free else numbers["eta_logit"]
    eta = {n: start[i : i + 1].clone().requires_grad_() for i, n in enumerate(rule.learned)}
    theta, moments = {VALUE: numbers["theta"][:1].clone().requires_grad_()}, {}
    first = theta
    parts = [prediction_part(numbers, k, steps) for k in range(updates + 1)]
    for k in range(updates):
        theta, moments = update(eta, theta, moments, parts[k])
        outer = judged(rule, eta, theta, first, [parts[k + 1]], update, moments)
        found = torch.autograd.grad(outer.sum(), list(eta.values()), retain_graph=True)
        name = "metagrad_exact" if free else "metagrad_exact_logit"
        close(torch.cat(found), numbers[name][k], GRADIENTS)
    last = {VALUE: theta[VALUE].detach().requires_grad_()}
    outer = judged(rule, eta, last, first, [parts[-1]], update, moments)
    close(torch.autograd.grad(outer.sum(), last[VALUE])[0][0], numbers["jbar_grad_last"], GRADIENTS)


def prediction_part(numbers: Numbers, k: int, steps: int) -> Rollout:
    joined = numbers["cont"][k : k + 1] > 0
    joined[:, -1] = False
    return Rollout(
        numbers["x"][k : k + 1], torch.zeros(1, steps, dtype=torch.int64), numbers["r"][k : k + 1],
        numbers["cont"][k : k + 1].double(), joined, numbers["x_next"][k : k + 1],
    )  # fmt: skip


def test_slopes_of_an_update_by_eta_and_by_theta() -> None:
    numbers = load("xu_prediction")
    steps, rate = numbers["r"].shape[1], float(numbers["alpha"])
    rule = Prediction(numbers["phi"].shape[1], free=True)
    update = Update(rule, Sgd(rate))
    eta = {n: numbers["eta"][i : i + 1].clone() for i, n in enumerate(rule.learned)}
    for k in range(len(numbers["r"]) - 1):
        theta = {VALUE: numbers["theta"][k : k + 1].clone()}
        part = prediction_part(numbers, k, steps)
        tracer = Tracer(0.0)
        trace = tracer.begin(eta, theta, {})
        _, _, trace = tracer.update(update, eta, theta, {}, part, trace)
        close(trace[VALUE][:, 0].T, numbers["df_deta"][k], GRADIENTS)
        leaves = {n: p.clone().requires_grad_() for n, p in eta.items()}
        returns = rule.returns(leaves, theta, part)
        rows = [
            torch.autograd.grad(g, list(leaves.values()), retain_graph=True) for g in returns[0]
        ]
        close(torch.stack([torch.cat(row) for row in rows]), numbers["dg_deta"][k], GRADIENTS)

        def moved(value: Tensor, part: Rollout = part) -> Tensor:
            return update(eta, {VALUE: value}, {}, part)[0][VALUE] - value

        theta_leaf = theta[VALUE].clone().requires_grad_()
        jacobian = torch.autograd.functional.jacobian(moved, theta_leaf)
        close(jacobian[0, :, 0], numbers["df_dtheta"][k], GRADIENTS)


# Control


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop"])
def test_control(name: str, exact: bool) -> None:
    numbers = load("xu_control")
    rate = float(numbers["alpha"])
    optimizer = {
        "sgd": Sgd(rate),
        "adam": Adam(rate, denominator="exact"),
        "rmsprop": OneAtFirst(rate, epsilon=1e-5),
    }[name]
    rule, theta = control(numbers)
    update = Update(rule, optimizer, exact=exact)
    updates = numbers["in_r"].shape[1] - 1
    parts = [rollout_of(numbers, "in_", k) for k in range(updates + 1)]
    theta = {n: p.requires_grad_() for n, p in theta.items()}
    first, moments, losses = theta, optimizer.init(theta), []
    eta = eta_of(numbers)
    for part in parts[:-1]:
        losses.append(rule.loss(eta, theta, theta, part))
        theta, moments = update(eta, theta, moments, part)
    outer = judged(rule, eta, theta, first, [parts[-1]], update, moments)
    close(outer, numbers[f"{name}_outer_loss"])
    if exact:
        close(torch.stack(losses, 1), numbers[f"{name}_inner_loss"])
        for ours, theirs in {**PLAIN, EMBEDDING: "W_eta"}.items():
            close(theta[ours], numbers[f"{name}_final_{theirs}"])
    found = torch.stack(list(meta_gradient(outer, eta).values()), 1)
    close(found, numbers[f"{name}_metagrad_{'full' if exact else 'detached'}"], GRADIENTS)


@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop"])
def test_control_where_the_last_update_alone_counts(name: str) -> None:
    numbers = load("xu_control")
    rate = float(numbers["alpha"])
    optimizer = {
        "sgd": Sgd(rate),
        "adam": Adam(rate, denominator="exact"),
        "rmsprop": OneAtFirst(rate, epsilon=1e-5),
    }[name]
    rule, theta = control(numbers)
    update, moments, eta = Update(rule, optimizer), optimizer.init(theta), eta_of(numbers)
    updates = numbers["in_r"].shape[1] - 1
    parts = [rollout_of(numbers, "in_", k) for k in range(updates + 1)]
    tracer = Tracer(0.0)
    trace = tracer.begin(eta, theta, moments)
    for part in parts[:-1]:
        theta, moments, trace = tracer.update(update, eta, theta, moments, part, trace)
    learned = {n: p.requires_grad_() for n, p in theta.items()}
    outer = judged(rule, eta, learned, learned, [parts[-1]], update, moments)
    found = torch.stack(list(tracer.gradient(eta, learned, outer, trace).values()), 1)
    close(found, numbers[f"{name}_metagrad_truncated"], GRADIENTS)
