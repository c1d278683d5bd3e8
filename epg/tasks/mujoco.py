"""A batch of MuJoCo simulations, stepped on the CPU by a plain loop of `mj_step`.

A task adds three functions of the batched states: `observe`, `reward`, `ends`.
Shape letters: P environments, O observation, A action, Q positions, V velocities, S sensed.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from epg.process.log import logger
from epg.tasks.base import Batch, Mdp, Step
from epg.tasks.draws import Draw

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MAX_POSITION = 1e10  # what MuJoCo itself takes for a state gone bad (mjMAXVAL)
MAX_SPEED = 1e3  # m/s or rad/s: five times what any joint here reaches under full torque

# Without this MuJoCo tells of bad states on stderr and in a file in the working directory.
mujoco.set_mju_user_warning(lambda message: logger.info("MuJoCo: %s", message))


def load(asset: str) -> Any:
    """The MjSpec of one of Gymnasium's models, without textures and materials.

    They do not touch the dynamics and make up most of a model's size and compile time.
    """
    found = find_spec("gymnasium")  # only its assets are used: importing it takes long
    if found is None or found.origin is None:
        raise ModuleNotFoundError("gymnasium is not installed", name="gymnasium")
    spec = mujoco.MjSpec.from_file(str(Path(found.origin).parent / "envs/mujoco/assets" / asset))
    for geom in spec.geoms:
        geom.material = ""
    for look in [*spec.materials, *spec.textures]:
        spec.delete(look)
    leave_bad_states(spec.option)
    return spec


def leave_bad_states(option: Any) -> None:
    """Have a bad state left as it is, to be noticed: MuJoCo would reset it silently."""
    option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET


def gone_bad(qpos: Floats, qvel: Floats) -> Bools:
    """Which states [P] are not finite, or beyond MAX_POSITION or MAX_SPEED."""
    good = np.all(np.abs(qpos) <= MAX_POSITION, axis=1)
    bad: Bools = ~(good & np.all(np.abs(qvel) <= MAX_SPEED, axis=1))
    return bad


def compile_quietly(spec: Any) -> Any:
    """The model; what MuJoCo says of the age of Gymnasium's files is not for our users."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is deprecated")
        return spec.compile()


def compile_each(model_of: Callable[[Mdp], Any], mdps: Sequence[Mdp]) -> list[Any]:
    """The model of every MDP, [P]: one model where several have the same MDP."""
    compiled = {name: model_of(mdp) for name, mdp in {repr(mdp): mdp for mdp in mdps}.items()}
    return [compiled[repr(mdp)] for mdp in mdps]


class State:
    """What P simulations are in: one array, so that few operations touch all of it."""

    def __init__(self, numbers: Floats, nq: int, nv: int) -> None:
        self.numbers = numbers
        """[P, Q + V + S]"""
        self.qpos = numbers[:, :nq]
        """[P, Q]"""
        self.qvel = numbers[:, nq : nq + nv]
        """[P, V]"""
        self.moving = numbers[:, : nq + nv]
        """[P, Q + V]: both"""
        self.sensed = numbers[:, nq + nv :]
        """[P, S]: what else `sense` names"""
        self._sizes = nq, nv

    def rows(self, which: Any) -> State:
        """Some of them, copied."""
        return State(np.array(self.numbers[which]), *self._sizes)


