"""MetaGenRL's networks, critic, policy and objective against the released code's numbers.

tests/metagenrl_vectors: the original's own computation in float64. Sizes come from the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from epg.agents.deterministic import CriticLoss, DeterministicNetworks, moved_towards
from epg.agents.network import Parameters
from epg.agents.pieces import Pieces
from epg.losses.lstm import LstmObjective, standardised
from epg.losses.objective_gradient import ObjectiveGradient
from epg.losses.weighted_actions import WeightedActions

FOLDER = Path(__file__).parents[1] / "metagenrl_vectors"
NAMES = {
    "act": "action", "oth": "other", "out": "out", "W": "weight", "b": "bias", "ln_g": "gain",
    "ln_b": "shift",
}  # fmt: skip
RELEASED = LstmObjective(mask_values_first=False, start_at_length=False, exact_norm=False)
TOLERANCES = {torch.float64: (1e-9, 1e-9), torch.float32: (1e-4, 1e-3)}
"""Of values and of gradients, relative to the largest entry of an array."""
Numbers = Mapping[str, np.ndarray]


def ours(name: str) -> str:
    """The name that a parameter of the original has here."""
    group, layer, kind = name.split("/") if name.count("/") == 2 else (*name.split("/"), "")
    if group == "alpha":
        if layer == "lstm":
            return f"lstm.{NAMES[kind]}"
        return f"{NAMES[layer[:3]]}.{layer[3:]}.{NAMES[kind]}"
    number = int(layer[1:]) if layer != "out" else HIDDEN
    return f"{group}.{number}.{NAMES[kind]}"


HIDDEN = 2
"""Layers of the original's small networks below the last one."""


def load(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(FOLDER / f"{name}.npz"))


def parameters(numbers: Numbers, groups: Iterable[str], dtype: Any, prefix: str = "") -> Parameters:
    """Of one agent, by our names."""
    found = {}
    for key, array in numbers.items():
        name = key.removeprefix(prefix) if key.startswith(prefix) else ""
        if name.split("/")[0] in groups and name.count("/") == 2:
            found[ours(name)] = torch.tensor(array, dtype=dtype).unsqueeze(0)
    return found


def pieces_of(numbers: Numbers, prefix: str, dtype: Any) -> Pieces:
    names = ("obs1", "acts", "rews", "done", "obs2", "lens")
    tensors = [torch.tensor(numbers[f"{prefix}{name}"], dtype=dtype).unsqueeze(0) for name in names]
    return Pieces(*tensors[:5], tensors[5].long())


def networks_of(numbers: Numbers, pieces: Pieces, exact: bool) -> DeterministicNetworks:
    hidden = next(v.shape[1] for k, v in numbers.items() if k.endswith("policy/h0/W"))
    sizes = pieces.observations.shape[-1], pieces.actions.shape[-1]
    limit = float(np.float32(numbers["act_limit"]))
    return DeterministicNetworks(*sizes, (hidden, hidden), limit, exact_norm=exact)


def close(found: Tensor, expected: np.ndarray, tolerance: float) -> None:
    wanted = torch.tensor(np.asarray(expected), dtype=torch.float64)
    scale = float(wanted.abs().max()) or 1.0
    difference = (found.detach().double().reshape(wanted.shape) - wanted).abs().max()
    assert float(difference) <= tolerance * scale, (float(difference) / scale, tolerance)


def close_by_name(
    found: Parameters, numbers: Numbers, prefix: str, group: str, tolerance: float
) -> None:
    expected = {
        ours(key.removeprefix(prefix)): value
        for key, value in numbers.items()
        if key.startswith(f"{prefix}{group}/")
    }
    assert expected and expected.keys() == found.keys()
    scale = max(float(np.abs(value).max()) for value in expected.values())
    for name, value in expected.items():
        difference = np.abs(found[name].detach().double().numpy().reshape(value.shape) - value)
        assert difference.max() <= tolerance * scale, (name, difference.max() / scale)


def leaves(given: Parameters) -> Parameters:
    return {name: p.clone().requires_grad_() for name, p in given.items()}


def gradient(value: Tensor, of: Parameters) -> Parameters:
    found = torch.autograd.grad(value, list(of.values()))
    return dict(zip(of, found, strict=True))


def policy_alone(given: Parameters) -> Parameters:
    return {name: p for name, p in given.items() if name.startswith("policy.")}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["float64", "float32"])
