"""LPG's rule against the numbers of GROOVE's own functions, run in float64.

tests/metagradient_vectors/lpg_*.npz. The peer's own outer loss multiplies the mean log-probability
of an environment's rollout with its mean advantage: which is what ours comes to where every step is
given the mean. Sizes come from the files.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from vectors import close, load

from epg.agents.network import Parameters
from epg.agents.optimizers import Adam, Sgd
from epg.rules.lpg import Lpg, LpgNetworks
from epg.rules.lpg_gradient import Apart, LpgGradient, Regularisers
from epg.rules.rollout import Rollout

FILES = ["lpg_tabular_sgd", "lpg_mlp_adam"]
GATES = {"ir": "reset.weight", "iz": "update.weight", "in": "new.weight",
         "hr": "reset.recurrent", "hz": "update.recurrent", "hn": "new.recurrent"}  # fmt: skip


def eta_of(numbers: dict[str, Tensor], prefix: str) -> Parameters:
    """η by our names, [1, …]; the peer's π̂ is the paper's with the other sign."""
    found = {}
    for key, array in numbers.items():
        if not key.startswith(f"{prefix}/"):
            continue
        parts = key.removeprefix(f"{prefix}/").split("/")
        kind = "weight" if parts[-1] == "kernel" else "bias"
        if parts[0] == "MLP_0":
            name = f"embed.{parts[1][-1]}.{kind}"
        elif parts[0].startswith("Dense"):
            name = f"{('policy', 'prediction')[int(parts[0][-1])]}.{kind}"
        else:
            gate = GATES[parts[2]]
            if kind == "bias":
                gate = gate.replace("weight", "bias").replace("recurrent", "recurrent_bias")
            name = f"gru.{gate}"
        sign = -1.0 if name.startswith("policy") else 1.0
        found[name] = (sign * array).unsqueeze(0)
    return found


def rule_of(numbers: dict[str, Tensor], prefix: str = "lpg", **other: object) -> Lpg:
    tabular = "actor0/Dense_0/kernel" in numbers
    first = numbers["actor0/Dense_0/kernel" if tabular else "actor0/MLP_0/Dense_0/kernel"]
    actions = numbers["actor0/Dense_0/kernel" if tabular else "actor0/MLP_0/Dense_1/kernel"].shape[
        -1
    ]
    networks = LpgNetworks(
        first.shape[1], actions, () if tabular else (first.shape[2],), numbers["fwd_y"].shape[-1]
    )
    return Lpg(
        networks, numbers["ro_reward"].shape[2],
        numbers[f"{prefix}/LPGGRU_0/GRUCell_0/hn/bias"].shape[0],
        numbers[f"{prefix}/MLP_0/Dense_0/bias"].shape[0], **other,
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_it_says_of_a_rollout(name: str) -> None:
    numbers = load(name)
    for prefix, key in (("lpg", "fwd"), ("ta_lpg", "ta_fwd")):
        rule = rule_of(numbers, prefix, ages=prefix != "lpg")
        eta = eta_of(numbers, prefix)
        assert {n: tuple(p.shape[1:]) for n, p in eta.items()} | {
            n: s for n, s in rule.shapes.items() if n in ("gru.reset.bias",)
        } == dict(rule.shapes)
        age = None
        if prefix != "lpg":  # the peer feeds raw numbers where n/N and log N belong
            age = torch.tensor([[float(numbers["ta_fwd_step"]), float(numbers["ta_fwd_lifetime"])]])
        seen = (
            numbers[f"{key}_{n}"].double().unsqueeze(0) for n in ("r", "done", "pi", "y", "y_next")
        )
        said = rule.read(eta, *seen, age=age)
        close(-said.policy[0], numbers[f"{key}_pi_hat"].squeeze(-1))
        close(said.prediction[0], numbers[f"{key}_y_hat"])


def theta_of(numbers: dict[str, Tensor], when: str) -> Parameters:
    found = {}
    for key, array in numbers.items():
        net, _, rest = key.partition("/")
        ours = {f"actor{when}": "policy", f"critic{when}": "prediction"}.get(net)
        if ours is not None:
            layer, kind = rest.removeprefix("MLP_0/").split("/")
            name = "weight" if kind == "kernel" else "bias"
            found[f"{ours}.{layer[-1]}.{name}"] = array.clone().requires_grad_()
    return found


def part_of(numbers: dict[str, Tensor], k: int) -> Rollout:
    """Of [P, K + 1, W, T, …] rollout k, environment by environment."""
    obs, actions, rewards, done, after = (
        numbers[f"ro_{n}"][:, k].flatten(1, 2)
        for n in ("obs", "action", "reward", "done", "next_obs")
    )
    joined = numbers["ro_done"][:, k] == 0
    joined[..., -1] = False
    return Rollout(
        obs.double(), actions.long(), rewards.double(), 1 - done.double(), joined.flatten(1, 2),
        after.double(),
    )  # fmt: skip


def judge_of(numbers: dict[str, Tensor], exact: bool = True) -> LpgGradient:
    rule = rule_of(numbers, prediction_weight=float(numbers["alpha_y"]))
    rates = {"policy": "lr_actor", "prediction": "lr_critic"}
    if rule.networks.hidden:
        parts = {n: Adam(float(numbers[r]), denominator="exact") for n, r in rates.items()}
        optimizer = Apart(parts)
    else:
        tables = {n: Sgd(float(numbers[r])) for n, r in rates.items()}
        optimizer = Apart(tables, float(numbers["clip"]))
    names = ("policy_entropy", "target_entropy", "policy_l2", "target_l2")
    weights = Regularisers(*(float(numbers[f"{n}_coeff"]) for n in names))
    return LpgGradient(rule, optimizer, weights, exact)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_updates_and_the_gradient_through_them(name: str, exact: bool) -> None:
    numbers = load(name)
    judge, updates = judge_of(numbers, exact), int(numbers["K"])
    parts = [part_of(numbers, k) for k in range(updates + 1)]
    eta = {n: p.clone().requires_grad_() for n, p in eta_of(numbers, "lpg").items()}
    theta = theta_of(numbers, "0")
    learned, _, noted = judge.updates(eta, theta, judge.optimizer.init(theta), parts[:-1])
    for leaf, wanted in theta_of(numbers, "K").items():
        close(learned[leaf], wanted.detach())
    for ours, theirs in (
        ("policy_entropy", "policy_entropy"), ("prediction_entropy", "critic_entropy"),
        ("policy_size", "policy_l2"), ("prediction_size", "critic_l2"),
        ("prediction_loss", "critic_loss"),
    ):  # fmt: skip
        close(noted[ours].mean(), numbers[f"m_{theirs}"])
    advantages = numbers["adv_normalised"]
    loss = judge.loss(learned, noted, parts[-1], advantages.flatten(1)).mean()
    close(loss, numbers["reg_loss_per_step"])
    found = torch.autograd.grad(loss, list(eta.values()), retain_graph=True)
    wanted = eta_of(numbers, "metagrad_exact" if exact else "metagrad_detached")
    for leaf, gradient in zip(eta, found, strict=True):
        close(gradient, wanted[leaf], 1e-8)
    # the peer's own, which has one mean advantage for all steps of an environment
    mean = advantages.mean(-1, keepdim=True).expand_as(advantages)
    loss = judge.loss(learned, noted, parts[-1], mean.flatten(1)).mean()
    close(loss, numbers["reg_loss"])
    if not exact:
        found = torch.autograd.grad(loss, list(eta.values()))
        wanted = eta_of(numbers, "metagrad_peer")
        for leaf, gradient in zip(eta, found, strict=True):
            close(gradient, wanted[leaf], 1e-8)


@pytest.mark.parametrize("name", FILES)
def test_central_differences(name: str) -> None:
    numbers = load(name)
    judge, updates = judge_of(numbers), int(numbers["K"])
    parts = [part_of(numbers, k) for k in range(updates + 1)]
    eta = {n: p.clone().requires_grad_() for n, p in eta_of(numbers, "lpg").items()}

    def at(eta: Parameters) -> Tensor:
        theta = theta_of(numbers, "0")
        learned, _, noted = judge.updates(eta, theta, judge.optimizer.init(theta), parts[:-1])
        return judge.loss(learned, noted, parts[-1], numbers["adv_normalised"].flatten(1)).sum()

    found = torch.autograd.grad(at(eta), list(eta.values()))
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        way = {n: torch.randn(p.shape, generator=generator).double() for n, p in eta.items()}
        step = 1e-6
        there = [at({n: p + s * step * way[n] for n, p in eta.items()}) for s in (1, -1)]
        wanted = float(there[0] - there[1]) / (2 * step)
        ours = float(sum((g * way[n]).sum() for n, g in zip(eta, found, strict=True)))
        assert ours == pytest.approx(wanted, rel=1e-5, abs=1e-8)


# What it comes to by hand


def test_a_rule_that_says_advantages_is_reinforce_and_moves_no_prediction() -> None:
    numbers = load(FILES[0])
    rule, part, theta = rule_of(numbers), part_of(numbers, 0), theta_of(numbers, "0")
    said = rule.said(eta_of(numbers, "lpg"), theta, part)
    advantages = numbers["adv_normalised"]
    y = rule.networks.probabilities(theta, "prediction", part.observations)
    by_hand = replace_said(said, advantages, y.unflatten(1, advantages.shape[1:]).detach())
    policy, prediction = rule.loss_of(by_hand, theta, part)
    wanted = -(advantages.flatten(1) * rule.log_chosen(theta, part)).mean(1)
    for table in ("policy.0.weight", "prediction.0.weight"):
        found = torch.autograd.grad(
            (policy + prediction).sum(), theta[table], retain_graph=True, materialize_grads=True
        )[0]
        if table.startswith("policy"):
            reinforce = torch.autograd.grad(wanted.sum(), theta[table], retain_graph=True)[0]
            close(found, reinforce)
        else:  # d KL(y ‖ ŷ) = Σ dy, which is 0, where ŷ is y
            assert found.abs().max() < 1e-8


def replace_said(said, policy: Tensor, prediction: Tensor):  # type: ignore[no-untyped-def]
    return said._replace(policy=policy, prediction=prediction)


@pytest.mark.parametrize("done", [False, True])
def test_what_is_said_of_a_step_hangs_on_later_rows_until_an_end(done: bool) -> None:
    numbers = load(FILES[0])
    rule, eta = rule_of(numbers), eta_of(numbers, "lpg")
    rewards = numbers["fwd_r"].double().unsqueeze(0).requires_grad_()
    ended = torch.zeros_like(rewards)
    ended[:, :, 2] = float(done)
    others = (numbers[f"fwd_{n}"].double().unsqueeze(0) for n in ("pi", "y", "y_next"))
    said = rule.read(eta, rewards, ended, *others)
    for t in range(rewards.shape[2]):
        slope = torch.autograd.grad(said.policy[:, :, t].sum(), rewards, retain_graph=True)[0]
        moves = (slope != 0).flatten(0, 1).any(0).tolist()
        assert moves == [t <= row and not (done and t <= 2 < row) for row in range(len(moves))]


def test_ages_are_read() -> None:
    numbers = load(FILES[0])
    rule = replace(rule_of(numbers, "ta_lpg"), ages=True)
    seen = [
        numbers[f"ta_fwd_{n}"].double().unsqueeze(0) for n in ("r", "done", "pi", "y", "y_next")
    ]
    eta = eta_of(numbers, "ta_lpg")
    both = [rule.read(eta, *seen, age=torch.tensor([[n, 5.5]])).policy for n in (0.1, 0.9)]
    assert (both[0] != both[1]).all()
