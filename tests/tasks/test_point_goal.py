"""Point-goal: its goal, its reward and its pace."""

import math

import numpy as np
import pytest
import torch

from epg import tasks

ANGLE = 2.0


def run(action: list[float]) -> list[tasks.Step]:
    task = tasks.make("point-goal")
    batch = task.batch([{"angle": ANGLE}], [np.random.default_rng(0)])
    batch.reset()
    return [batch.step(torch.tensor([action])) for _ in range(task.horizon)]


def test_reward_is_a_tenth_of_the_distance_after_the_step() -> None:
    goal = np.array([math.cos(ANGLE), math.sin(ANGLE)])
    for step in run([0.3, -0.2]):
        distance = np.linalg.norm(step.next_observation[0].numpy() - goal)
        assert step.reward.item() == pytest.approx(-0.1 * distance, abs=1e-12)


def test_standing_still_returns_minus_three_point_two() -> None:
    assert sum(s.reward.item() for s in run([0.0, 0.0])) == pytest.approx(-3.2, abs=0.2)


def test_velocity_is_clipped() -> None:
    assert torch.equal(run([9.0, -9.0])[5].observation, run([1.0, -1.0])[5].observation)


def test_a_reward_that_is_not_finite_is_a_failure() -> None:
    task = tasks.make("point-goal")
    batch = task.batch([{"angle": math.nan}, {"angle": 0.0}], [np.random.default_rng(0)] * 2)
    first = batch.reset()
    step = batch.step(torch.zeros(2, 2))
    assert step.terminated.tolist() == [True, False] and step.reward[0] == 0
    assert torch.equal(step.next_observation[0], first[0])
    assert batch.failures.tolist() == [1, 0]


def test_the_goal_is_reached_in_time() -> None:
    steps = run([math.cos(ANGLE), math.sin(ANGLE)])
    assert steps[9].reward.item() > -0.01