@pytest.mark.parametrize("data", ["full", "padded"])
@pytest.mark.parametrize("name", ["objective_A1", "objective_A3", "objective_A8"])
def test_the_objective_is_the_originals(name: str, data: str, dtype: torch.dtype) -> None:
    loose, looser = TOLERANCES[dtype]
    numbers = load(name)
    pieces = pieces_of(numbers, f"{data}/", dtype)
    networks = networks_of(numbers, pieces, exact=False)
    live = parameters(numbers, ("policy", "critic1"), dtype)
    alpha = parameters(numbers, ("alpha",), dtype)
    assert {n: tuple(p.shape[1:]) for n, p in alpha.items()} == dict(RELEASED.shapes)
    assert sum(p.numel() for p in alpha.values()) == 15_497
    policy = leaves(policy_alone(live))
    # what it sees, and what it says of every step
    actions = networks.act(policy, pieces.observations)
    values = networks.state_values(live, pieces)
    judged = RELEASED.judge(alpha, pieces, actions, values)
    for found, key in ((actions, "pi"), (values, "values"), (judged, "l"), (pieces.mask, "mask")):
        close(found, numbers[f"{data}/{key}"], loose)
    # sums and gradients, alone and while DDPG gives way to it
    way = ObjectiveGradient(networks, RELEASED)
    total = way.judged(alpha, live, policy, pieces).sum()
    close(total, numbers[f"{data}/sum"], loose)
    close_by_name(gradient(total, policy), numbers, f"{data}/grad_sum/", "policy", looser)
    for share, key in ((1.0, "mean"), (0.25, "anneal2500/mean")):
        loss = way.policy_loss(alpha, live, policy, pieces, share)
        close(loss, numbers[f"{data}/{key}"], loose)
    found = gradient(loss.sum(), policy)
    close_by_name(found, numbers, f"{data}/anneal2500/grad_mean/", "policy", looser)


@pytest.mark.parametrize("name", ["objective_A1", "objective_A3", "objective_A8"])
def test_mended_it_differs_where_pieces_are_padded_or_end(name: str) -> None:
    """Every lived step of a short piece has a gradient, and what stands in the padding counts
    nowhere."""
    numbers = load(name)
    alpha = parameters(numbers, ("alpha",), torch.float64)
    live = parameters(numbers, ("policy", "critic1"), torch.float64)
    pieces = pieces_of(numbers, "padded/", torch.float64)
    networks = networks_of(numbers, pieces, exact=True)
    actions = networks.act(live, pieces.observations).detach().requires_grad_()
    values = networks.state_values(live, pieces)
    lived = pieces.mask.bool()
    slopes = {}
    for kind, objective in (("mended", LstmObjective()), ("released", RELEASED)):
        judged = pieces.mask * objective.judge(alpha, pieces, actions, values)
        [slopes[kind]] = torch.autograd.grad(judged.sum(), actions)
    assert (slopes["mended"].abs().sum(-1) > 0)[lived].all()
    assert not (slopes["mended"].abs().sum(-1) > 0)[~lived].any()
    short = pieces.lengths[0] < 10
    assert not (slopes["released"].abs().sum(-1) > 0)[0][short].any()
    moved = torch.where(lived.unsqueeze(-1), actions, actions + 1.0)
    first, second = (
        LstmObjective().judge(alpha, pieces, each, values)[lived] for each in (actions, moved)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", ["alpha_K1", "alpha_K3"])
def test_the_objectives_gradient_goes_through_the_policies_steps(name: str) -> None:
    """As the original's, and exactly where that leaves a part out."""
    numbers = load(name)
    count = sum(key.endswith("/policy/h0/W") and key.startswith("phi") for key in numbers)
    pieces = pieces_of(numbers, "", torch.float64)
    each = pieces.rewards.shape[1] // (count + 1)
    parts = [pieces.part(i * each, each) for i in range(count)]
    live = parameters(numbers, ("policy", "critic1"), torch.float64)
    for exact, kind in ((False, "grad/"), (True, "grad_exact/")):
        alpha = leaves(parameters(numbers, ("alpha",), torch.float64))
        objective = LstmObjective(False, False, exact_norm=exact)
        networks = networks_of(numbers, pieces, exact)
        way = ObjectiveGradient(networks, objective)
        policies = way.inner_steps(alpha, live, leaves(policy_alone(live)), parts)
        for i, policy in enumerate(policies, 1):
            close_by_name(policy, numbers, f"phi{i}/", "policy", 1e-9)
        loss = way.loss(live, policies[-1], pieces)
        close(loss, numbers["obj_loss"], 1e-9)
        found = gradient(loss.sum(), alpha)
        assert all((g.abs().sum() > 0) for g in found.values())
        close_by_name(found, numbers, kind, "alpha", 1e-6 if exact else 1e-9)
        if not exact:
            norm = torch.stack([g.square().sum() for g in found.values()]).sum().sqrt()
            close(norm, numbers["grad_global_norm"], 1e-9)


@pytest.mark.parametrize("count", [1, 3])
def test_that_gradient_is_a_central_difference(count: int) -> None:
    """By a direction at random, mended and in float64."""
    numbers = load(f"alpha_K{count}")
    pieces = pieces_of(numbers, "", torch.float64)
    each = pieces.rewards.shape[1] // (count + 1)
    parts = [pieces.part(i * each, each) for i in range(count)]
    live = parameters(numbers, ("policy", "critic1"), torch.float64)
    alpha = leaves(parameters(numbers, ("alpha",), torch.float64))
    way = ObjectiveGradient(networks_of(numbers, pieces, True), LstmObjective())
    frozen = way.networks.state_values(live, pieces)

    class Frozen(DeterministicNetworks):
        """Values as they are before the inner steps: the gradient leaves their change out."""

        def state_values(self, parameters: Parameters, part: Pieces) -> Tensor:
            [start] = [i for i, p in enumerate(parts) if p is part]
            return frozen[:, start * each : (start + 1) * each]

    way = ObjectiveGradient(Frozen(**vars(way.networks)), LstmObjective())

    def loss(at: Parameters) -> Tensor:
        policies = way.inner_steps(at, live, leaves(policy_alone(live)), parts)
        return way.loss(live, policies[-1], pieces).sum()

    rng = torch.Generator().manual_seed(0)
    found = gradient(loss(alpha), alpha)
    direction = {n: torch.randn(p.shape, generator=rng, dtype=p.dtype) for n, p in alpha.items()}
    slope = float(sum((found[n] * direction[n]).sum() for n in alpha))
    step = 1e-8  # α has 15,497 numbers: a move of 1.2e-6
    ends = [
        float(loss({n: (p + sign * step * direction[n]).detach() for n, p in alpha.items()}))
        for sign in (1, -1)
    ]
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope, rel=1e-6)


