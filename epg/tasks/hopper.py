"""Hoppers: Gymnasium's Hopper-v5 model, of Erez, Tassa & Todorov 2012, with what varies in EPG.

The directional and the random hopper of Houthooft et al. 2018 (arXiv 1802.04821): two physics steps
per action, the reward is direction × forward velocity, without alive bonus and control cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import mujoco
import numpy as np

from epg.tasks.base import Batch, Mdp, Task, Varied
from epg.tasks.draws import uniform_noise
from epg.tasks.mujoco import Bools, Floats, MujocoBatch, load

FRAME_SKIP = 2
MIN_HEIGHT = 0.7  # m, of the torso
MAX_STATE = 100.0
RESET_NOISE = 5e-3
LINKS = ("torso", "thigh", "leg", "foot")


class HopperBatch(MujocoBatch):
    """P hoppers; observation: positions but x (1 height, 4 angles), velocities clipped to ±10."""

    def __init__(
        self,
        models: Sequence[Any],
        lift: Floats,
        direction: Floats,
        max_lean: float,
        horizon: int,
        rngs: Sequence[np.random.Generator],
        device: str,
        restart: bool,
    ) -> None:
        """`lift` [P]: m added to the model's initial height; `direction` [P]: ±1."""
        nq, nv = models[0].nq, models[0].nv
        start = np.zeros((len(models), nq + nv))
        start[:, :nq] = [model.qpos0 for model in models]
        start[:, 1] += lift
        noise = uniform_noise(nq + nv, RESET_NOISE)
        super().__init__(models, start, rngs, noise, FRAME_SKIP, horizon, device, restart)
        self._direction = direction
        self._max_lean = max_lean
        self._seconds = models[0].opt.timestep * FRAME_SKIP

    def observe(self, qpos: Floats, qvel: Floats) -> Floats:
        return np.concatenate([qpos[:, 1:], qvel.clip(-10, 10)], 1)

    def reward(self, before: Floats, qpos: Floats, qvel: Floats, ctrl: Floats) -> Floats:
        speed: Floats = (qpos[:, 0] - before[:, 0]) / self._seconds
        return self._direction * speed

    def ends(self, qpos: Floats, qvel: Floats) -> Bools:
        low: Bools = qpos[:, 1] <= MIN_HEIGHT
        leans = np.abs(qpos[:, 2]) >= self._max_lean
        far = (np.abs(qpos[:, 2:]) >= MAX_STATE).any(1) | (np.abs(qvel) >= MAX_STATE).any(1)
        return low | leans | far


class _Hopper(Task):
    observation_size = 11
    action_size = 3
    discrete = False
    horizon = 1000


class DirHopper(_Hopper):
    """Hop forward or backward, not told which."""

    name = "dir-hopper"
    summary = "hop forward or backward, not told which"
    varied: ClassVar[tuple[Varied, ...]] = (
        Varied("direction", -1.0, 1.0, "", "-1 or 1, equally often; not observed"),
    )

    def __init__(self) -> None:
        self._model = load("hopper.xml").compile()

    def draw(self, rng: np.random.Generator) -> Mdp:
        return {"direction": float(rng.choice([-1.0, 1.0]))}

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        models = [self._model] * len(mdps)
        direction = np.array([m["direction"] for m in mdps])
        lift = np.zeros(len(mdps))
        return HopperBatch(models, lift, direction, np.inf, self.horizon, rngs, device, restart)


class RandomHopper(_Hopper):
    """Hop forward with drawn dynamics; the episode also ends at a lean of 0.5 rad."""

    name = "random-hopper"
    summary = "hop forward with drawn masses, thicknesses, frictions and gravity"
    varied: ClassVar[tuple[Varied, ...]] = (
        Varied("mass", 0.5, 2.0, "×", "of each of 4 bodies; does not follow thickness"),
        Varied("gravity", -20.0, -2.0, "m/s²"),
        Varied("friction", 0.5, 2.0, "×", "of each of 4 bodies with the floor, as in the original"),
        Varied("thickness", 0.5, 2.0, "×", "of each of 4 bodies: the radius, not the length"),
    )
    max_lean = 0.5  # rad

    def __init__(self) -> None:
        self._spec = load("hopper.xml")
        self._geoms = [self._spec.geom(f"{link}_geom") for link in LINKS]
        self._floor = self._spec.geom("floor")
        model = self._spec.compile()
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        ids = [model.geom(f"{link}_geom").id for link in LINKS]
        self._mass = model.body_mass[[model.body(link).id for link in LINKS]]
        self._radius = model.geom_size[ids, 0]
        # MuJoCo takes the larger friction of two geoms. The floor gives its own to each link and
        # keeps none, so that a drawn friction holds and a factor of 1 is the original.
        self._friction = np.maximum(model.geom_friction[ids, 0], self._floor.friction[0])
        self._floor.friction = np.zeros(3)
        # Lowest point of each capsule's axis: the radius below it touches the floor first.
        half_length, upright = model.geom_size[ids, 1], np.abs(data.geom_xmat[ids, 8])
        self._axis = data.geom_xpos[ids, 2] - half_length * upright
        self._clearance = (self._axis - self._radius).min()

    def draw(self, rng: np.random.Generator) -> Mdp:
        sizes = {"mass": 4, "gravity": None, "friction": 4, "thickness": 4}
        draws = {v.name: rng.uniform(v.low, v.high, sizes[v.name]) for v in self.varied}
        return {name: np.asarray(draw).tolist() for name, draw in draws.items()}

    def compile(self, mdp: Mdp) -> Any:
        """The model of an MDP. The compiler makes each inertia follow its mass and its size."""
        radius, mass = self._radius * mdp["thickness"], self._mass * mdp["mass"]
        friction = self._friction * mdp["friction"]
        for i, geom in enumerate(self._geoms):
            geom.size[0], geom.mass, geom.friction[0] = radius[i], mass[i], friction[i]
        self._spec.option.gravity[2] = mdp["gravity"]
        return self._spec.compile()

    def lift(self, mdp: Mdp) -> float:
        """Added to the initial height (m), so that the hopper starts as far above the floor."""
        lowest = (self._axis - self._radius * mdp["thickness"]).min()
        return float(self._clearance - lowest)

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        compiled = {id(m): self.compile(m) for m in mdps}  # one model where several share an MDP
        models = [compiled[id(m)] for m in mdps]
        lift = np.array([self.lift(m) for m in mdps])
        ahead = np.ones(len(mdps))
        return HopperBatch(models, lift, ahead, self.max_lean, self.horizon, rngs, device, restart)
