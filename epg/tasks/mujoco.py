"""A batch of MuJoCo simulations, stepped on the CPU by a plain loop of `mj_step`.

A task adds three functions of the batched positions and velocities: `observe`, `reward`, `ends`.
Shape letters: P environments, O observation, A action, Q positions, V velocities.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from epg.tasks.base import Batch, Step
from epg.tasks.draws import Draw, Resets

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MAX_VALUE = 1e10  # what MuJoCo itself takes for a state gone bad (mjMAXVAL)

_QUIET = (
    mujoco.mjtWarning.mjWARN_BADQPOS,
    mujoco.mjtWarning.mjWARN_BADQVEL,
    mujoco.mjtWarning.mjWARN_BADQACC,
    mujoco.mjtWarning.mjWARN_BADCTRL,
)


def load(asset: str) -> Any:
    """The MjSpec of one of Gymnasium's models, without textures and materials.

    They do not touch the dynamics and make up most of a model's size and compile time.
    A bad state is left as it is: MuJoCo would otherwise reset it silently.
    """
    found = find_spec("gymnasium")  # only its assets are used: importing it takes long
    if found is None or found.origin is None:
        raise ModuleNotFoundError("gymnasium is not installed", name="gymnasium")
    spec = mujoco.MjSpec.from_file(str(Path(found.origin).parent / "envs/mujoco/assets" / asset))
    for geom in spec.geoms:
        geom.material = ""
    for look in [*spec.materials, *spec.textures]:
        spec.delete(look)
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    return spec


class MujocoBatch(Batch):
    """P simulations; models may be shared, and all have the same sizes.

    An episode fails when its next state or its action is not finite or beyond MAX_VALUE. It then
    ends where it stood, with reward 0.
    """

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
        self._failures = np.zeros(p, dtype=np.int64)
        self._start = start
        self._resets = Resets(rngs, draw, "cpu")
        self._frame_skip = frame_skip
        self._horizon = horizon
        self._device = device
        self._restart = restart
        self._ctrl = np.zeros((p, first.nu))
        self._qpos = np.zeros((p, first.nq))
        self._qvel = np.zeros((p, first.nv))
        # Views are made once: making one costs more than copying a row through it.
        self._rows = [
            (model, data, data.ctrl, ctrl, data.qpos, qpos, data.qvel, qvel)
            for model, data, ctrl, qpos, qvel in zip(
                models, self.data, self._ctrl, self._qpos, self._qvel, strict=True
            )
        ]

    @property
    def failures(self) -> NDArray[np.int64]:
        return self._failures.copy()

    @abstractmethod
    def observe(self, qpos: Floats, qvel: Floats) -> Floats:
        """A new array [P, O], of qpos [P, Q] and qvel [P, V]."""

    @abstractmethod
    def reward(self, before: Floats, qpos: Floats, qvel: Floats, ctrl: Floats) -> Floats:
        """[P], for going from qpos `before` [P, Q] to `qpos` and `qvel` under ctrl [P, A]."""

    @abstractmethod
    def ends(self, qpos: Floats, qvel: Floats) -> Bools:
        """Whether the MDP ends in a state, [P]."""

    def reset(self) -> Tensor:
        p = len(self._rows)
        self._age = np.zeros(p, dtype=np.int64)
        self._resting = np.zeros(p, dtype=np.bool_)
        self._terminated = np.zeros(p, dtype=np.bool_)
        self._live = self._rows
        self._begin(np.ones(p, dtype=np.bool_))
        return self._tensor(self.observe(self._qpos, self._qvel))

    def step(self, actions: Tensor) -> Step:
        self._ctrl[:] = actions.detach().cpu().numpy()
        qpos_before, qvel_before = self._qpos.copy(), self._qvel.copy()
        self._simulate()
        failed = self._failed()
        if failed is not None:
            self._qpos[failed] = qpos_before[failed]
            self._qvel[failed] = qvel_before[failed]
            self._failures += failed
        after = self.observe(self._qpos, self._qvel)
        reward = self.reward(qpos_before, self._qpos, self._qvel, self._ctrl)
        terminated = self.ends(self._qpos, self._qvel)
        if failed is not None:
            reward = np.where(failed, 0.0, reward)
            terminated = terminated | failed
        if not self._restart:
            reward = np.where(self._resting, 0.0, reward)
            terminated = np.where(self._resting, self._terminated, terminated)
        self._age += ~self._resting
        truncated = (self._age >= self._horizon) & ~terminated
        ended = terminated | truncated
        observation = after.copy()
        if not self._restart:
            self._terminated, self._resting = terminated.copy(), ended
            self._live = [row for row, rests in zip(self._rows, ended, strict=True) if not rests]
        elif ended.any():
            self._begin(ended)
            observation[ended] = self.observe(self._qpos, self._qvel)[ended]
        arrays = (observation, after, reward, terminated, truncated)
        return Step(*map(self._tensor, arrays))

    def _simulate(self) -> None:
        """Where all the time goes: nothing here but what each simulation needs.

        MuJoCo clamps the controls to their range.
        """
        step, frame_skip = mujoco.mj_step, self._frame_skip
        for model, data, data_ctrl, ctrl, data_qpos, qpos, data_qvel, qvel in self._live:
            data_ctrl[...] = ctrl
            step(model, data, frame_skip)
            qpos[...] = data_qpos
            qvel[...] = data_qvel

    def _failed(self) -> Bools | None:
        """Which simulations went bad, [P]; None if none did, as nearly always."""
        arrays = (self._qpos, self._qvel, self._ctrl)
        if all(np.abs(array).max() <= MAX_VALUE for array in arrays):  # false for NaN
            return None
        bad = np.zeros(len(self._rows), dtype=np.bool_)
        for array in arrays:
            bad |= ~(np.abs(array) <= MAX_VALUE).all(1)
        return bad & ~self._resting

    def _begin(self, ended: Bools) -> None:
        state = self._start + self._resets.next().numpy()
        self._resets.advance(torch.from_numpy(ended))
        self._age[ended] = 0
        nq = self._qpos.shape[1]
        for i in np.flatnonzero(ended):
            model, data, _, _, data_qpos, _, data_qvel, _ = self._rows[i]
            mujoco.mj_resetData(model, data)
            # MuJoCo logs the first warning of a kind, to a file in the working directory. Bad
            # states are counted in `failures` instead.
            for kind in _QUIET:
                data.warning[kind].number = 1
            data_qpos[:] = self._qpos[i] = state[i, :nq]
            data_qvel[:] = self._qvel[i] = state[i, nq:]
            mujoco.mj_forward(model, data)  # as Gymnasium: it warm-starts the first step's solver

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._device)