def test_the_critics_are_the_originals() -> None:
    """Targets, losses and gradients of the first update, and how targets move."""
    numbers = load("critic")
    pieces = pieces_of(numbers, "update0/", torch.float64)
    networks = networks_of(numbers, pieces, exact=True)
    live = leaves(parameters(numbers, ("critic1", "critic2"), torch.float64))
    groups = ("target_policy", "target_critic1", "target_critic2")
    named = parameters(numbers, groups, torch.float64)
    target = {name.removeprefix("target_"): p for name, p in named.items()}
    noise = torch.tensor(numbers["update0/noise"]).double().unsqueeze(0)
    loss = CriticLoss(end_bonus=1.0)
    targets = loss.targets(networks, target, pieces, noise)
    close(targets, numbers["update0/y"], 1e-9)
    total = loss(networks, live, pieces, targets)
    close(total, numbers["update0/loss"], 1e-9)
    found = gradient(total.sum(), live)
    for critic in ("critic1", "critic2"):
        mine = {name: g for name, g in found.items() if name.startswith(critic)}
        close_by_name(mine, numbers, "update0/grad/", critic, 1e-9)
        after = parameters(numbers, (critic,), torch.float64, "update1/after/")
        was = {name: p for name, p in target.items() if name.startswith(critic)}
        moved = moved_towards(was, after, 0.005)
        expected = {k.replace("target_", ""): v for k, v in numbers.items() if "target_" in k}
        close_by_name(moved, expected, "after_polyak/", critic, 1e-9)
    mended = CriticLoss().targets(networks, target, pieces, noise)
    assert torch.allclose(targets - mended, pieces.ended, atol=1e-12)  # the end earns nothing


def test_policies_learn_as_the_originals_while_the_objective_takes_over() -> None:
    """Losses, gradients before the clip and their norms, and a clip that is each agent's own."""
    numbers = load("policy_update")
    updates = sorted({key.split("/")[0] for key in numbers if key.startswith("update")})
    live = parameters(numbers, ("policy", "critic1"), torch.float64)
    alpha = parameters(numbers, ("alpha",), torch.float64)
    for update in updates:
        pieces = pieces_of(numbers, f"{update}/", torch.float64)
        way = ObjectiveGradient(networks_of(numbers, pieces, exact=False), RELEASED)
        policy = leaves(policy_alone(live))
        share = min(1.0, float(numbers[f"{update}/t"]) / 10_000)
        loss = way.policy_loss(alpha, live, policy, pieces, share)
        close(loss, numbers[f"{update}/loss"], 1e-6)
        found = gradient(loss.sum(), policy)
        close_by_name(found, numbers, f"{update}/grad/", "policy", 1e-6)
        norm = torch.stack([g.square().sum() for g in found.values()]).sum().sqrt()
        close(norm, numbers[f"{update}/grad_global_norm"], 1e-6)
        live |= parameters(numbers, ("policy",), torch.float64, f"{update}/after/")
    assert len(updates) > 1


