"""Rewards kept back: the same life, the same returns, paid later."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from epg import tasks
from epg.errors import UserError
from epg.tasks.base import Batch, Mdp

STEPS = 500
SPECS = ["cart-pole", "random-cart-pole", "drifting-walk", "two-colours", "mountain-car"]


def draws(task: tasks.Task, p: int) -> list[Mdp]:
    return [task.draw(np.random.default_rng(i)) for i in range(p)]


def generators(p: int) -> list[np.random.Generator]:
    return [np.random.default_rng([7, i]) for i in range(p)]


def start(spec: tasks.Spec, p: int = 4, restart: bool = True) -> Batch:
    task = tasks.make(spec)
    batch = task.batch(draws(task, p), generators(p), restart=restart)
    batch.reset()
    return batch


def random_actions(name: str, p: int = 4) -> torch.Tensor:
    task, noise = tasks.make(name), torch.Generator().manual_seed(0)
    if task.discrete:
        return torch.randint(task.action_size, (STEPS, p), generator=noise)
    return torch.randn(STEPS, p, task.action_size, generator=noise)


@pytest.mark.parametrize("every", [2, 7, 20, 1000, 10**30])
@pytest.mark.parametrize("name", SPECS)
def test_it_pays_every_so_many_steps_and_at_the_end_what_was_earned(name: str, every: int) -> None:
    bare, delayed = start(name), start({"name": name, "delayed": every})
    owed, age, ends = [0.0] * 4, [0] * 4, {"terminated": 0, "truncated": 0, "between": 0}
    for action in random_actions(name):
        expected, found = bare.step(action), delayed.step(action)
        for i in range(4):
            owed[i] += expected.reward[i].item()
            age[i] += 1
            ended = bool(expected.terminated[i] | expected.truncated[i])
            if ended or age[i] % every == 0:
                assert found.reward[i].item() == owed[i]
                kind = "terminated" if expected.terminated[i] else "truncated"
                ends[kind if ended else "between"] += 1
                owed[i] = 0.0
            else:
                assert found.reward[i].item() == 0.0
            age[i] *= not ended
        for a, b in zip(found[:2] + found[3:], expected[:2] + expected[3:], strict=True):
            assert torch.equal(a, b)
    assert ends["truncated" if name in ("two-colours", "mountain-car") else "terminated"] >= 8
    assert (ends["between"] > 0) == (every < 200)


@pytest.mark.parametrize("name", SPECS)
def test_an_episode_returns_what_it_did_and_then_rests(name: str) -> None:
    bare = start(name, restart=False)
    delayed = start({"name": name, "delayed": 6}, restart=False)
    returns = torch.zeros(2, 4, dtype=torch.float64)
    resting = torch.zeros(4, dtype=torch.bool)
    for action in random_actions(name):
        for total, batch in zip(returns, (bare, delayed), strict=True):
            step = batch.step(action)
            total += step.reward
        assert (step.reward[resting] == 0).all()
        resting = step.terminated | step.truncated
    assert resting.all() and returns[1].any()
    assert torch.allclose(returns[0], returns[1], rtol=0, atol=1e-12)


def test_a_reset_forgives_what_is_owed() -> None:
    batch = start({"name": "two-colours", "delayed": 4})
    still = torch.zeros(4, dtype=torch.int64)
    for _ in range(3):
        assert batch.step(still).reward.tolist() == [0.0] * 4
    batch.reset()
    rewards = torch.stack([batch.step(still).reward for _ in range(4)])
    assert (rewards[:3] == 0).all()
    debts = rewards[3] + 4 * 0.04  # whole, for collected colours
    assert torch.allclose(debts, debts.round(), rtol=0, atol=1e-12) and (debts.abs() < 2).all()


def test_it_goes_with_a_mask_and_with_a_mixture() -> None:
    both = {"name": "random-cart-pole", "delayed": 5}
    masked = tasks.make({**both, "masked": True})
    bare = tasks.make({"name": "random-cart-pole", "masked": True})
    assert draws(masked, 3) == draws(bare, 3)
    found, expected = start({**both, "masked": True}), start({**both, "masked": True, "delayed": 1})
    total = torch.zeros(4, dtype=torch.float64)
    for action in random_actions("random-cart-pole")[:5]:
        ours, theirs = found.step(action), expected.step(action)
        assert torch.equal(ours.observation, theirs.observation)
        total += theirs.reward
    assert total.tolist() == ours.reward.tolist() == [5.0] * 4
    mixture = tasks.make([both, "point-goal"])
    assert mixture.name == "random-cart-pole(delayed=5) + point-goal"
    batch = mixture.batch([{"part": 0, "mdp": draws(bare, 1)[0]["mdp"]}], generators(1))
    batch.reset()
    rewards = [batch.step(torch.zeros(1, 2)).reward.item() for _ in range(10)]
    assert rewards == [0, 0, 0, 0, 5, 0, 0, 0, 0, 5]


def test_it_is_part_of_the_name_and_of_what_is_said() -> None:
    spec = {"name": "cart-pole", "masked": True, "delayed": 20}
    task = tasks.make(spec)
    assert task.name == tasks.label(spec) == "cart-pole(delayed=20, masked=True)"
    assert "rewards paid every 20 steps" in tasks.describe(task)


@pytest.mark.parametrize("more", [{}, {"masked": True}])
@pytest.mark.parametrize("name", ["gym:CartPole-v1", "epg.tasks.point_goal:PointGoal"])
def test_any_task_can_be_delayed(name: str, more: dict[str, bool]) -> None:
    task = tasks.make({"name": name, "delayed": 3, **more})
    assert task.name == tasks.label({"name": name, "delayed": 3, **more})
    batch = task.batch(draws(task, 2), generators(2))
    batch.reset()
    still = torch.zeros(2, dtype=torch.int64) if task.discrete else torch.zeros(2, 2)
    paid = [(batch.step(still).reward != 0).tolist() for _ in range(6)]
    assert paid == [[t % 3 == 2] * 2 for t in range(6)]


@pytest.mark.parametrize("every", [0, -3, True, False, "x", 2.0, None, [2, 4], float("nan")])
def test_it_is_a_number_of_steps(every: object) -> None:
    with pytest.raises(UserError) as caught:
        tasks.make({"name": "cart-pole", "delayed": every})
    assert str(caught.value) == (
        f"task cart-pole: delayed: found {every!r}, allowed: an integer above 0"
    )
