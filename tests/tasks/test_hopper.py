"""The hoppers: Gymnasium's physics, drawn dynamics, simulations that go bad."""

from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

from epg import tasks
from epg.tasks.hopper import LINKS

GEOMS = [f"{link}_geom" for link in LINKS]


def unit() -> tasks.Mdp:
    """The MDP of random-hopper that is the original hopper."""
    ones = [1.0] * 4
    return {"mass": ones, "gravity": -9.81, "friction": ones, "thickness": ones}


def compiled(**changes: Any) -> Any:
    return tasks.make("random-hopper").compile(unit() | changes)


def clearance(model: Any, data: Any) -> float:
    """Distance of the nearest link to the floor, m."""
    floor, links = model.geom("floor").id, [model.geom(name).id for name in GEOMS]
    return min(mujoco.mj_geomDistance(model, data, floor, g, 10.0, None) for g in links)


@pytest.mark.parametrize("name", ["dir-hopper", "random-hopper"])
def test_hoppers_are_gymnasiums_bitwise(name: str) -> None:
    """From the same seed, across episode ends; also the random hopper with factors of 1."""
    task = tasks.make(name)
    mdp = unit() if name == "random-hopper" else {"direction": 1.0}
    lean = 0.5 if name == "random-hopper" else np.inf
    batch = task.batch([mdp], [np.random.default_rng(5)])
    env = gymnasium.make(
        "Hopper-v5",
        frame_skip=2,
        ctrl_cost_weight=0.0,
        healthy_reward=0.0,
        healthy_angle_range=(-lean, lean),
    )
    expected, _ = env.reset(seed=5)
    observation = batch.reset()
    actions = np.random.default_rng(1).uniform(-1.5, 1.5, (600, 3)).astype(np.float32)
    ends = 0
    for action in actions:
        assert np.array_equal(observation[0].numpy(), expected)
        expected, reward, terminated, _, _ = env.unwrapped.step(action)
        step = batch.step(torch.from_numpy(action)[None])
        assert np.array_equal(step.next_observation[0].numpy(), expected)
        assert step.reward.item() == reward
        assert step.terminated.item() == terminated
        if terminated:
            expected, _ = env.reset()
            ends += 1
        observation = step.observation
    assert ends >= 3


def test_direction_signs_the_reward() -> None:
    task = tasks.make("dir-hopper")
    rngs = [np.random.default_rng(0), np.random.default_rng(0)]
    batch = task.batch([{"direction": 1.0}, {"direction": -1.0}], rngs)
    batch.reset()
    step = batch.step(torch.ones(2, 3))
    assert step.reward[0] == -step.reward[1] != 0
    drawn = [task.draw(np.random.default_rng(i))["direction"] for i in range(200)]
    assert set(drawn) == {-1.0, 1.0} and 70 < drawn.count(1.0) < 130


def test_controls_are_clamped() -> None:
    task = tasks.make("dir-hopper")
    rngs = [np.random.default_rng(0), np.random.default_rng(0)]
    batch = task.batch([{"direction": 1.0}] * 2, rngs)
    batch.reset()
    for _ in range(10):
        step = batch.step(torch.tensor([[1.0, -1.0, 1.0], [50.0, -9.0, 1.5]]))
    assert torch.equal(step.observation[0], step.observation[1])


def test_masses_are_as_drawn_whatever_the_thickness() -> None:
    factors = [0.5, 0.8, 1.3, 2.0]
    base = compiled()
    model = compiled(mass=factors, thickness=[2.0, 0.5, 1.7, 0.9])
    np.testing.assert_allclose(model.body_mass[1:], base.body_mass[1:] * factors, rtol=1e-12)


def test_inertia_follows_mass_and_thickness() -> None:
    """A capsule of uniform density: cylinder and two half balls."""
    mass, thickness = np.array([0.5, 0.8, 1.3, 2.0]), np.array([2.0, 0.5, 1.7, 0.9])
    base = compiled()
    model = compiled(mass=mass, thickness=thickness)
    np.testing.assert_allclose(
        compiled(mass=mass).body_inertia[1:], base.body_inertia[1:] * mass[:, None]
    )
    for k, name in enumerate(GEOMS):
        r, half = model.geom(name).size[:2]
        assert r == pytest.approx(base.geom(name).size[0] * thickness[k])
        assert half == base.geom(name).size[1]
        cylinder, ball = 2 * half, 4 / 3 * r
        m = model.body_mass[k + 1] / (cylinder + ball)
        along = m * (cylinder * r**2 / 2 + ball * 2 / 5 * r**2)
        across = m * (
            cylinder * (3 * r**2 + 4 * half**2) / 12
            + ball * (2 / 5 * r**2 + half**2 + 3 / 4 * r * half)
        )
        np.testing.assert_allclose(sorted(model.body_inertia[k + 1]), [along, across, across])


