"""Drawn dynamics: hoppers, walkers and arms whose compiled models are what was drawn."""

from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from epg import tasks
from epg.tasks.bodies import Bodies
from epg.tasks.reacher import FARTHEST, NEAREST, TIP

DRAWS = 1000
FIELDS = ("body_mass", "body_inertia", "geom_size", "geom_friction", "dof_M0")


class Body:
    """A task with a drawn body, for tests."""

    def __init__(self, name: str) -> None:
        self.task: Any = tasks.make(name)
        self.bodies: Bodies = self.task.bodies
        self.links = self.task.links
        self.geoms = [f"{link}_geom" for link in self.links]
        self.unit: tasks.Mdp = {"gravity": -9.81} | {
            name: [1.0] * len(self.links) for name in ("mass", "friction", "thickness")
        }

    def compiled(self, **changes: Any) -> Any:
        return self.bodies.compile(self.unit | changes)

    def spread(self, low: float = 0.5, high: float = 2.0) -> np.ndarray:
        """A factor for each link, no two the same."""
        return np.random.default_rng(0).permutation(np.linspace(low, high, len(self.links)))

    def draws(self, count: int) -> list[tasks.Mdp]:
        return [self.task.draw(np.random.default_rng(i)) for i in range(count)]


@pytest.fixture(params=["random-hopper", "random-walker"])
def body(request: pytest.FixtureRequest) -> Body:
    return Body(request.param)


def clearance(body: Body, model: Any, data: Any) -> float:
    """Distance of the nearest link to the floor, m."""
    floor, links = model.geom("floor").id, [model.geom(name).id for name in body.geoms]
    return min(mujoco.mj_geomDistance(model, data, floor, g, 10.0, None) for g in links)


def test_a_thousand_models_have_what_was_drawn_and_cover_the_ranges(body: Body) -> None:
    base = body.compiled()
    ids = [base.geom(name).id for name in body.geoms]
    found: dict[str, list[Any]] = {"mass": [], "gravity": [], "friction": [], "thickness": []}
    for mdp in body.draws(DRAWS):
        model = body.bodies.compile(mdp)
        found["mass"].append(model.body_mass[1:] / base.body_mass[1:])
        found["gravity"].append(model.opt.gravity[2])
        found["friction"].append(model.geom_friction[ids, 0] / base.geom_friction[ids, 0])
        found["thickness"].append(model.geom_size[ids, 0] / base.geom_size[ids, 0])
        for name, values in found.items():
            np.testing.assert_allclose(values[-1], mdp[name], rtol=1e-12)
    for varied in body.task.varied:
        values = np.array(found[varied.name]).reshape(DRAWS, -1)
        margin = 0.02 * (varied.high - varied.low)
        assert (values.min(0) < varied.low + margin).all()
        assert (values.max(0) > varied.high - margin).all()
        middle = (varied.low + varied.high) / 2
        assert np.abs(values.mean(0) - middle).max() < 3 * margin  # uniform


def test_masses_are_as_drawn_whatever_the_thickness(body: Body) -> None:
    factors = body.spread()
    base, model = body.compiled(), body.compiled(mass=factors, thickness=factors[::-1])
    np.testing.assert_allclose(model.body_mass[1:], base.body_mass[1:] * factors, rtol=1e-12)


def test_inertia_follows_mass_and_thickness(body: Body) -> None:
    """A capsule of uniform density: cylinder and two half balls."""
    mass, thickness = body.spread(), body.spread()[::-1]
    base, model = body.compiled(), body.compiled(mass=mass, thickness=thickness)
    np.testing.assert_allclose(
        body.compiled(mass=mass).body_inertia[1:], base.body_inertia[1:] * mass[:, None]
    )
    for k, name in enumerate(body.geoms):
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


def test_gravity_changes_the_fall(body: Body) -> None:
    for gravity in (-20.0, -9.81, -2.0):
        model = body.compiled(gravity=gravity, mass=body.spread(), thickness=body.spread())
        data = mujoco.MjData(model)
        data.qpos[1] += 10.0  # far above the floor
        mujoco.mj_forward(model, data)
        assert data.qacc[1] == pytest.approx(gravity)


