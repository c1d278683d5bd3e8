"""Agents of another library, whose own loops run side by side: none is touched by another."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from epg import tasks
from epg.agents.age import Age
from epg.config import Setup
from epg.lifetime import LifetimeResult, live
from epg.methods.base import make_algorithm
from epg.methods.sb3_agents import Sb3Agents
from epg.seeds import LifetimeSeed, LifetimeSeeds, Purpose
from epg.tasks.base import draw_mdps

SETUP = Setup().change(
    updates=5, steps_per_update=32, buffer=64, minibatch=16, hidden=(8, 8), learning_rate=0.01,
    final_episodes=2,
)  # fmt: skip
"""TD3 begins to learn after 100 steps."""
NAMES = ("sb3-ppo", "sb3-td3")


def lives(
    name: str,
    members: Sequence[int],
    setup: Setup = SETUP,
    change: Callable[[Sb3Agents], None] = lambda agents: None,
) -> LifetimeResult:
    """Lifetimes with these numbers, together; `change` has the agents before they live."""
    task = tasks.make("random-cart-pole")
    distinct = [LifetimeSeed(0, Purpose.EVALUATION, 0, member) for member in members]
    seeds = LifetimeSeeds(distinct, range(len(members)))
    agents = make_algorithm(name).agents(task, setup, seeds)
    assert isinstance(agents, Sb3Agents)
    change(agents)
    return live(task, draw_mdps(task, seeds), agents, seeds, setup.lifetime)


@functools.cache
def undisturbed(name: str) -> LifetimeResult:
    """Three lifetimes."""
    return lives(name, [0, 1, 2])


def break_in(call: int, lifetime: int) -> Callable[[Sb3Agents], None]:
    """The networks of one of the agents become NaN when it trains for the `call`th time."""

    def change(agents: Sb3Agents) -> None:
        model: Any = agents._lives[lifetime]._model
        train, done = model.train, []

        def train_and_break(*arguments: Any, **settings: Any) -> None:
            train(*arguments, **settings)
            done.append(train)
            if len(done) == call:
                with torch.no_grad():
                    for parameter in model.policy.parameters():
                        parameter.fill_(torch.nan)

        model.train = train_and_break

    return change


@pytest.mark.parametrize("schedule", ["constant", "linear", {"name": "inverse", "updates": 1}])
def test_its_learning_rate_falls_as_ours_does(schedule: str | dict[str, Any]) -> None:
    setup = SETUP.change(schedule=schedule)
    rates: list[float] = []

    def note(agents: Sb3Agents) -> None:
        model: Any = agents._lives[0]._model
        train = model.train

        def train_and_note() -> None:
            train()
            rates.append(model.policy.optimizer.param_groups[0]["lr"])

        model.train = train_and_note

    lives("sb3-ppo", [0], setup, note)
    factor = setup.learner.schedule.factor
    assert rates == [0.01 * factor(Age(update, 5)) for update in range(5)]
    assert (len(set(rates)) == 1) == (schedule == "constant")


@pytest.mark.parametrize("name", NAMES)
def test_a_lifetime_is_the_same_in_any_company(name: str) -> None:
    """Alone, and with one other in another order."""
    whole = undisturbed(name)
    assert len(set(whole.final_return)) == 3
    for members in ([1], [2, 0]):
        found = lives(name, members)
        assert found.final_return.tolist() == whole.final_return[members].tolist()
        np.testing.assert_array_equal(found.episode_returns, whole.episode_returns[members])


@pytest.mark.parametrize("name", NAMES)
def test_what_others_draw_is_neither_used_nor_disturbed(name: str) -> None:
    """The global generators of torch and NumPy, which the library draws from and seeds."""
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        ours, numpys = torch.get_rng_state(), np.random.get_state()
        found.append(lives(name, [0, 1]).final_return.tolist())
        assert torch.equal(torch.get_rng_state(), ours)
        after = np.random.get_state()
        assert str(after[0]) == "MT19937" and after[2:] == numpys[2:]
        np.testing.assert_array_equal(after[1], numpys[1])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("name", "call", "updates"),
    [("sb3-ppo", 2, 2), ("sb3-ppo", 5, 5), ("sb3-td3", 60, 5)],
)
def test_a_policy_that_becomes_nan_fails_its_own_lifetime_alone(
    name: str, call: int, updates: int
) -> None:
    """In the middle of its life, or when it learns for the last time."""
    usual = undisturbed(name)
    found = lives(name, [0, 1, 2], change=break_in(call, lifetime=1))
    assert np.isnan(found.final_return).tolist() == [False, True, False]
    assert np.isfinite(usual.final_return).all()
    assert found.final_return[[0, 2]].tolist() == usual.final_return[[0, 2]].tolist()
    for i in (0, 2):
        np.testing.assert_array_equal(found.episode_returns[i], usual.episode_returns[i])
    until = usual.episode_returns[1, :updates]
    np.testing.assert_array_equal(found.episode_returns[1, :updates], until)


def test_learning_that_leaves_the_finite_is_a_failure_of_each() -> None:
    """In the middle of a life, or in its only update, of which nothing but the end is seen."""
    for setup in (SETUP, SETUP.change(updates=1), SETUP.change(updates=1, minibatch=32)):
        found = lives("sb3-ppo", [0, 1], setup.change(learning_rate=1e30))
        assert np.isnan(found.final_return).all()
        assert found.episode_returns.shape == (2, setup.lifetime.updates)


def test_what_else_goes_wrong_in_the_library_is_told() -> None:
    def change(agents: Sb3Agents) -> None:
        def learn(steps: int) -> None:
            raise ValueError("a bug of theirs")

        agents._lives[1]._model.learn = learn  # type: ignore[assignment, method-assign]

    with pytest.raises(ValueError, match="a bug of theirs"):
        lives("sb3-ppo", [0, 1], change=change)
