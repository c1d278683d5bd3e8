"""Reachers: Gymnasium's Reacher-v5, and one with drawn link lengths as in EPG.

A goal is drawn with every episode, and observed. Shape letters: P environments, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epg.tasks.base import Batch, Mdp, Task, Varied
from epg.tasks.draws import Draw, one_by_one
from epg.tasks.mujoco import Bools, Floats, MujocoBatch, State, compile_each, load

FRAME_SKIP = 2
FARTHEST = 0.2  # m, of a goal
NEAREST = 0.065  # m, of a goal for arms of drawn lengths: the longest that any cannot fold under
LENGTH = 0.1  # m, of a link
TIP = 0.01  # m, of the fingertip beyond the second link


def noise(fits: Callable[[float], bool]) -> Draw:
    """How Reacher-v5 starts, with goals whose distance from the shoulder `fits`."""

    def draw(rng: np.random.Generator) -> NDArray[np.float64]:
        positions = rng.uniform(-0.1, 0.1, 4)
        while True:
            positions[2:] = rng.uniform(-FARTHEST, FARTHEST, 2)
            if fits(float(np.linalg.norm(positions[2:]))):
                break
        velocities = rng.uniform(-0.005, 0.005, 4)
        velocities[2:] = 0.0
        return np.concatenate([positions, velocities])

    return one_by_one(draw)


class ReacherBatch(MujocoBatch):
    """P arms; paid for a fingertip near the goal, less the sum of squared actions."""

    def __init__(
        self,
        models: Sequence[Any],
        draw: Draw,
        horizon: int,
        rngs: Sequence[np.random.Generator],
        device: str,
        restart: bool,
    ) -> None:
        first = models[0]
        self._tip, self._goal = first.body("fingertip").id, first.body("target").id
        start = np.zeros((len(models), first.nq + first.nv))
        super().__init__(models, start, rngs, draw, FRAME_SKIP, horizon, device, restart)

    def sense(self, data: Any) -> Sequence[Floats]:
        return (data.xpos[self._tip], data.xpos[self._goal])

    def observe(self, state: State) -> Floats:
        angles, goal = state.qpos[:, :2], state.qpos[:, 2:]
        away = self._away(state)[:, :2]
        return np.concatenate([np.cos(angles), np.sin(angles), goal, state.qvel[:, :2], away], 1)

    def reward(self, before: State, after: State, actions: NDArray[np.float32]) -> Floats:
        distance = np.sqrt(np.square(self._away(after)).sum(1))
        reward: Floats = -distance - np.square(actions).sum(1)
        return reward

    def ends(self, state: State) -> Bools:
        return np.zeros(len(state.qpos), dtype=np.bool_)

    def _away(self, state: State) -> Floats:
        return state.sensed[:, :3] - state.sensed[:, 3:]


class Reacher(Task):
    """Gymnasium's Reacher-v5."""

    name = "reacher"
    summary = "Gymnasium's Reacher-v5"
    observation_size = 10
    action_size = 2
    discrete = False
    horizon = 50

    def __init__(self, /, **ranges: Any) -> None:
        super().__init__(**ranges)
        self._model = load("reacher.xml").compile()

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        models = [self._model] * len(mdps)
        draw = noise(lambda distance: distance < FARTHEST)
        return ReacherBatch(models, draw, self.horizon, rngs, device, restart)


class RandomReacher(Reacher):
    """Reach with links of drawn lengths. The paper gives no range.

    In this one every arm reaches every goal: fully stretched it comes to 0.21 m or more, and
    folded as far as its elbow goes (3 rad) to NEAREST or less.
    """

    name = "random-reacher"
    summary = "reach a goal with an arm of drawn link lengths"
    varied = (
        Varied("length", 0.1, 0.15, "m", "of each of 2 links; masses follow; range ours", count=2),
    )

    def __init__(self, /, **ranges: Any) -> None:
        super().__init__(**ranges)
        self._spec = load("reacher.xml")

    def compile(self, mdp: Mdp) -> Any:
        """The model of an MDP: mass and inertia follow the lengths."""
        upper, lower = mdp["length"]
        for name, length in (("link0", upper), ("link1", lower)):
            self._spec.geom(name).fromto = [0, 0, 0, length, 0, 0]
        self._spec.body("body1").pos[0] = upper
        self._spec.body("fingertip").pos[0] = lower + TIP
        return self._spec.compile()

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        models = compile_each(self.compile, mdps)
        draw = noise(lambda distance: NEAREST < distance < FARTHEST)
        return ReacherBatch(models, draw, self.horizon, rngs, device, restart)