def test_gravity_is_as_drawn() -> None:
    assert compiled(gravity=-3.5).opt.gravity.tolist() == [0.0, 0.0, -3.5]


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_contacts_with_the_floor_have_the_drawn_friction(factor: float) -> None:
    """The original's: 1 of the floor for all links but the foot, which has 2."""
    model = compiled(friction=[factor * f for f in (1.0, 0.9, 0.8, 0.7)])
    data = mujoco.MjData(model)
    data.qpos[1], data.qpos[2] = 0.0, np.pi / 2  # lying down
    mujoco.mj_forward(model, data)
    found = {}
    for contact in data.contact:
        geoms = {model.geom(g).name for g in contact.geom}
        if "floor" in geoms:
            (name,) = geoms - {"floor"}
            found[name] = contact.friction[0]
            assert contact.dim == 3
    expected = {"torso_geom": 1.0, "thigh_geom": 0.9, "leg_geom": 0.8, "foot_geom": 1.4}
    assert found == pytest.approx({name: factor * f for name, f in expected.items()})


def test_a_compile_does_not_remember_the_one_before() -> None:
    rng = np.random.default_rng(0)
    task = tasks.make("random-hopper")
    mdps = [task.draw(rng) for _ in range(3)]
    models = [task.compile(mdp) for mdp in mdps]
    for mdp, model in zip(mdps, models, strict=True):
        fresh = tasks.make("random-hopper").compile(mdp)
        for field in ("body_mass", "body_inertia", "geom_size", "geom_friction", "dof_M0"):
            assert np.array_equal(getattr(fresh, field), getattr(model, field))


def test_all_start_as_far_above_the_floor_as_the_original() -> None:
    task = tasks.make("random-hopper")
    rng = np.random.default_rng(0)
    mdps = [task.draw(rng) for _ in range(50)]
    mdps += [unit() | {"thickness": t} for t in ([2.0] * 4, [0.5] * 4, [0.5, 0.5, 2.0, 0.5])]
    base = compiled()
    data = mujoco.MjData(base)
    mujoco.mj_forward(base, data)
    original = clearance(base, data)
    assert original == pytest.approx(0.04)
    for mdp in mdps:
        model = task.compile(mdp)
        data = mujoco.MjData(model)
        data.qpos[1] += task.lift(mdp)
        mujoco.mj_forward(model, data)
        assert clearance(model, data) == pytest.approx(original)
        assert data.ncon == 0


def test_environments_that_share_an_mdp_share_its_model() -> None:
    task = tasks.make("random-hopper")
    a, b = (task.draw(np.random.default_rng(i)) for i in range(2))
    batch = task.batch([a, a, b], [np.random.default_rng(i) for i in range(3)])
    assert batch.data[0].model is batch.data[1].model is not batch.data[2].model


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
@pytest.mark.parametrize("field", ["qpos", "qvel"])
def test_a_simulation_gone_bad_ends_its_episode_alone(
    field: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = tasks.make("random-hopper")
    mdps = [task.draw(np.random.default_rng(i)) for i in range(3)]
    batch, twin = (task.batch(mdps, [np.random.default_rng(i) for i in range(3)]) for _ in range(2))
    batch.reset()
    twin.reset()
    action = torch.zeros(3, 3)
    before = batch.step(action)
    twin.step(action)
    for k in range(2):  # MuJoCo logs the first time only
        getattr(batch.data[1], field)[4] = value
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


def test_a_bad_simulation_rests_where_it_was_last_finite() -> None:
    task = tasks.make("dir-hopper")
    batch = task.batch([{"direction": 1.0}], [np.random.default_rng(0)], restart=False)
    first = batch.reset()
    batch.data[0].qvel[0] = np.nan
    for _ in range(3):
        step = batch.step(torch.zeros(1, 3))
        assert torch.equal(step.observation, first) and step.terminated.all()
    assert batch.failures.tolist() == [1]
