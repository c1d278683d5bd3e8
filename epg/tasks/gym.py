"""Any Gymnasium environment, through Gymnasium's own vector API.

Shape letters: P environments, O observation, A action.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray
from torch import Tensor

from epg.errors import UserError
from epg.registry import import_own
from epg.tasks.base import Batch, Mdp, Step, Task, Varied
from epg.tasks.mujoco import gone_bad, leave_bad_states  # and MuJoCo's warnings go to the log

HORIZON = 1000
"""Where an environment has no time limit of its own."""
LARGEST = 1e100
"""Number that a range may have."""


class Gymnasium(Task):
    """One Gymnasium environment; arguments of it that are given as [low, high] are drawn.

    Continuous actions in [-1, 1] are clipped, then stretched to the bounds of the action space;
    where it has none, they are taken as they are.
    """

    def __init__(self, gym_id: str, /, **arguments: Any) -> None:
        """gym_id: ID, or MODULE:ID for one that a user's module registers.

        arguments: of `gymnasium.make`; [low, high] is a range, except where the environment itself
        has a pair there by default.
        """
        super().__init__()
        module, colon, _ = gym_id.rpartition(":")
        if colon:
            _asked(partial(import_own, module))
        ranges = _ranges(gym_id, arguments)
        self.varied = tuple(
            Varied(name, -LARGEST, LARGEST).within(given) for name, given in ranges.items()
        )
        self._id = gym_id
        self._arguments = {k: v for k, v in arguments.items() if k not in ranges}
        ends = [{v.name: v.low for v in self.varied}, {v.name: v.high for v in self.varied}]
        tried = [self._make(mdp) for mdp in (ends if ranges else [{}])]
        one = tried[0]
        seen, acted = one.observation_space, one.action_space
        self.horizon = one.spec.max_episode_steps or HORIZON
        if not (isinstance(seen, spaces.Box) and len(seen.shape) == 1):
            raise UserError(
                f"its observations are {_short(seen)}, but only a Box of one dimension can be "
                "learned from: no pixels, no dictionaries"
            )
        if not isinstance(acted, spaces.Discrete) and not (
            isinstance(acted, spaces.Box) and len(acted.shape) == 1
        ):
            raise UserError(
                f"its actions are {_short(acted)}, but only Discrete and a Box of one dimension "
                "can be acted in"
            )
        if tried[-1].observation_space.shape != seen.shape or tried[-1].action_space != acted:
            raise UserError(f"its spaces change with {', '.join(ranges)}")
        self.summary = f"Gymnasium's {gym_id}"
        self.observation_size = seen.shape[0]
        self.discrete = isinstance(acted, spaces.Discrete)
        self.action_size = int(acted.n) if isinstance(acted, spaces.Discrete) else acted.shape[0]
        for environment, mdp in zip(tried, ends, strict=False):
            _try(environment, mdp)

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        environments = _asked(
            lambda: SyncVectorEnv(
                [partial(gymnasium.make, self._id, **self._arguments, **mdp) for mdp in mdps],
                observation_mode="different",  # in bounds, which nobody looks at
                autoreset_mode=AutoresetMode.DISABLED,
            )
        )
        return GymnasiumBatch(environments, rngs, self.horizon, device, restart)

    def _make(self, mdp: Mdp) -> Any:
        return _asked(partial(gymnasium.make, self._id, **self._arguments, **mdp))


def _try(one: Any, mdp: Mdp) -> None:
    """Some arguments are looked at only now."""
    try:
        one.reset(seed=0)
        one.action_space.seed(0)
        one.step(one.action_space.sample())
        one.close()
    except Exception as error:
        given = "".join(f" with {name} {value}" for name, value in mdp.items())
        said = (str(error).splitlines() or [""])[0]
        raise UserError(f"cannot be stepped{given}: {type(error).__name__}: {said}") from None


def _ranges(gym_id: str, arguments: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The arguments that are [low, high], and no pairs by their nature."""
    pairs = {
        name: given for name, given in arguments.items()
        if isinstance(given, list) and len(given) == 2
        and all(isinstance(n, int | float) and not isinstance(n, bool) for n in given)
    }  # fmt: skip
    if not pairs:
        return {}
    spec = _asked(partial(gymnasium.spec, gym_id.rpartition(":")[2]))
    create = spec.entry_point if callable(spec.entry_point) else _asked(
        partial(gymnasium.envs.registration.load_env_creator, spec.entry_point)
    )  # fmt: skip
    defaults = {name: p.default for name, p in signature(create).parameters.items()} | spec.kwargs
    return {n: g for n, g in pairs.items() if not isinstance(defaults.get(n), list | tuple)}