def test_mass_changes_acceleration_under_the_same_torque(body: Body) -> None:
    """Without armature, gravity or contact, twice the mass is half the acceleration."""
    accelerations = []
    for factor in (1.0, 2.0):
        model = body.compiled(mass=np.full(len(body.links), factor), gravity=0.0)
        model.dof_armature[:] = 0.0
        data = mujoco.MjData(model)
        data.qpos[1] += 10.0
        data.qpos[3:] = -0.5
        data.ctrl[:] = 0.3
        mujoco.mj_forward(model, data)
        accelerations.append(data.qacc.copy())
    np.testing.assert_allclose(accelerations[0], 2 * accelerations[1], rtol=1e-6)
    assert np.abs(accelerations[0][3:]).min() > 1


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_contacts_with_the_floor_have_the_drawn_friction(body: Body, factor: float) -> None:
    """A factor of 1 is the original: the larger one of the link's and the floor's."""
    original = tasks.make({"random-hopper": "hopper", "random-walker": "walker2d"}[body.task.name])
    usual = original._model
    ids = [usual.geom(name).id for name in body.geoms]
    larger = np.maximum(usual.geom_friction[ids, 0], usual.geom("floor").friction[0])
    model = body.compiled(friction=factor * body.spread())
    data = mujoco.MjData(model)
    data.qpos[1], data.qpos[2] = 0.0, np.pi / 2  # lying down
    mujoco.mj_forward(model, data)
    expected = dict(zip(body.geoms, factor * body.spread() * larger, strict=True))
    found = {}
    for contact in data.contact:
        names = {model.geom(g).name for g in contact.geom}
        if "floor" in names:
            (name,) = names - {"floor"}
            found[name] = contact.friction[0]
            assert contact.dim == 3
    assert found == pytest.approx(expected)


def test_a_compile_does_not_remember_the_one_before(body: Body) -> None:
    mdps = body.draws(3)
    models = [body.bodies.compile(mdp) for mdp in mdps]
    for mdp, model in zip(mdps, models, strict=True):
        fresh = Body(body.task.name).bodies.compile(mdp)
        for field in FIELDS:
            assert np.array_equal(getattr(fresh, field), getattr(model, field))


def test_all_start_as_far_above_the_floor_as_the_original(body: Body) -> None:
    thick, thin = (body.unit | {"thickness": [t] * len(body.links)} for t in (2.0, 0.5))
    base = body.compiled()
    data = mujoco.MjData(base)
    mujoco.mj_forward(base, data)
    original = clearance(body, base, data)
    assert original == pytest.approx({"random-hopper": 0.04, "random-walker": 0.04}[body.task.name])
    for mdp in [*body.draws(DRAWS), thick, thin]:
        model = body.bodies.compile(mdp)
        data = mujoco.MjData(model)
        data.qpos[1] += body.bodies.lift(mdp)
        mujoco.mj_forward(model, data)
        assert clearance(body, model, data) == pytest.approx(original)
        assert data.ncon == 0


def test_every_walker_can_hold_itself_up() -> None:
    """Its knees' torque against its weight, with its thighs of 0.45 m tilted by 30°."""
    body = Body("random-walker")
    heaviest = {v.name: v.high if v.name != "gravity" else v.low for v in body.task.varied}
    model = body.compiled(mass=[heaviest["mass"]] * 7, gravity=heaviest["gravity"])
    weight = model.body_mass.sum() * -model.opt.gravity[2]
    knees = [model.joint(name).id for name in ("leg_joint", "leg_left_joint")]
    torque = sum(model.actuator_gear[i, 0] for i in range(6) if model.actuator_trnid[i, 0] in knees)
    thigh = 2 * model.geom("thigh_geom").size[1]
    assert thigh == pytest.approx(0.45) and torque == 200
    assert weight == pytest.approx(398, abs=1)
    assert weight * thigh * np.sin(np.pi / 6) < torque


def test_environments_that_share_an_mdp_share_its_model(body: Body) -> None:
    a, b = body.draws(2)
    batch = body.task.batch([a, a, b], [np.random.default_rng(i) for i in range(3)])
    assert batch.data[0].model is batch.data[1].model is not batch.data[2].model