@pytest.mark.parametrize("data", ["full", "padded"])
def test_reinforce_from_remembered_actions_is_the_originals(data: str) -> None:
    numbers = load("reinforce")
    pieces = pieces_of(numbers, f"{data}/", torch.float64)
    networks = networks_of(numbers, pieces, exact=True)
    live = parameters(numbers, ("policy", "critic1"), torch.float64)
    policy = leaves(policy_alone(live))
    loss = WeightedActions(end_bonus=1.0, leak=True)
    values = networks.state_values(live, pieces)
    close(values, numbers[f"{data}/values"], 1e-9)
    close(loss.advantages(pieces, values), numbers[f"{data}/gae"], 1e-9)
    close(loss.judge(networks, live | policy, pieces), numbers[f"{data}/l"], 1e-9)
    mean = loss(networks, live | policy, pieces)
    close(mean, numbers[f"{data}/mean"], 1e-9)
    found = gradient(mean.sum(), policy)
    close_by_name(found, numbers, f"{data}/grad_mean/", "policy", 1e-9)
    # mended, nothing behind a piece's end counts, and the end earns nothing
    lived, padded = pieces.mask.bool(), (pieces.lengths < pieces.rewards.shape[-1]).any()
    assert bool(padded) == (data == "padded")
    other = values.clone()
    other[..., :-1][~lived] += 7.0
    after = [WeightedActions().advantages(pieces, v) for v in (values, other)]
    assert torch.equal(after[0][lived], after[1][lived])
    leaking = [WeightedActions(leak=True).advantages(pieces, v) for v in (values, other)]
    assert torch.equal(*(each[lived] for each in leaking)) != bool(padded)


def test_each_batch_is_standardised_by_itself() -> None:
    numbers = load("normalisation")
    batches = {key.split("/")[0] for key in numbers}
    for batch in batches:
        for kind in ("values", "rewards"):
            given = torch.tensor(numbers[f"{batch}/{kind}"]).double().unsqueeze(0)
            close(standardised(given), numbers[f"{batch}/{kind}_normalised"], 1e-9)


@pytest.mark.parametrize("update", [0, 1])
def test_agents_do_not_mix(update: int) -> None:
    """Two at once come to what each comes to alone, each gradient clipped by itself, whatever an
    objective has become by then."""
    numbers = load("alpha_update")
    agents = sorted({key.split("/")[0] for key in numbers if key.startswith("agent")})
    first = pieces_of(numbers, f"{agents[0]}/", torch.float64)
    networks = networks_of(numbers, first, exact=False)
    before = "alpha_flat" if not update else f"update{update - 1}/alpha_after_flat"
    flat = torch.tensor(numbers[before]).double()
    shapes = {ours(str(name)): RELEASED.shapes[ours(str(name))] for name in numbers["flat_order"]}
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    alpha = {
        name: piece.reshape(1, *shapes[name]).expand(len(agents), *shapes[name])
        for name, piece in zip(shapes, flat.split(sizes), strict=True)
    }
    live = [parameters(numbers, ("policy", "critic1"), torch.float64, f"{a}/") for a in agents]
    batches = [pieces_of(numbers, f"{a}/", torch.float64) for a in agents]
    both = {name: torch.cat([each[name] for each in live]) for name in live[0]}
    batch = Pieces(
        *(torch.cat([getattr(b, name) for b in batches]) for name in Pieces.__dataclass_fields__)
    )
    found, norms = ObjectiveGradient(networks, RELEASED).gradient(alpha, both, batch, 1)
    for i, agent in enumerate(agents):
        close(norms[i], numbers[f"update{update}/{agent}/grad_global_norm"], 1e-6)
    clipped = torch.cat([found[name].flatten(1) for name in shapes], 1)
    assert (clipped.norm(dim=1) <= 1 + 1e-6).all() and (norms > 1).any()
    close(clipped.mean(0), numbers[f"update{update}/mean_clipped_grad_flat"], 1e-6)
