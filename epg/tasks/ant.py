"""Ants: Gymnasium's Ant-v5, of Schulman et al. 2016, and EPG's, which looks for a hidden goal.

Shape letters: P environments, A action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epg.errors import UserError
from epg.tasks.base import Batch, Mdp, Task, Varied
from epg.tasks.mujoco import Bools, Floats, MujocoBatch, State, load
from epg.tasks.runner import wide_noise

FRAME_SKIP = 5
MIN_HEIGHT, MAX_HEIGHT = 0.2, 1.0  # m, of the torso: the episode ends beyond
TORSO = 1
CONTROL_COST = 0.5
CONTACT_COST = 5e-4
MAX_FORCE = 1.0  # at which contact forces are clipped
REGIONS = {
    "all": (-math.pi, math.pi),
    "front": (-math.pi / 2, math.pi / 2),
    "back": (math.pi / 2, 3 * math.pi / 2),
}


class _AntBatch(MujocoBatch):
    """P ants. What is sensed begins with where the torso was seen last, x and y."""

    def __init__(
        self,
        models: Sequence[Any],
        horizon: int,
        rngs: Sequence[np.random.Generator],
        device: str,
        restart: bool,
    ) -> None:
        start = np.stack([np.concatenate([m.qpos0, np.zeros(m.nv)]) for m in models])
        noise = wide_noise(models[0])
        super().__init__(models, start, rngs, noise, FRAME_SKIP, horizon, device, restart)

    def ends(self, state: State) -> Bools:
        height = state.qpos[:, 2]
        ends: Bools = (height < MIN_HEIGHT) | (height > MAX_HEIGHT)
        return ends


class AntBatch(_AntBatch):
    """P ants that run along x; they feel their contact forces."""

    contact_forces = True

    def sense(self, data: Any) -> Sequence[Floats]:
        return (data.xpos[TORSO, :2], data.cfrc_ext)

    def observe(self, state: State) -> Floats:
        forces = state.sensed[:, 8:].clip(-MAX_FORCE, MAX_FORCE)  # but those on the world
        return np.concatenate([state.qpos[:, 2:], state.qvel, forces], 1)

    def reward(self, before: State, after: State, actions: NDArray[np.float32]) -> Floats:
        speed = (after.sensed[:, 0] - before.sensed[:, 0]) / self.seconds
        forces = after.sensed[:, 2:].clip(-MAX_FORCE, MAX_FORCE)
        costs = CONTROL_COST * np.square(actions).sum(1) + CONTACT_COST * np.square(forces).sum(1)
        reward: Floats = speed + ~self.ends(after) - costs
        return reward


class GoalAntBatch(_AntBatch):
    """P ants, each paid for coming nearer to its goal, in m/s; they see where they are."""

    def __init__(
        self,
        models: Sequence[Any],
        goals: Floats,
        horizon: int,
        rngs: Sequence[np.random.Generator],
        device: str,
        restart: bool,
    ) -> None:
        """`goals` [P, 2]: m."""
        super().__init__(models, horizon, rngs, device, restart)
        self._goals = goals

    def observe(self, state: State) -> Floats:
        return np.concatenate([state.qpos, state.qvel], 1)

    def reward(self, before: State, after: State, actions: NDArray[np.float32]) -> Floats:
        speed: Floats = (self._distance(before) - self._distance(after)) / self.seconds
        return speed

    def _distance(self, state: State) -> Floats:
        x, y = (state.qpos[:, :2] - self._goals).T
        distance: Floats = np.hypot(x, y)
        return distance


class _AntTask(Task):
    """A task on Gymnasium's ant."""

    action_size = 8
    discrete = False
    horizon = 1000

    def __init__(self, /, **ranges: Any) -> None:
        super().__init__(**ranges)
        self._model = load("ant.xml").compile()


class Ant(_AntTask):
    """Gymnasium's Ant-v5."""

    name = "ant"
    summary = "Gymnasium's Ant-v5"
    observation_size = 105

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        models = [self._model] * len(mdps)
        return AntBatch(models, self.horizon, rngs, device, restart)


class GoalAnt(_AntTask):
    """Walk to a goal that is not observed."""

    name = "goal-ant"
    summary = (
        "walk to a goal, not told where; region: all (the default), front or back of the start"
    )
    observation_size = 29
    varied = (
        Varied("angle", *REGIONS["all"], "rad", "of the goal; not observed",
               allowed=(-2 * math.pi, 2 * math.pi)),
        Varied("distance", 2.0, 5.0, "m", "of the goal; not observed; range ours",
               allowed=(0.5, 100.0)),
    )  # fmt: skip

    def __init__(self, /, region: str | None = None, **ranges: Any) -> None:
        """`region`: the half of the plane that goals lie in, one of REGIONS."""
        if region is not None:
            if region not in list(REGIONS):
                raise UserError(f"region: found {region!r}, allowed: {', '.join(REGIONS)}")
            if "angle" in ranges:
                raise UserError("region and angle: found both, allowed: one of them")
            ranges["angle"] = list(REGIONS[region])
        super().__init__(**ranges)

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        models = [self._model] * len(mdps)
        angle, distance = (np.array([m[name] for m in mdps]) for name in ("angle", "distance"))
        goals = np.stack([distance * np.cos(angle), distance * np.sin(angle)], 1)
        return GoalAntBatch(models, goals, self.horizon, rngs, device, restart)
