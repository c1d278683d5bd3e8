"""Losses that judge single steps: by their formulas, their gradients, on any task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from probes import Choose, Follow, grow, lives, seeds_of

from epg.agents.actor_critic import ActorCritic, Experience
from epg.agents.age import Age
from epg.agents.spec import AgentSpec
from epg.config import Setup
from epg.errors import UserError
from epg.losses.base import LearnedLoss, make_loss
from epg.losses.gae import Gae
from epg.losses.inputs import INPUTS, StepInputs
from epg.losses.lpo import LpoLoss
from epg.losses.per_step import PerStepLoss
from epg.losses.ppo import Ppo
from epg.settings import choose
from epg.tasks import Task

M = 16
SETTINGS = Setup().change(
    updates=2, steps_per_update=M, minibatch=M, buffer=30, hidden=(8,), learning_rate=0.1
)


def lived(task: Task, age: Age = Age(3, 8)) -> tuple[ActorCritic, Experience]:  # noqa: B008
    """Two agents that have learned and moved on a little, with rewards and ends of all kinds."""
    agents, experience = grow(task, SETTINGS, Ppo(), seeds_of(range(2)))
    rng = np.random.default_rng(0)
    new = replace(
        experience.new,
        rewards=torch.from_numpy(rng.normal(size=(2, M)).astype(np.float32)),
        terminated=torch.from_numpy(rng.random((2, M)) < 0.2),
    )
    with torch.no_grad():
        for parameter in agents.trained():
            parameter += 0.1 * torch.from_numpy(rng.normal(size=parameter.shape).astype(np.float32))
    return agents, replace(experience, new=new, age=age)


def layout(name: str, task: Task, **settings: Any) -> LearnedLoss:
    spec = AgentSpec.of(task, SETTINGS.agent)
    return make_loss(choose("loss", {"name": name, **settings}), spec, 30)


def drawn(made: LearnedLoss, seed: int = 0) -> dict[str, torch.Tensor]:
    """φ of two agents, nothing in it 0."""
    rng = np.random.default_rng(seed)
    return {
        name: torch.from_numpy(rng.normal(size=(2, *shape)).astype(np.float32))
        for name, shape in made.shapes.items()
    }


def value(agents: ActorCritic, experience: Experience, loss: Any) -> torch.Tensor:
    """The losses of both agents over all new rows."""
    rows = torch.arange(M).repeat(2, 1)
    outputs = agents.outputs(experience.observations[:, -M:])
    return torch.as_tensor(loss.objective(agents, experience)(outputs, rows))


@pytest.mark.parametrize("task", [Follow(), Choose()], ids=["continuous", "discrete"])
def test_the_inputs_are_what_they_say(task: Task) -> None:
    agents, experience = lived(task)
    rows = torch.arange(M).repeat(2, 1)
    outputs = agents.outputs(experience.observations[:, -M:])
    gae = Gae(0.99, 0.95)
    found = StepInputs(agents, experience, gae).of(outputs, rows)
    assert list(found) == list(INPUTS) and all(f.shape == (2, M) for f in found.values())
    seen = experience.observations[:, -M:].contiguous()
    advantage = gae.standardised(agents, experience, seen)[0].clamp(-4, 4)
    distribution = agents.distribution
    log_ratio = distribution.log_prob(outputs, experience.new.actions) - distribution.log_prob(
        experience.old_outputs, experience.new.actions
    )
    assert 0.01 < log_ratio.abs().max() < 5
    fresh = np.log(task.action_size) if task.discrete else 0.5 * np.log(2 * np.pi * np.e)
    entropies = [distribution.entropy(o) - fresh for o in (outputs, experience.old_outputs)]
    expected = {
        "advantage": advantage,
        "advantage_size": advantage.abs(),
        "ratio": log_ratio.exp() - 1,
        "ratio_advantage": (log_ratio.exp() - 1) * advantage,
        "log_ratio": log_ratio,
        "log_ratio_advantage": log_ratio * advantage,
        "log_ratio_squared": log_ratio**2,
        "end": (experience.new.terminated | experience.new.truncated).float(),
        "entropy": entropies[0],
        "entropy_change": entropies[0] - entropies[1],
        "progress": torch.full((2, M), 3 / 8),
        "log_length": torch.full((2, M), -1.0),
    }
    for name, wanted in expected.items():
        torch.testing.assert_close(found[name], wanted, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("task", [Follow(), Choose()], ids=["continuous", "discrete"])
def test_per_step_is_its_formula(task: Task) -> None:
    agents, experience = lived(task)
    made = layout("per_step", task)
    params = drawn(made)
    rows = torch.arange(M).repeat(2, 1)
    outputs = agents.outputs(experience.observations[:, -M:])
    steps = StepInputs(agents, experience, Gae(0.99, 0.95))
    x = steps.of(outputs, rows)
    for p in range(2):
        total = torch.zeros(())
        for t in range(M):
            row = torch.stack([x[name][p, t] for name in INPUTS])
            hidden = torch.tanh(params["hidden.weight"][p] @ row + params["hidden.bias"][p])
            h = (params["output.weight"][p] @ hidden + params["output.bias"][p])[0]
            k = params["entropy"][p, 0] + params["entropy"][p, 1] * (2 * 3 / 8 - 1)
            error = steps.value_error(rows)[p, t]
            total = total + h * x["log_ratio"][p, t] - 0.1 * k * x["entropy"][p, t] + error
        found = value(agents, experience, PerStepLoss(made, params))[p]  # type: ignore[arg-type]
        torch.testing.assert_close(found, total / M, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["per_step", "lpo"])
@pytest.mark.parametrize("task", [Follow(), Choose()], ids=["continuous", "discrete"])
def test_the_gradient_reaches_all_that_is_learned_and_is_that_of_differences(
    name: str, task: Task
) -> None:
    """Of the policy, the value net and φ, in float64 against central differences."""
    agents, experience = lived(task)
    agents.parameters = {
        key: p.detach().double().requires_grad_(p.requires_grad)
        for key, p in agents.parameters.items()
    }
    agents.differentiable = True

    def double(x: Any) -> Any:
        return x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x

    fields = {k: double(v) for k, v in vars(experience).items()}
    fields["new"] = replace(
        experience.new, **{k: double(v) for k, v in vars(experience.new).items()}
    )
    experience = Experience(**fields)
    made = layout(name, task)
    params = {key: p.double().requires_grad_() for key, p in drawn(made).items()}

    def loss() -> torch.Tensor:
        return value(agents, experience, made.bind(params)).sum()

    moved = {
        key: p for key, p in agents.parameters.items() if p.requires_grad and "memory" not in key
    }
    gradients = torch.autograd.grad(loss(), [*moved.values(), *params.values()])
    rng = np.random.default_rng(1)
    for (key, p), gradient in zip([*moved.items(), *params.items()], gradients, strict=True):
        assert gradient.abs().sum() > 0, key
        direction = torch.from_numpy(rng.normal(size=p.shape))
        size = 1e-6
        with torch.no_grad():
            p += size * direction
            above = loss()
            p -= 2 * size * direction
            below = loss()
            p += size * direction
        slope = float((above - below) / (2 * size))
        # advantages are fixed by the old value net: what moves them is no part of the gradient
        if key.startswith("value"):
            continue
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=2e-4, abs=1e-7), key


def test_beside_ppo_a_new_loss_moves_the_policy_as_ppo_does() -> None:
    """All of φ but the first layer is 0 at first: what it adds is the value net's error alone."""
    task = Follow()
    agents, experience = lived(task)
    made = layout("per_step", task)
    start = {
        key: torch.from_numpy(array).expand(2, *array.shape)
        for key, array in made.init(np.random.default_rng(0)).items()
    }
    policy = [p for key, p in agents.parameters.items() if key.startswith("policy")]
    loss = value(agents, experience, made.bind(start)).sum()
    assert all(float(g.abs().sum()) == 0 for g in torch.autograd.grad(loss, policy))