def _asked(make: Callable[[], Any]) -> Any:
    """What Gymnasium makes; a `UserError` in its words if it does not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return make()
        except UserError:
            raise
        except ModuleNotFoundError as error:
            raise UserError(f"needs the Python module {error.name}: {error}") from None
        except Exception as error:  # whatever an environment makes of its arguments
            raise UserError(f"{error}" or type(error).__name__) from None


class LunarLanderContinuous(Gymnasium):
    """Gymnasium's LunarLanderContinuous-v3."""

    def __init__(self, /, **ranges: Any) -> None:
        Task.__init__(self, **ranges)  # it varies nothing
        try:
            super().__init__("LunarLanderContinuous-v3")
        except UserError as error:
            if "Box2D" not in str(error):
                raise
            raise UserError("needs Box2D: pip install 'epg[box2d]'") from None


class GymnasiumBatch(Batch):
    """P environments in one of Gymnasium's vectors.

    The k-th reset of environment i is seeded with the k-th number of `rngs[i]`. An episode fails
    when its next observation, its reward or its action is not finite, or its MuJoCo simulation has
    gone bad. It then ends where it stood, with reward 0.
    """

    def __init__(
        self,
        environments: Any,
        rngs: Sequence[np.random.Generator],
        horizon: int,
        device: str,
        restart: bool,
    ) -> None:
        self._environments = environments
        self._rngs = rngs
        self._horizon = horizon
        self._device = device
        self._restart = restart
        self._failures = np.zeros(len(rngs), dtype=np.int64)
        self._simulations = _simulations(environments)
        space = environments.single_action_space
        self._discrete = isinstance(space, spaces.Discrete)
        if isinstance(space, spaces.Discrete):
            self._first = int(space.start)
        else:
            self._type = space.dtype
            self._bounded = space.is_bounded()
            self._middle = (space.high / 2 + space.low / 2) if self._bounded else 0.0
            self._reach = (space.high / 2 - space.low / 2) if self._bounded else 1.0

    @property
    def failures(self) -> NDArray[np.int64]:
        return self._failures.copy()

    def reset(self) -> Tensor:
        p = len(self._failures)
        self._age = np.zeros(p, dtype=np.int64)
        self._resting, self._terminated, self._truncated = np.zeros((3, p), dtype=np.bool_)
        self._seen = self._begin(np.ones(p, dtype=np.bool_))
        return self._tensor(self._seen.copy())

    def step(self, actions: Tensor) -> Step:
        asked = actions.detach().cpu().numpy()
        sane = np.isfinite(asked).reshape(len(asked), -1).all(1)
        came, reward, terminated, truncated, _ = self._environments.step(self._fit(asked, sane))
        over = terminated | truncated
        rests = self._resting  # is stepped with the others, and its answers are dropped
        sane &= np.isfinite(came).all(1) & np.isfinite(reward)
        for i, data in self._simulations:
            sane[i] &= not gone_bad(data.qpos[None], data.qvel[None])[0]
        failed = ~sane & ~rests
        self._failures += failed
        self._age += 1
        after = np.where((failed | rests)[:, None], self._seen, came).astype(np.float64)
        reward = np.where(failed | rests, 0.0, reward)
        terminated = np.where(rests, self._terminated, terminated | failed)
        truncated = (truncated | (self._age >= self._horizon)) & ~terminated
        truncated = np.where(rests, self._truncated, truncated)
        ended = terminated | truncated
        observation = after.copy()
        if (over | ended).any():
            fresh = self._begin(over | ended)
            if self._restart:
                observation[ended] = fresh[ended]
        if not self._restart:
            self._terminated, self._truncated, self._resting = terminated, truncated, ended
        self._seen = observation
        arrays = (observation, after, reward, terminated, truncated)
        return Step(*(self._tensor(array.copy()) for array in arrays))

    def _fit(self, asked: NDArray[Any], sane: NDArray[np.bool_]) -> NDArray[Any]:
        """What the action space takes."""
        if self._discrete:
            return asked + self._first
        asked = np.where(sane[:, None], asked, 0.0)
        if self._bounded:
            asked = asked.clip(-1, 1) * self._reach + self._middle
        return asked.astype(self._type)

    def _begin(self, ended: NDArray[np.bool_]) -> NDArray[np.float64]:
        self._age[ended] = 0
        seeds = [
            int(rng.integers(2**31)) if begins else None
            for rng, begins in zip(self._rngs, ended, strict=True)
        ]
        seen, _ = self._environments.reset(seed=seeds, options={"reset_mask": ended})
        return np.asarray(seen, dtype=np.float64)

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def _simulations(environments: Any) -> list[tuple[int, Any]]:
    """Of environments that MuJoCo simulates: which, and the MjData."""
    found = []
    for i, environment in enumerate(environments.envs):
        inner = environment.unwrapped
        if type(getattr(inner, "model", None)).__module__.startswith("mujoco"):
            leave_bad_states(inner.model.opt)
            found.append((i, inner.data))
    return found


def _short(space: Any) -> str:
    text = str(space)
    return text if len(text) <= 80 else text[:77] + "..."
