"""Gymnasium's planar runners: a body that moves along x, upright or not, and is paid for speed.

Hopper and Walker2d are of Erez, Tassa & Todorov 2012, HalfCheetah of Wawrzyński 2009. The tasks of
Houthooft et al. 2018 (EPG, arXiv 1802.04821) pay direction × forward velocity and nothing else.
Shape letters: P environments, Q positions, V velocities, A action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epg.tasks.base import Batch, Mdp, Task, Varied
from epg.tasks.bodies import Bodies
from epg.tasks.draws import Draw, one_by_one, uniform_noise
from epg.tasks.mujoco import Bools, Floats, MujocoBatch, State, compile_each, compile_quietly, load

DIRECTION = Varied(
    "direction", -1.0, 1.0, note="forward or backward; not observed", choices=(-1.0, 1.0)
)


@dataclass(frozen=True)
class Rules:
    """What tells the runners apart besides their bodies."""

    frame_skip: int
    """physics steps per action"""
    heights: tuple[float, float] = (-math.inf, math.inf)
    """m, of the torso: the episode ends at or beyond either"""
    max_lean: float = math.inf
    """rad, of the torso: the episode ends there"""
    max_state: float = math.inf
    """m, rad, m/s, rad/s: the episode ends where any but x and the height comes there"""
    max_seen_speed: float = math.inf
    """m/s, rad/s: velocities are clipped to it in the observation"""
    alive_bonus: float = 0.0
    """per step that does not end the episode"""
    control_cost: float = 0.0
    """× the sum of squared actions, which are not clamped for it"""


class RunnerBatch(MujocoBatch):
    """P runners; observation: all positions but x, all velocities."""

    def __init__(
        self,
        models: Sequence[Any],
        rules: Rules,
        noise: Draw,
        direction: Floats,
        lift: Floats,
        horizon: int,
        rngs: Sequence[np.random.Generator],
        device: str,
        restart: bool,
    ) -> None:
        """`direction` [P]: ±1; `lift` [P]: m added to the model's initial height."""
        nq, nv = models[0].nq, models[0].nv
        start = np.zeros((len(models), nq + nv))
        start[:, :nq] = [model.qpos0 for model in models]
        start[:, 1] += lift
        super().__init__(models, start, rngs, noise, rules.frame_skip, horizon, device, restart)
        self._rules = rules
        self._direction = direction

    def observe(self, state: State) -> Floats:
        seen = state.moving[:, 1:].copy()
        if self._rules.max_seen_speed < math.inf:
            speeds = seen[:, state.qpos.shape[1] - 1 :]
            np.minimum(speeds, self._rules.max_seen_speed, out=speeds)
            np.maximum(speeds, -self._rules.max_seen_speed, out=speeds)
        return seen

    def reward(self, before: State, after: State, actions: NDArray[np.float32]) -> Floats:
        rules = self._rules
        reward: Floats = (after.qpos[:, 0] - before.qpos[:, 0]) / self.seconds * self._direction
        if rules.alive_bonus:
            reward += rules.alive_bonus * ~self.ends(after)
        if rules.control_cost:
            reward -= rules.control_cost * np.square(actions).sum(1)
        return reward

    def ends(self, state: State) -> Bools:
        rules, (low, high), height = self._rules, self._rules.heights, state.qpos[:, 1]
        ends: Bools = height <= low
        if high < math.inf:
            ends |= height >= high
        if rules.max_lean < math.inf:
            ends |= np.abs(state.qpos[:, 2]) >= rules.max_lean
        if rules.max_state < math.inf:
            ends |= np.abs(state.moving[:, 2:]).max(1) >= rules.max_state
        return ends


def small_noise(model: Any) -> Draw:
    """How Hopper-v5 and Walker2d-v5 start."""
    return uniform_noise(model.nq + model.nv, 5e-3)


def wide_noise(model: Any) -> Draw:
    """How HalfCheetah-v5 and Ant-v5 start: positions uniform in ±0.1, velocities normal."""

    def draw(rng: np.random.Generator) -> NDArray[np.float64]:
        positions = rng.uniform(-0.1, 0.1, model.nq)
        return np.concatenate([positions, 0.1 * rng.standard_normal(model.nv)])

    return one_by_one(draw)


class Runner(Task):
    """A task on one of these bodies, always the same, in a direction that may be drawn."""

    discrete = False
    horizon = 1000
    asset: str
    rules: Rules

    def __init__(self, /, **ranges: Any) -> None:
        super().__init__(**ranges)
        self._model = compile_quietly(load(self.asset))

    def noise(self, model: Any) -> Draw:
        """What an episode's start is drawn from."""
        return small_noise(model)

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        p = len(mdps)
        direction = np.array([mdp.get("direction", 1.0) for mdp in mdps])
        return RunnerBatch(
            [self._model] * p, self.rules, self.noise(self._model), direction, np.zeros(p),
            self.horizon, rngs, device, restart,
        )  # fmt: skip


class RandomRunner(Task):
    """A task on one of these bodies with drawn dynamics, forward."""

    discrete = False
    horizon = 1000
    asset: str
    rules: Rules
    links: tuple[str, ...]

    def __init__(self, /, **ranges: Any) -> None:
        super().__init__(**ranges)
        self.bodies = Bodies(load(self.asset), self.links)

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        models = compile_each(self.bodies.compile, mdps)
        lift = np.array([self.bodies.lift(m) for m in mdps])
        return RunnerBatch(
            models, self.rules, small_noise(models[0]), np.ones(len(mdps)), lift,
            self.horizon, rngs, device, restart,
        )  # fmt: skip