def arm(length: list[float]) -> Any:
    return tasks.make("random-reacher").compile({"length": length})


def test_a_thousand_arms_have_the_drawn_lengths() -> None:
    task: Any = tasks.make("random-reacher")
    base, drawn = arm([0.1, 0.1]), []
    for i in range(DRAWS):
        mdp = task.draw(np.random.default_rng(i))
        model, (upper, lower) = task.compile(mdp), mdp["length"]
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)  # stretched along x
        assert data.body("body1").xpos[0] == pytest.approx(upper)
        assert data.body("fingertip").xpos[0] == pytest.approx(upper + lower + TIP)
        for name, length in (("link0", upper), ("link1", lower)):
            assert model.geom(name).size[1] == pytest.approx(length / 2)
            assert model.geom(name).pos[0] == pytest.approx(length / 2)
        assert model.body("body0").mass > base.body("body0").mass
        drawn.append(mdp["length"])
    lengths = np.array(drawn)
    assert (lengths.min(0) < 0.101).all() and (lengths.max(0) > 0.149).all()


def test_every_arm_reaches_every_goal() -> None:
    elbow = arm([0.1, 0.1]).joint("joint1").range[1]
    for upper in (0.1, 0.15):
        for lower in (0.1, 0.15):
            data = mujoco.MjData(model := arm([upper, lower]))
            distances = []
            for angle in (0.0, elbow):
                data.qpos[1] = angle
                mujoco.mj_kinematics(model, data)
                distances.append(np.linalg.norm(data.body("fingertip").xpos[:2]))
            assert distances[0] > FARTHEST and distances[1] < NEAREST
    task = tasks.make("random-reacher")
    batch = task.batch([{"length": [0.1, 0.1]}], [np.random.default_rng(0)])
    radii = [np.linalg.norm(batch.reset()[0, 4:6]) for _ in range(500)]
    assert NEAREST < min(radii) < 0.08 and 0.195 < max(radii) < FARTHEST


def test_direction_signs_the_reward() -> None:
    for name in ("dir-hopper", "dir-half-cheetah"):
        task = tasks.make(name)
        rngs = [np.random.default_rng(0), np.random.default_rng(0)]
        batch = task.batch([{"direction": 1.0}, {"direction": -1.0}], rngs)
        batch.reset()
        step = batch.step(torch.ones(2, task.action_size))
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


@pytest.mark.parametrize(("region", "sign"), [("front", 1), ("back", -1)])
def test_goals_lie_in_their_half_of_the_plane(region: str, sign: int) -> None:
    task = tasks.make({"name": "goal-ant", "region": region})
    mdps = [task.draw(np.random.default_rng(i)) for i in range(DRAWS)]
    x = np.array([m["distance"] * np.cos(m["angle"]) for m in mdps]) * sign
    y = np.array([m["distance"] * np.sin(m["angle"]) for m in mdps])
    assert x.min() > 0 and x.max() > 4.9 and y.min() < -4.9 and y.max() > 4.9


def test_a_goal_ant_is_paid_for_coming_nearer_and_not_told_where() -> None:
    task: Any = tasks.make("goal-ant")
    mdps = [{"angle": a, "distance": 3.0} for a in (0.0, np.pi)]
    batch = task.batch(mdps, [np.random.default_rng(0) for _ in mdps])
    seen = batch.reset()
    start, total = seen[0, :2].numpy(), torch.zeros(2, dtype=torch.float64)
    for action in torch.rand(50, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1:
        step = batch.step(action.expand(2, 8))
        assert torch.equal(step.observation[0], step.observation[1])
        total += step.reward * batch.seconds
        if (step.terminated | step.truncated).any():
            break
    end = step.next_observation[0, :2].numpy()
    for i, goal in enumerate(([3.0, 0.0], [-3.0, 0.0])):
        nearer = np.linalg.norm(start - goal) - np.linalg.norm(end - goal)
        assert total[i].item() == pytest.approx(nearer, abs=1e-9)
