"""The mask: the same task behind it, another for each MDP, and none where it makes no sense."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from epg import tasks
from epg.errors import UserError
from epg.tasks.base import Mdp

MASK = ("observation_order", "observation_signs", "action_order", "action_signs")


def draws(task: tasks.Task, p: int) -> list[Mdp]:
    return [task.draw(np.random.default_rng(i)) for i in range(p)]


def generators(p: int) -> list[np.random.Generator]:
    return [np.random.default_rng([7, i]) for i in range(p)]


@pytest.mark.parametrize("name", ["random-cart-pole", "random-reacher", "cart-pole"])
def test_it_is_the_task_seen_and_moved_through_the_mask(name: str) -> None:
    """Whoever undoes the mask lives in the task as it is, to the bit."""
    bare, masked = tasks.make(name), tasks.make({"name": name, "masked": True})
    assert (masked.discrete, masked.horizon) == (bare.discrete, bare.horizon)
    mdps = draws(masked, 5)
    assert [mdp["mdp"] for mdp in mdps] == draws(bare, 5)
    theirs, ours = bare.batch(draws(bare, 5), generators(5)), masked.batch(mdps, generators(5))

    def unmask(observation: torch.Tensor) -> torch.Tensor:
        seen = torch.empty_like(observation)
        for row, mdp, values in zip(seen, mdps, observation, strict=True):
            row[mdp["observation_order"]] = values * torch.tensor(mdp["observation_signs"])
        return seen

    def mask(action: torch.Tensor) -> torch.Tensor:
        asked = torch.empty_like(action)
        for i, mdp in enumerate(mdps):
            order = torch.tensor(mdp["action_order"])
            if bare.discrete:
                asked[i] = int((order == action[i]).nonzero())
            else:
                asked[i][order] = action[i]
                asked[i] *= torch.tensor(mdp["action_signs"]).to(asked.dtype)
        return asked

    assert torch.equal(unmask(ours.reset()), theirs.reset())
    noise = torch.Generator().manual_seed(0)
    for _ in range(60):
        action = (
            torch.randint(bare.action_size, (5,), generator=noise)
            if bare.discrete
            else torch.randn(5, bare.action_size, generator=noise)
        )
        expected, found = theirs.step(action), ours.step(mask(action))
        assert torch.equal(unmask(found.observation), expected.observation)
        assert torch.equal(unmask(found.next_observation), expected.next_observation)
        for a, b in zip(found[2:], expected[2:], strict=True):
            assert torch.equal(a, b)


def test_signs_and_orders_are_drawn_evenly() -> None:
    mdps = draws(tasks.make({"name": "random-cart-pole", "masked": True}), 2000)
    orders = {tuple(mdp["observation_order"]) for mdp in mdps}
    assert len(orders) == 24  # 4!
    signs = np.array([mdp["observation_signs"] + mdp["action_signs"] for mdp in mdps])
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert (np.abs(signs.mean(0)) < 0.1).all()


@pytest.mark.parametrize("masked", ["yes", 1, None, [True]])
def test_it_is_there_or_not(masked: object) -> None:
    with pytest.raises(UserError, match=r"random-cart-pole: masked: found .*, allowed: true or fa"):
        tasks.make({"name": "random-cart-pole", "masked": masked})


def test_it_is_part_of_the_name_and_false_is_none() -> None:
    assert tasks.make({"name": "cart-pole", "masked": True}).name == "cart-pole(masked=True)"
    bare = tasks.make({"name": "cart-pole", "masked": False})
    assert set(bare.draw(np.random.default_rng(0))) == set(
        tasks.make("cart-pole").draw(np.random.default_rng(0))
    )


@pytest.mark.parametrize("name", ["gym:CartPole-v1", "epg.tasks.mountain_car:MountainCar"])
def test_tasks_of_gymnasium_and_of_a_users_own_can_be_masked(name: str) -> None:
    task = tasks.make({"name": name, "masked": True})
    assert task.name == f"{name}(masked=True)"
    assert task.batch(draws(task, 2), generators(2)).reset().shape == (2, task.observation_size)


def test_observations_that_are_no_vector_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        tasks.make({"name": "gym:FrozenLake-v1", "masked": True})
    assert "observation" in str(caught.value) and "\n" not in str(caught.value)
