"""What holds for every task."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from epg import tasks
from epg.errors import UserError
from epg.seeds import LifetimeSeed, Purpose
from epg.tasks import Step, Task
from epg.tasks.base import draw_mdp
from epg.tasks.mixture import TaskMixture
from epg.tasks.wrapped import Wrapped

STEPS = 130
HORIZON = 100
SPECS: list[tasks.Spec] = [
    *tasks.names(),
    "gym:Pendulum-v1",
    "gym:CartPole-v1",
    ["dir-hopper", "random-cart-pole", {"name": "point-goal", "angle": [0, 1]}],
    ["cart-pole", "acrobot", "mountain-car"],
    {"name": "point-goal", "masked": True},
    {"name": "acrobot", "masked": True},
    {"name": "point-goal", "delayed": 3},
    {"name": "cart-pole", "delayed": 20, "masked": True},
    {"name": "two-colours", "flip": [7, 90]},
]
DISCRETE = [
    "acrobot", "aliased-chain", "cart-pole", "catch", "delayed-chain", "delayed-chain-distract",
    "delayed-chain-noisy", "drifting-walk", "grid-all", "grid-dense", "grid-long",
    "grid-long-dense", "grid-longer", "grid-sparse", "mountain-car", "random-balance",
    "random-grid-dense", "random-grid-long", "random-grid-small", "random-grid-sparse",
    "random-grid-very-dense", "signal-chain", "two-colours", "gym:CartPole-v1",
    ["cart-pole", "acrobot", "mountain-car"],
    {"name": "acrobot", "masked": True}, {"name": "cart-pole", "delayed": 20, "masked": True},
    {"name": "two-colours", "flip": [7, 90]},
]  # fmt: skip
FEW_MDPS = [
    "acrobot", "aliased-chain", "ant", "cart-pole", "catch", "delayed-chain",
    "delayed-chain-distract", "delayed-chain-noisy", "dir-half-cheetah", "dir-hopper",
    "drifting-walk", "grid-sparse", "half-cheetah", "hopper", "lunar-lander-continuous",
    "mountain-car", "random-grid-dense", "random-grid-long", "random-grid-small",
    "random-grid-sparse", "random-grid-very-dense", "reacher", "signal-chain", "two-colours",
    "walker2d",
]  # fmt: skip
"""In which nothing varies, or a direction or a cell alone."""
SHORT = ["drifting-walk", "random-grid-small", "random-grid-sparse"]
"""Whose episodes end within a few steps."""
SELDOM = ("delayed-chain", "grid-", "random-grid-")
"""How those begin that may pay nothing for long."""


@pytest.fixture(params=SPECS, ids=tasks.label)
def task(request: pytest.FixtureRequest) -> Task:
    """With a horizon short enough to be reached."""
    made = tasks.make(request.param)
    assert made.discrete == (request.param in DISCRETE)
    return shortened(made, HORIZON)


def shortened(task: Task, horizon: int) -> Task:
    parts = [part.task for part in task.parts] if isinstance(task, TaskMixture) else []
    parts += [task.task] if isinstance(task, Wrapped) else []
    for part in parts:
        shortened(part, horizon)
    task.horizon = min(task.horizon, horizon)
    return task


def draws(task: Task, p: int) -> list[tasks.Mdp]:
    return [task.draw(np.random.default_rng(i)) for i in range(p)]


def generators(p: int) -> list[np.random.Generator]:
    return [np.random.default_rng([7, i]) for i in range(p)]


def actions(task: Task, p: int, steps: int = STEPS) -> torch.Tensor:
    """Environment i's actions do not depend on p."""
    draw = [torch.Generator().manual_seed(i) for i in range(p)]
    if task.discrete:
        rows = [torch.randint(task.action_size, (steps,), generator=g) for g in draw]
    else:
        rows = [torch.randn(steps, task.action_size, generator=g) for g in draw]
    return torch.stack(rows, 1)


def live(task: Task, p: int, restart: bool = True, steps: int = STEPS) -> list[Step]:
    batch = task.batch(draws(task, p), generators(p), restart=restart)
    batch.reset()
    return [batch.step(a) for a in actions(task, p, steps)]


def test_shapes_and_dtypes(task: Task) -> None:
    batch = task.batch(draws(task, 3), generators(3))
    shape = (3, task.observation_size)
    first = batch.reset()
    assert first.shape == shape and first.dtype == torch.float64
    step = batch.step(actions(task, 3)[0])
    assert step.observation.shape == step.next_observation.shape == shape
    assert step.observation.dtype == step.next_observation.dtype == torch.float64
    assert step.reward.shape == (3,) and step.reward.dtype == torch.float64
    assert step.terminated.shape == (3,) and step.terminated.dtype == torch.bool
    assert step.truncated.shape == (3,) and step.truncated.dtype == torch.bool
    assert batch.failures.tolist() == [0, 0, 0]


def test_draws_cover_their_ranges_and_repeat(task: Task) -> None:
    mdps = draws(task, 1000)
    assert mdps == draws(task, 1000)
    for varied in task.varied:
        values = np.array([mdp.get("mdp", mdp)[varied.name] for mdp in mdps])
        margin = 0.02 * (varied.high - varied.low)
        assert varied.low <= values.min() <= varied.low + margin
        assert varied.high >= values.max() >= varied.high - margin


