"""V-trace, STACX, FRODO, BMG and LIRPG against numbers that were computed apart from them, in
float64; Xu et al. have test_xu.py, LPG test_lpg.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from vectors import (
    FOLDER,
    GRADIENTS,
    PLAIN,
    OneAtFirst,
    close,
    judged,
    load,
    networks_of,
    parameters,
    rollout_of,
)

from epg.agents.distributions import Categorical
from epg.agents.network import Parameters
from epg.agents.optimizers import Sgd
from epg.rules.bmg import WEIGHT, Bmg
from epg.rules.frodo import Frodo
from epg.rules.lirpg import Lirpg
from epg.rules.networks import HeadedNetworks
from epg.rules.returns import bootstrapped, vtrace
from epg.rules.rollout import Rollout
from epg.rules.rule import Fixed, Update, meta_gradient
from epg.rules.stacx import NAMES, Stacx, heads

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
