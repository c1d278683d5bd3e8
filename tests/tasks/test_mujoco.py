"""Simulations that go bad end alone, are counted, and leave nothing behind; what a batch weighs."""

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from epg import tasks
from epg.tasks.mujoco import MAX_SPEED, MujocoBatch

NAMES = [
    "ant", "dir-hopper", "goal-ant", "half-cheetah", "random-hopper", "random-reacher",
    "random-walker", "reacher", "walker2d",
]  # fmt: skip


@pytest.fixture(params=NAMES)
def task(request: pytest.FixtureRequest) -> tasks.Task:
    return tasks.make(request.param)


def batch_of(task: tasks.Task, p: int, restart: bool = True) -> Any:
    mdps = [task.draw(np.random.default_rng(i)) for i in range(p)]
    return task.batch(mdps, [np.random.default_rng(i) for i in range(p)], restart=restart)


def test_no_mujoco_task_is_forgotten_here() -> None:
    simulated = [n for n in tasks.names() if isinstance(batch_of(tasks.make(n), 1), MujocoBatch)]
    assert set(simulated) == {*NAMES, "hopper", "dir-half-cheetah"}  # other rules of these


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field in ("qpos", "qvel") for value in (np.nan, np.inf, 1e200)]
    + [("qvel", 1e5)],  # a position may be anywhere
)
def test_a_simulation_gone_bad_ends_its_episode_alone(
    task: tasks.Task, field: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not finite, or finite and exploding: neither is paid, nor seen by anyone."""
    monkeypatch.chdir(tmp_path)
    batch, twin = batch_of(task, 3), batch_of(task, 3)
    batch.reset()
    twin.reset()
    action = torch.zeros(3, task.action_size)
    before = batch.step(action)
    twin.step(action)
    for k in range(2):  # MuJoCo logs the first time only
        getattr(batch.data[1], field)[1] = value
        step, expected = batch.step(action), twin.step(action)
        assert step.terminated.tolist() == [False, True, False]
        assert step.reward[1] == 0
        assert torch.equal(step.next_observation[1], before.observation[1])
        assert not torch.equal(step.observation[1], before.observation[1])
        assert batch.failures.tolist() == [0, k + 1, 0]
        for _ in range(5):
            for x, y in zip(step, expected, strict=True):
                assert torch.equal(x[[0, 2]], y[[0, 2]]) and x.isfinite().all()
            before = step
            step, expected = batch.step(action), twin.step(action)
        before = step
    assert list(tmp_path.iterdir()) == []


def test_a_bad_simulation_rests_where_it_was_last_finite(task: tasks.Task) -> None:
    batch = batch_of(task, 2, restart=False)
    first = batch.reset()
    batch.data[0].qvel[0] = np.nan
    for _ in range(3):
        step = batch.step(torch.zeros(2, task.action_size))
        assert torch.equal(step.observation[0], first[0])
        assert step.terminated.tolist() == [True, False] and step.reward[0] == 0
    assert batch.failures.tolist() == [1, 0]


def test_full_torque_never_looks_like_an_explosion(task: tasks.Task) -> None:
    """The bound on velocities is far from what any policy can do."""
    batch = batch_of(task, 8)
    batch.reset()
    sign = torch.ones(8, task.action_size)
    generator = torch.Generator().manual_seed(0)
    fastest = 0.0
    for t in range(300):
        if t % 20 == 0:
            sign = torch.randint(0, 2, sign.shape, generator=generator) * 2.0 - 1
        batch.step(sign)
        fastest = max(fastest, max(np.abs(data.qvel).max() for data in batch.data))
    assert batch.failures.sum() == 0 and 1 < fastest < MAX_SPEED / 3


def resident() -> float:
    """Memory of this process, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def grow() -> float:
    task = tasks.make("random-hopper")
    batch_of(task, 1).reset()  # libraries and all
    before = resident()
    batch = batch_of(task, 256)
    batch.reset()
    for action in torch.randn(100, 256, 3):
        batch.step(action)
    return resident() - before


def test_256_random_hoppers_take_less_than_200_megabytes() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert 1 < pool.apply(grow) < 200