@pytest.mark.parametrize("name", [n for n in tasks.names() if n not in FEW_MDPS])
def test_no_two_seeds_share_an_mdp_but_the_two_of_a_pair(name: str) -> None:
    """Training, validation, evaluation, tuning: 1,000 draws of each, none of them twice."""
    task = tasks.make(name)
    purposes = (Purpose.TRAINING, Purpose.VALIDATION, Purpose.EVALUATION, Purpose.TUNING)
    seeds = [LifetimeSeed(0, p, g, i) for p in purposes for g in range(2) for i in range(500)]
    mdps = [draw_mdp(task, seed) for seed in seeds]
    assert len({repr(mdp) for mdp in mdps}) == len(seeds)
    assert mdps == [draw_mdp(task, seed) for seed in seeds]  # the other half of each pair


def test_an_episode_restarts_where_it_ends(task: Task) -> None:
    steps = live(task, 4)
    ended = torch.stack([s.terminated | s.truncated for s in steps])
    assert ended.any(0).all()
    for step, end in zip(steps, ended, strict=True):
        same = (step.observation == step.next_observation).all(1)
        assert torch.equal(same, ~end)
        assert not (step.terminated & step.truncated).any()


@pytest.mark.parametrize(
    "task", [s for s in SPECS if s not in SHORT], ids=tasks.label, indirect=True
)
def test_an_episode_is_truncated_at_the_horizon(task: Task) -> None:
    steps = live(shortened(task, 5), 4, steps=10)  # so short that all live to see it
    truncated = [s.truncated.all().item() for s in steps]
    assert truncated == [False, False, False, False, True] * 2
    assert not any(s.terminated.any() for s in steps)


def test_an_ended_environment_rests_until_reset(task: Task) -> None:
    batch = task.batch(draws(task, 4), generators(4), restart=False)
    batch.reset()
    steps = [batch.step(a) for a in actions(task, 4)]
    steps += [batch.step(a) for a in actions(task, 4, task.horizon)]
    for before, step in pairwise(steps):
        rests = before.terminated | before.truncated
        assert torch.equal(step.observation, step.next_observation)
        assert torch.equal(step.observation[rests], before.observation[rests])
        assert torch.equal(step.terminated[rests], before.terminated[rests])
        assert torch.equal(step.truncated[rests], before.truncated[rests])
        assert (step.reward[rests] == 0).all()
    assert (steps[-1].terminated | steps[-1].truncated).all()
    first = batch.reset()
    again = [batch.step(a) for a in actions(task, 4)[:20]]
    assert not (again[0].terminated | again[0].truncated).any()
    moved = torch.stack([(step.observation != first).any(1) for step in again])
    paid = torch.stack([step.reward for step in again])
    assert moved.any(0).all()
    assert paid.any(0).all() or task.name.startswith(SELDOM)  # paid again, soon or late


def test_resting_and_restarting_environments_live_the_same_first_episode(task: Task) -> None:
    going = torch.ones(4, dtype=torch.bool)
    for a, b in zip(live(task, 4), live(task, 4, restart=False), strict=True):
        assert torch.equal(a.next_observation[going], b.next_observation[going])
        assert torch.equal(a.reward[going], b.reward[going])
        going &= ~(a.terminated | a.truncated)


def test_environments_do_not_depend_on_their_neighbours(task: Task) -> None:
    """Bitwise, through many resets: among them the refill of the reset table."""
    for a, b in zip(live(task, 3), live(task, 13), strict=True):
        for x, y in zip(a, b, strict=True):
            assert torch.equal(x, y[:3])


def test_equal_seeds_live_equal_lives(task: Task) -> None:
    mdp = draws(task, 1)[0]
    batch = task.batch([mdp, mdp], [np.random.default_rng(3), np.random.default_rng(3)])
    batch.reset()
    for a in actions(task, 1):
        step = batch.step(torch.cat([a, a]))
        for x in step:
            assert torch.equal(x[0], x[1])


def test_a_step_is_not_overwritten_by_the_next_nor_by_its_reader(task: Task) -> None:
    kept = live(task, 2)
    batch = task.batch(draws(task, 2), generators(2))
    batch.reset().zero_()
    for step, a in zip(kept, actions(task, 2), strict=True):
        taken = batch.step(a)
        for x, y in zip(step, taken, strict=True):
            assert torch.equal(x, y)
            y.zero_()


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize(
    "task", [s for s in SPECS if s not in DISCRETE], ids=tasks.label, indirect=True
)
def test_an_action_that_is_not_finite_is_a_failure(task: Task, restart: bool) -> None:
    batch = task.batch(draws(task, 3), generators(3), restart=restart)
    twin = task.batch(draws(task, 3), generators(3), restart=restart)
    first = batch.reset()
    twin.reset()
    sane = actions(task, 3)
    mad = sane[0].clone()
    mad[1, 0] = torch.nan
    step, expected = batch.step(mad), twin.step(sane[0])
    assert step.terminated.tolist() == [False, True, False]
    assert step.reward[1] == 0
    assert torch.equal(step.next_observation[1], first[1])
    assert torch.equal(step.observation[1], first[1]) is not restart
    for a in sane[1:20]:
        for x, y in zip(step, expected, strict=True):
            assert torch.equal(x[[0, 2]], y[[0, 2]]) and x.isfinite().all()
        step, expected = batch.step(a), twin.step(a)
    assert batch.failures.tolist() == [0, 1, 0]


def test_an_unknown_task_is_named_with_what_is_near_and_allowed() -> None:
    with pytest.raises(UserError) as caught:
        tasks.make("randm-hopper")
    message = str(caught.value)
    assert "'randm-hopper'; did you mean random-hopper" in message
    assert "\n" not in message and all(name in message for name in tasks.names())


def test_simulators_are_imported_only_when_a_task_needs_them() -> None:
    code = (
        "import sys; from epg import tasks; tasks.make('cart-pole'); tasks.make('point-goal');"
        "sys.exit(any(m in sys.modules for m in ('mujoco', 'gymnasium')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