@pytest.mark.parametrize("age", [Age(0, 8), Age(7, 64)])
def test_the_drift_vanishes_with_its_slope_where_nothing_has_moved(age: Age) -> None:
    made = layout("lpo", Follow())
    loss = made.bind(drawn(made))
    assert isinstance(loss, LpoLoss)
    advantage = torch.linspace(-3, 3, M).repeat(2, 1)

    def drift(log_ratio: torch.Tensor) -> torch.Tensor:
        given = {
            "ratio": log_ratio.expm1(), "log_ratio": log_ratio,
            "log_ratio_squared": log_ratio.square(), "advantage": advantage,
            "progress": torch.full_like(advantage, age.progress),
            "log_length": torch.full_like(advantage, age.log_length - 4),
        }  # fmt: skip
        return loss.drift(given)

    still = torch.zeros(2, M, requires_grad=True)
    assert (drift(still) == 0).all()
    assert (torch.autograd.grad(drift(still).sum(), still)[0] == 0).all()
    moved = drift(torch.full((2, M), 0.5))
    assert (moved >= 0).all() and (moved > 0).any()


@pytest.mark.parametrize("name", ["per_step", "lpo"])
def test_one_that_is_nothing_yet_lets_agents_learn_as_their_formula_says(name: str) -> None:
    """LPO without a drift is the plain policy gradient; PerStep at 0 leaves the policy alone."""
    made = layout(name, Follow())
    params = {key: torch.zeros(6, *shape) for key, shape in made.shapes.items()}
    setup = Setup().change(
        updates=20, steps_per_update=32, minibatch=32, buffer=32, hidden=(8,), learning_rate=0.03,
        final_episodes=20,
    )  # fmt: skip
    spec = AgentSpec.of(Follow(), setup.agent)
    loss = make_loss(choose("loss", name), spec, 32).bind(params)
    result = lives(Follow(), setup, loss, seeds_of(range(6)))
    never = lives(Follow(), setup.change(learning_rate=1e-9), loss, seeds_of(range(6)))
    gained = result.final_return.mean() - never.final_return.mean()
    if name == "lpo":
        assert gained > 1.0
    else:
        assert abs(gained) < 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "per_step", "inputs": ["advantage", "observation"]}, "found observation, allow"),
        ({"name": "per_step", "inputs": ["end", "end"]}, "allowed: each once"),
        ({"name": "lpo", "inputs": ["advantage"]}, "allowed: progress, log_length"),
    ],
)
def test_inputs_that_it_does_not_know_are_refused(settings: dict[str, Any], message: str) -> None:
    spec = AgentSpec.of(Follow(), SETTINGS.agent)
    with pytest.raises(UserError, match=message):
        make_loss(choose("loss", settings), spec, 30)


def test_blind_to_an_input_it_does_not_hang_on_it() -> None:
    agents, experience = lived(Follow())
    made = layout("per_step", Follow())
    params = drawn(made)
    assert made.removable == tuple(INPUTS)
    older = replace(experience, age=Age(6, 8))
    here = [value(agents, e, made.bind(params)) for e in (experience, older)]
    without = made.without(made.without(params, "progress"), "log_length")
    without["entropy"] = torch.zeros(2, 2)
    there = [value(agents, e, made.bind(without)) for e in (experience, older)]
    assert not torch.equal(*here) and torch.equal(*there)


def test_a_length_that_no_training_had_is_taken_for_the_nearest_that_it_had() -> None:
    assert Age(0, 512).log_length == 9
    assert [Age(0, n, (8, 32)).log_length for n in (1, 8, 16, 32, 512)] == [3, 3, 4, 5, 5]
    aged = Age(0, 64, (8, 32)).next()
    assert (aged.update, aged.log_length, aged.progress) == (1, 5, 1 / 64)
