"""TD3 and DDPG: each life by itself, updates as their papers say, nothing learned where it must not
be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from probes import Follow

from epg import tasks
from epg.agents.off_policy import OffPolicyAgents, OffPolicySettings
from epg.config import Setup
from epg.errors import UserError
from epg.lifetime import LifetimeResult, live
from epg.methods.base import make_algorithm
from epg.methods.td3 import Ddpg, Td3
from epg.seeds import LifetimeSeed, LifetimeSeeds, Purpose
from epg.tasks.base import draw_mdps

SETUP = Setup().change(updates=4, steps_per_update=32, buffer=32, hidden=(8, 8), final_episodes=2)


def seeds_of(*members: int) -> LifetimeSeeds:
    distinct = [LifetimeSeed(0, Purpose.EVALUATION, 0, member) for member in members]
    return LifetimeSeeds(distinct, range(len(members)))


def lives(name: str, *members: int, setup: Setup = SETUP, task: str = "point-goal") -> Any:
    made, seeds = tasks.make(task), seeds_of(*members)
    agents: Any = make_algorithm(name).agents(made, setup, seeds)
    return live(made, draw_mdps(made, seeds), agents, seeds, setup.lifetime), agents


@pytest.mark.parametrize("name", ["td3", "ddpg"])
@pytest.mark.parametrize("task", ["point-goal", "random-cart-pole"])
def test_a_lifetime_is_the_same_in_any_company(name: str, task: str) -> None:
    whole: LifetimeResult = lives(name, 0, 1, 2, task=task)[0]
    for members in ([1, 2], [2, 0]):
        found = lives(name, *members, task=task)[0]
        assert found.final_return.tolist() == whole.final_return[members].tolist()
        np.testing.assert_array_equal(found.episode_returns, whole.episode_returns[members])


@pytest.mark.parametrize("name", ["td3", "ddpg"])
def test_everything_that_should_move_moves(name: str) -> None:
    agents = lives(name, 0, 1)[1]
    task = tasks.make("point-goal")
    first: Any = make_algorithm(name).agents(task, SETUP, seeds_of(0, 1))
    assert all(
        not torch.equal(first.parameters[n], agents.parameters[n]) for n in agents.parameters
    )
    assert any(n.startswith("critic2") for n in agents.parameters) == (name == "td3")
    for n, tensor in agents.target.items():  # targets lag behind
        begun, now = first.parameters[n], agents.parameters[n]
        assert 0 < (tensor - begun).norm() < (now - begun).norm()


def test_actions_are_anything_at_first_then_the_policys_with_noise_within_bounds() -> None:
    task, seeds = tasks.make("point-goal"), seeds_of(0, 1)
    networks: Any = make_algorithm("td3").agents(task, SETUP, seeds).networks  # type: ignore[attr-defined]
    settings = OffPolicySettings(random_steps=13, exploration=5.0, piece=1)
    agents = OffPolicyAgents(networks, seeds, settings, steps=1000)
    environments = task.batch(draw_mdps(task, seeds), [s.rng(4) for s in seeds.each()])  # type: ignore[arg-type]
    from epg.lifetime import act
    from epg.tasks.base import first_step

    step = first_step(environments.reset())
    early, step = act(agents.policy(), environments, step, 40)
    assert early.actions.abs().max() <= 1 and early.actions.std() > 0.4
    assert agents.learn(early).keys() == {"error", "saturated"}
    late, step = act(agents.policy(), environments, step, 40)
    assert late.actions.abs().max() == 1  # so much noise, and clipped
    judged = agents.policy(2).act(step_of(task))
    assert torch.equal(judged[0], judged[1])  # no noise where it is judged


def step_of(task: Any) -> Any:
    from epg.tasks.base import first_step

    return first_step(torch.ones(4, task.observation_size, dtype=torch.float64))


def test_a_policy_goes_where_its_critic_says() -> None:
    """And the critic does not move with it."""
    task, seeds = tasks.make("point-goal"), seeds_of(0, 1)
    agents: Any = make_algorithm("ddpg").agents(task, SETUP, seeds)
    seen = torch.randn(2, 64, task.observation_size, generator=torch.Generator().manual_seed(0))

    def opinion() -> torch.Tensor:
        acted = agents.networks.act(agents.parameters, seen)
        return agents.networks.value(agents.parameters, "critic1", seen, acted).mean(1)

    before, critic = opinion().detach(), agents.parameters["critic1.0.weight"].detach().clone()
    for _ in range(20):
        agents.optimizers["policy"].descend(-opinion(), torch.tensor([True, True]))
    assert (opinion() > before + 1e-3).all()
    assert torch.equal(agents.parameters["critic1.0.weight"], critic)


@pytest.mark.parametrize("name", ["td3", "ddpg"])
def test_they_learn(name: str) -> None:
    """To do what is seen, in 960 steps."""
    setup = SETUP.change(updates=30, hidden=(16, 16), final_episodes=4)
    task, seeds = Follow(), seeds_of(0, 1, 2)
    learned, random = (
        live(task, draw_mdps(task, seeds), make_algorithm(n).agents(task, setup, seeds), seeds,
             setup.lifetime)
        for n in (name, "random")
    )  # fmt: skip
    assert learned.final_return.min() > -0.2 > random.final_return.mean()
    assert learned.metrics["saturated"].min() >= 0 and learned.metrics["error"].min() > 0


def test_discrete_actions_are_refused() -> None:
    for method, name in ((Td3(), "td3"), (Ddpg(), "ddpg")):
        with pytest.raises(UserError, match=f"method {name}: is for continuous actions, those of"):
            method.check(tasks.make("cart-pole"))


def test_memories_beyond_this_machine_are_refused() -> None:
    setup = SETUP.change(updates=1_000_000)
    many = seeds_of(*range(100_000))
    with pytest.raises(UserError, match="100000 lifetimes at once: at least"):
        make_algorithm("td3").agents(tasks.make("point-goal"), setup, many)


def test_numbers_that_are_not_finite_are_that_lifes_failure() -> None:
    task, seeds = tasks.make("point-goal"), seeds_of(0, 1)
    agents: Any = make_algorithm("td3").agents(task, SETUP, seeds)
    with torch.no_grad():
        agents.parameters["critic2.0.weight"][1] = torch.nan
    assert agents.failed.tolist() == [False, True]
    assert Td3.settings.twin and not Ddpg.settings.twin