class MujocoBatch(Batch):
    """P simulations; models may be shared, and all have the same sizes.

    An episode fails when its next state or its action is not finite, when a position or an action
    is beyond MAX_POSITION or a velocity beyond MAX_SPEED. It then ends where it stood, with
    reward 0.
    """

    contact_forces = False
    """Whether to compute `cfrc_ext` after every step."""

    def __init__(
        self,
        models: Sequence[Any],
        start: Floats,
        rngs: Sequence[np.random.Generator],
        draw: Draw,
        frame_skip: int,
        horizon: int,
        device: str,
        restart: bool,
    ) -> None:
        """`start` [P, Q + V] plus a draw [Q + V] is where an episode starts."""
        p, first = len(models), models[0]
        self.data = [mujoco.MjData(model) for model in models]
        self.seconds = first.opt.timestep * frame_skip
        """of a step"""
        self._failures = np.zeros(p, dtype=np.int64)
        self._start = start
        self._rngs = rngs
        self._draw = draw
        self.frame_skip = frame_skip
        self._horizon = horizon
        self._device = device
        self._restart = restart
        # Views are made once: making one costs more than copying through it.
        self._pairs = list(zip(models, self.data, strict=True))
        self._views = [
            [data.qpos, data.qvel, *(view.reshape(-1) for view in self.sense(data))]
            for data in self.data
        ]
        self._all_views = [view for views in self._views for view in views]
        self._ctrl = np.zeros((p, first.nu))
        self._controls = [(data.ctrl, row) for data, row in zip(self.data, self._ctrl, strict=True)]
        width = sum(view.size for view in self._views[0])
        self._state = State(np.zeros((p, width)), first.nq, first.nv)

    @property
    def failures(self) -> NDArray[np.int64]:
        return self._failures.copy()

    def sense(self, data: Any) -> Sequence[Floats]:
        """Views of what else of a simulation the three functions below need."""
        return ()

    @abstractmethod
    def observe(self, state: State) -> Floats:
        """A new array [P, O]."""

    @abstractmethod
    def reward(self, before: State, after: State, actions: NDArray[np.float32]) -> Floats:
        """[P], for going from one state to the next by actions [P, A], which are not clamped."""

    @abstractmethod
    def ends(self, state: State) -> Bools:
        """Whether the MDP ends in a state, [P]."""

    def reset(self) -> Tensor:
        p = len(self.data)
        self._age = np.zeros(p, dtype=np.int64)
        self._resting = np.zeros(p, dtype=np.bool_)
        self._terminated = np.zeros(p, dtype=np.bool_)
        self._live = self._pairs
        self.begin(np.arange(p))
        return self._tensor(self.observe(self._state))

    def step(self, actions: Tensor) -> Step:
        asked = (actions if actions.is_cpu else actions.cpu()).detach().numpy()
        self._ctrl[:] = asked
        before = self._state.rows(slice(None))
        self._simulate()
        failed = self._failed()
        if failed is not None:
            for i in np.flatnonzero(failed).tolist():
                self._put(i, before.moving[i])
            self._state.numbers[failed] = before.numbers[failed]
            self._failures += failed
            asked = np.where(failed[:, None], 0, asked)
        after = self.observe(self._state)
        reward = self.reward(before, self._state, asked)
        terminated = self.ends(self._state)
        if failed is not None:
            reward = np.where(failed, 0.0, reward)
            terminated = terminated | failed
        if not self._restart:
            reward = np.where(self._resting, 0.0, reward)
            terminated = np.where(self._resting, self._terminated, terminated)
        self._age += 1
        truncated = (self._age >= self._horizon) & ~terminated
        ended = terminated | truncated
        observation = after.copy()
        if not self._restart:
            self._terminated, self._resting = terminated.copy(), ended
            self._live = [pair for pair, rests in zip(self._pairs, ended, strict=True) if not rests]
        elif ended.any():
            begun = np.flatnonzero(ended)
            self.begin(begun)
            observation[begun] = self.observe(self._state.rows(begun))
        arrays = (observation, after, reward, terminated, truncated)
        return Step(*map(self._tensor, arrays))

    def _simulate(self) -> None:
        """Where all the time goes: nothing here but what each simulation needs.

        MuJoCo clamps the controls to their range.
        """
        step, frame_skip = mujoco.mj_step, self.frame_skip
        for data_ctrl, ctrl in self._controls:
            data_ctrl[...] = ctrl
        for model, data in self._live:
            step(model, data, frame_skip)
        if self.contact_forces:
            for model, data in self._live:
                mujoco.mj_rnePostConstraint(model, data)
        np.concatenate(self._all_views, out=self._state.numbers.reshape(-1))

    def _failed(self) -> Bools | None:
        """Which simulations went bad, [P]; None if none did, as nearly always."""
        state, ctrl = self._state, self._ctrl
        # Where the sum of all squares is small, no number is large; it is never so with NaN.
        if np.vdot(state.numbers, state.numbers) + np.vdot(ctrl, ctrl) <= MAX_SPEED**2:
            return None
        bad = gone_bad(state.qpos, state.qvel) | ~(np.abs(ctrl) <= MAX_POSITION).all(1)
        return bad & ~self._resting if bad.any() else None

    def begin(self, ended: NDArray[np.int64]) -> None:
        """Start new episodes in some environments."""
        self._age[ended] = 0
        for i in ended.tolist():
            self._put(i, self._start[i] + self._draw(self._rngs[i], 1)[0])

    def _put(self, i: int, moving: Floats) -> None:
        """Simulation i anew, from positions and velocities [Q + V]."""
        (model, data), views = self._pairs[i], self._views[i]
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = moving[: model.nq], moving[model.nq :]
        # As Gymnasium does it: this warm-starts the first step's solver.
        mujoco.mj_forward(model, data)
        np.concatenate(views, out=self._state.numbers[i])

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self._device == "cpu" else tensor.to(self._device)
