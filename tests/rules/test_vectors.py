"""Every rule against numbers that were computed apart from it, in float64.

tests/metagradient_vectors: an independent implementation's, checked by central differences, and
rlax's own. Sizes come from the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from epg.agents.distributions import Categorical
from epg.agents.network import Parameters
from epg.agents.optimizers import Adam, RmsProp, Sgd
from epg.rules.a2c import EMBEDDING, A2c
from epg.rules.bmg import WEIGHT, Bmg
from epg.rules.frodo import Frodo
from epg.rules.lirpg import Lirpg
from epg.rules.networks import HeadedNetworks
from epg.rules.prediction import VALUE, Prediction
from epg.rules.returns import bootstrapped, lambda_returns, vtrace
from epg.rules.rollout import Rollout
from epg.rules.rule import Fixed, Rule, Update, meta_gradient
from epg.rules.stacx import NAMES, Stacx, heads
from epg.rules.trace import Tracer

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


# λ-returns and traces


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


# V-trace and STACX


def test_vtrace_is_that_of_rlax_and_leaks() -> None:
    numbers = load("vtrace")
    discounts = numbers["gamma"] * numbers["cont"]
    joined = numbers["cont"] > 0
    joined[:, -1] = False
    smoothing = float(numbers["lam"])
    one = torch.ones(())

    def targets(leak: tuple[Tensor, Tensor], ratios: Tensor = numbers["IS"], **other: Tensor):  # type: ignore[no-untyped-def]
        return vtrace(
            numbers["v"], numbers["v_next"], numbers["r"], other.get("discounts", discounts),
            other.get("joined", joined), ratios, other.get("smoothing", smoothing), leak,
        )  # fmt: skip

    found, weights = targets((one, one))
    close(found, numbers["rlax_vtrace"])
    worth = bootstrapped(
        numbers["r"], discounts, found, numbers["v"], numbers["v_next"], joined, smoothing
    )
    close(worth, numbers["rlax_q_estimate"])
    close(weights * (worth - numbers["v"]), numbers["rlax_pg_advantage"])
    for i, alpha in enumerate(numbers["alpha"]):
        leak = alpha.clone().requires_grad_()
        found, weights = targets((leak, leak))
        close(found, numbers["rlax_leaky"][i])
        for agent in range(len(found)):
            total = (numbers["w"][agent] * found[agent]).sum()
            slope = torch.autograd.grad(total, leak, retain_graph=True)[0]
            close(slope, numbers["rlax_dalpha"][i, agent], GRADIENTS)
    half = torch.tensor(0.5, dtype=torch.float64)
    found, weights = targets((half, half))
    worth = bootstrapped(
        numbers["r"], discounts, found, numbers["v"], numbers["v_next"], joined, smoothing
    )
    close(weights * (worth - numbers["v"]), numbers["rlax_leaky05_pg_advantage"])
    leaks = [numbers[n].unsqueeze(1).clone().requires_grad_() for n in ("alpha_rho", "alpha_c")]
    found, _ = targets((leaks[0], leaks[1]))
    close(found, numbers["mine_leaky"])
    for t in range(found.shape[1]):
        slopes = torch.autograd.grad(found[:, t].sum(), leaks, retain_graph=True)
        close(torch.cat(slopes, 1), numbers["mine_jac_alpha_rho_c"][:, t], GRADIENTS)
    everywhere = torch.ones_like(joined)
    everywhere[:, -1] = False
    found, _ = targets(
        (half, one), torch.ones_like(numbers["IS"]), smoothing=one,
        discounts=numbers["gamma"] * torch.ones_like(discounts), joined=everywhere,
    )  # fmt: skip
    close(found, numbers["rlax_onpolicy"])
    close(found, numbers["rlax_discounted_bootstrap"])


def test_stacx() -> None:
    numbers = load("stacx")
    count = numbers["eta"].shape[1]
    names = [str(name) for name in np.load(FOLDER / "stacx.npz")["names"]]
    inputs, hidden = numbers["param_W"].shape[1:]
    policies, values = heads(count)
    networks = HeadedNetworks(
        inputs, Categorical(numbers["param_Wp"].shape[3]), (hidden,), heads=values,
        policies=policies,
    )  # fmt: skip
    ours = dict(zip(names, NAMES, strict=True))
    theirs = {
        "discount": "outer_gamma", "smoothing": "outer_lam", "policy_weight": "outer_g_p",
        "value_weight": "outer_g_v", "entropy_weight": "outer_g_e",
    }  # fmt: skip
    outer_values = {name: float(numbers[key]) for name, key in theirs.items()}
    outer_values |= {"leak_ratio": 1.0, "leak_trace": 1.0}
    rule = Stacx(networks, outer_values=outer_values, kl_weight=float(numbers["outer_g_kl"]))
    eta = {
        ours[name]: numbers["eta"][..., i].clone().requires_grad_() for i, name in enumerate(names)
    }

    def theta_of(prefix: str) -> Parameters:
        found = {
            "torso.0.weight": numbers[f"{prefix}W"], "torso.0.bias": numbers[f"{prefix}b"],
        }  # fmt: skip
        for n in range(count):
            found |= {
                f"policy{n}.weight": numbers[f"{prefix}Wp"][:, n],
                f"policy{n}.bias": numbers[f"{prefix}bp"][:, n],
                f"value{n}.weight": numbers[f"{prefix}Wv"][:, n].unsqueeze(-1),
                f"value{n}.bias": numbers[f"{prefix}bv"][:, n : n + 1],
            }
        return found

    theta = {name: p.clone().requires_grad_() for name, p in theta_of("param_").items()}
    parts = [rollout_of(numbers, "tr_"), rollout_of(numbers, "tr2_")]
    close(rule.loss(eta, theta, theta, parts[0]), numbers["inner_loss"])
    update = Update(rule, Sgd(float(numbers["alpha"])))
    learned, moments = update(eta, theta, {}, parts[0])
    for name, wanted in theta_of("updated_").items():
        close(learned[name], wanted)
    outer = judged(rule, eta, learned, theta, [parts[1]], update, moments)
    close(outer, numbers["outer_loss"])
    gradient = meta_gradient(outer, eta)
    found = torch.stack([gradient[ours[name]] for name in names], -1)
    close(found, numbers["metagrad_eta"], GRADIENTS)


# FRODO, BMG, LIRPG


@pytest.mark.parametrize("kind", ["c0", "stop", "nostop"])
def test_frodo(kind: str) -> None:
    numbers = load("frodo")
    rule = Frodo(
        networks_of(numbers, "param_"), float(numbers["gamma_bar"]), 1.0,
        value_weight=float(numbers["b"]), entropy_weight=float(numbers["c"]),
        units=numbers["eta_W_hh"].shape[2],
        consistency=0.0 if kind == "c0" else float(numbers["consistency_coef"]),
        stop=kind != "nostop",
    )  # fmt: skip
    names = {
        "inputs": "W_ih", "recurrent": "W_hh", "bias": "bias", "out": "w_out", "shift": "b_out",
    }  # fmt: skip
    eta = {n: p.requires_grad_() for n, p in parameters(numbers, "eta_", names).items()}
    theta = {n: p.requires_grad_() for n, p in parameters(numbers, "param_", PLAIN).items()}
    updates = numbers["tr_r"].shape[1] - 1
    parts = [rollout_of(numbers, "tr_", k) for k in range(updates + 1)]
    close(rule.returns(eta, theta, parts[0]), numbers["G_first"])
    update, learned, moments = Update(rule, Sgd(float(numbers["alpha"]))), theta, {}
    for part in parts[:-1]:
        learned, moments = update(eta, learned, moments, part)
    for ours, theirs in PLAIN.items():
        close(learned[ours], numbers[f"final_{theirs}"])
    close(rule.returns(eta, learned, parts[-1]), numbers["G_outer"])
    close(
        rule.inconsistency(eta, learned, Fixed.of(eta, learned, theta, {}), parts[-1]),
        numbers["consistency"],
    )
    outer = judged(rule, eta, learned, theta, [parts[-1]], update, moments)
    if kind == "c0":
        close(outer, numbers["outer_loss"])
    gradient = meta_gradient(outer, eta)
    for ours, theirs in names.items():
        close(gradient[ours], numbers[f"metagrad_{kind}_{theirs}"], GRADIENTS)


def test_bmg() -> None:
    numbers = load("bmg")
    ahead, updates = int(numbers["L"]), int(numbers["K"])
    rule = Bmg(networks_of(numbers, "param_"), entropy_weight=0.01, ahead=ahead)
    eta = {WEIGHT: numbers["eta"].clone().requires_grad_()}
    theta = {n: p.requires_grad_() for n, p in parameters(numbers, "param_", PLAIN).items()}
    nothing = torch.zeros_like(numbers["ret"][:, 0])
    parts = [
        Rollout(  # whose steps end, each, so that returns are the numbers given
            numbers["obs"][:, k],
            numbers["a"][:, k],
            numbers["ret"][:, k],
            nothing,
            nothing > 0,
            numbers["obs"][:, k],
        )
        for k in range(numbers["obs"].shape[1])
    ]
    update, learned, moments = Update(rule, Sgd(float(numbers["alpha"]))), theta, {}
    for part in parts[:updates]:
        learned, moments = update(eta, learned, moments, part)
    fixed = Fixed.of(eta, learned, theta, moments)
    target = rule.target(fixed, parts[updates:-1], update)
    for ours, theirs in PLAIN.items():
        close(learned[ours], numbers[f"thetaK_{theirs}"])
        close(target[ours], numbers[f"target_{theirs}"])
    outer = judged(rule, eta, learned, theta, parts[updates:], update, moments)
    close(outer, numbers["kl"])
    close(meta_gradient(outer, eta)[WEIGHT], numbers["metagrad"], GRADIENTS)


@pytest.mark.parametrize("name", ["sgd", "rmsprop"])
def test_lirpg(name: str) -> None:
    numbers = load("lirpg")
    agents, environments, steps = numbers["reward"].shape
    rows = agents, environments * steps
    done = numbers["done"].bool()
    after = torch.cat((numbers["obs"][:, :, 1:], numbers["last_obs"].unsqueeze(2)), 2)
    joined = ~done
    joined[:, :, -1] = False
    rollout = Rollout(
        numbers["obs"].reshape(*rows, -1), numbers["action"].reshape(rows),
        numbers["reward"].reshape(rows), (~done).double().reshape(rows), joined.reshape(rows),
        after.reshape(*rows, -1),
    )  # fmt: skip
    rule = Lirpg(
        networks_of(numbers, "policy_"), float(numbers["gamma"]), 1.0,
        value_weight=float(numbers["v_mix_coef"]), entropy_weight=float(numbers["ent_coef"]),
        task_share=float(numbers["r_ex_coef"]), own_share=float(numbers["r_in_coef"]),
        outer_value_weight=float(numbers["v_ex_coef"]),
    )  # fmt: skip
    names = {
        "torso.0.weight": "U1", "torso.0.bias": "c1", "reward.weight": "U2", "reward.bias": "c2",
        "value.weight": "U3", "value.bias": "c3",
    }  # fmt: skip
    eta = {n: p.requires_grad_() for n, p in parameters(numbers, "intrinsic_", names).items()}
    theta = {n: p.requires_grad_() for n, p in parameters(numbers, "policy_", PLAIN).items()}
    rate, epsilon = float(numbers["lr"]), float(numbers["rms_eps"])
    decay = float(numbers["rms_decay"])
    optimizer = Sgd(rate) if name == "sgd" else OneAtFirst(rate, decay, epsilon)
    # what stands in the file of the values of before, and of returns
    close(rule.values({}, theta, rollout.observations), numbers["v_mix_old"])
    close(rule.task_values(eta, rollout.observations), numbers["v_ex_old"])
    rewards = rule.task_share * rollout.rewards + rule.own_share * rule.own_rewards(eta, rollout)
    mixed = (numbers["coef_mat"] * rewards.unsqueeze(1)).sum(-1) + numbers["bootstrap"]
    close(rule.returns(eta, theta, rollout), mixed.detach())
    update = Update(rule, optimizer, clip=float(numbers["max_grad_norm"]))
    learned, moments = update(eta, theta, optimizer.init(theta), rollout)
    for ours, theirs in PLAIN.items():
        close(learned[ours], numbers[f"{name}_policy_{theirs}"])
    outer = judged(rule, eta, learned, theta, [rollout], update, moments)
    close(outer, numbers[f"{name}_outer_loss"])
    gradient = meta_gradient(outer, eta)
    for ours, theirs in names.items():
        close(gradient[ours], numbers[f"{name}_metagrad_{theirs}"], GRADIENTS)
