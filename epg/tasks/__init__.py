"""The tasks by name. A task's module, and its simulator with it, is imported when it is made."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from math import isfinite
from typing import Any

from epg.errors import UserError
from epg.registry import find_own
from epg.tasks.base import Batch, Mdp, Step, Task, Varied, check
from epg.tasks.clipped import Clipped
from epg.tasks.delayed import Delayed
from epg.tasks.draws import uniform_noise
from epg.tasks.masked import Masked
from epg.tasks.mixture import Scale, TaskMixture
from epg.tasks.native import NativeBatch

__all__ = [
    "Batch", "Mdp", "NativeBatch", "Spec", "Step", "Task", "TaskMixture", "Varied", "describe",
    "file_name", "label", "make", "names", "parts_of", "plain", "uniform_noise",
]  # fmt: skip

Spec = str | dict[str, Any] | list[str | dict[str, Any]]
"""What names a task: its name; {name: …, parameter: …}; or a list of these, a mixture."""

_TASKS = {
    "acrobot": ("epg.tasks.acrobot", "Acrobot"),
    "aliased-chain": ("epg.tasks.chain", "AliasedChain"),
    "ant": ("epg.tasks.ant", "Ant"),
    "cart-pole": ("epg.tasks.cart_pole", "CartPole"),
    "catch": ("epg.tasks.catch", "Catch"),
    "delayed-chain": ("epg.tasks.delayed_chain", "DelayedChain"),
    "delayed-chain-distract": ("epg.tasks.delayed_chain", "DistractingChain"),
    "delayed-chain-noisy": ("epg.tasks.delayed_chain", "NoisyChain"),
    "dir-half-cheetah": ("epg.tasks.half_cheetah", "DirHalfCheetah"),
    "dir-hopper": ("epg.tasks.hopper", "DirHopper"),
    "drifting-walk": ("epg.tasks.random_walk", "DriftingWalk"),
    "goal-ant": ("epg.tasks.ant", "GoalAnt"),
    "grid-all": ("epg.tasks.levels", "GridAll"),
    "grid-dense": ("epg.tasks.levels", "GridDense"),
    "grid-long": ("epg.tasks.levels", "GridLong"),
    "grid-long-dense": ("epg.tasks.levels", "GridLongDense"),
    "grid-longer": ("epg.tasks.levels", "GridLonger"),
    "grid-sparse": ("epg.tasks.levels", "GridSparse"),
    "half-cheetah": ("epg.tasks.half_cheetah", "HalfCheetah"),
    "hopper": ("epg.tasks.hopper", "Hopper"),
    "lunar-lander-continuous": ("epg.tasks.gym", "LunarLanderContinuous"),
    "mountain-car": ("epg.tasks.mountain_car", "MountainCar"),
    "point-goal": ("epg.tasks.point_goal", "PointGoal"),
    "random-balance": ("epg.tasks.balance", "RandomBalance"),
    "random-cart-pole": ("epg.tasks.cart_pole", "RandomCartPole"),
    "random-grid-dense": ("epg.tasks.levels", "RandomGridDense"),
    "random-grid-long": ("epg.tasks.levels", "RandomGridLong"),
    "random-grid-small": ("epg.tasks.levels", "RandomGridSmall"),
    "random-grid-sparse": ("epg.tasks.levels", "RandomGridSparse"),
    "random-grid-very-dense": ("epg.tasks.levels", "RandomGridVeryDense"),
    "random-hopper": ("epg.tasks.hopper", "RandomHopper"),
    "random-reacher": ("epg.tasks.reacher", "RandomReacher"),
    "random-walker": ("epg.tasks.walker", "RandomWalker"),
    "reacher": ("epg.tasks.reacher", "Reacher"),
    "signal-chain": ("epg.tasks.chain", "SignalChain"),
    "two-colours": ("epg.tasks.two_colours", "TwoColours"),
    "walker2d": ("epg.tasks.walker", "Walker2d"),
}
MISCALLED = "unexpected keyword|multiple values|required positional|Can't instantiate"
"""What Python says where a class does not take the parameters that were given."""
OTHERS = """\
gym:ID: any Gymnasium environment with a flat Box of observations, as gym:Pendulum-v1
module:Class: a distribution of your own; docs/tasks.md has a template
[NAME, NAME]: several at once, padded to the largest"""


def names() -> list[str]:
    """The names of this package's own tasks, sorted."""
    return sorted(_TASKS)


def parts_of(spec: Spec) -> list[str | dict[str, Any]]:
    """The distributions in a mixture, each by itself, or the one that it is."""
    if not isinstance(spec, list):
        return [spec]
    return [
        {key: value for key, value in part.items() if key != "scale"}
        if isinstance(part, dict)
        else part
        for part in spec
    ]


def make(spec: Spec) -> Task:
    """The task that a name, with or without parameters, or a list of them, stands for.

    Raises `UserError` in one line that names the task.
    """
    if not isinstance(spec, list):
        if isinstance(spec, dict) and "scale" in spec:
            raise UserError(f"task {label(spec)}: scale is for the tasks of a mixture, a list")
        return _make_one(*_split(spec))
    scales: list[Scale | None] = []
    for part in spec:
        given = part.get("scale") if isinstance(part, dict) else None
        scales.append(_scale(label(part), given) if given is not None else None)
    return TaskMixture([_make_one(*_split(part)) for part in spec], scales)


def label(spec: Spec) -> str:
    """What to call it: the name, with the parameters that were given."""
    if isinstance(spec, list):
        return " + ".join(label(part) for part in spec)
    name, parameters = _split(spec)
    given = [f"{key}={_show(value)}" for key, value in sorted(parameters.items())]
    return f"{name}({', '.join(given)})" if given else name


def file_name(spec: Spec) -> str:
    """Its label with nothing but what is fit for a file's name."""
    return re.sub(r"[^\w.=,+-]+", "-", label(spec)).strip("-")


def _split(spec: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(spec, str):
        return spec, {}
    name = spec.get("name") if isinstance(spec, dict) else None
    if not isinstance(name, str):
        raise UserError(f"task: found {spec!r}, allowed: NAME, {{name: NAME, …}}, or a list")
    return name, {key: value for key, value in spec.items() if key not in ("name", "scale")}


def _show(value: Any) -> str:
    numbers = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return "..".join(str(n) for n in numbers)


def _scale(name: str, given: Any) -> Scale:
    numbers = given if isinstance(given, list) else []
    if len(numbers) != 2 or not all(type(n) in (int, float) and isfinite(n) for n in numbers):
        raise UserError(
            f"task {name}: scale: found {given!r}, allowed: [final return of a random policy, "
            "of tuned PPO]"
        )
    low, high = map(float, numbers)
    if not low < high:
        raise UserError(f"task {name}: scale: found {given!r}, allowed: the second above the first")
    return low, high


def _flag(name: str, given: dict[str, Any], key: str) -> bool:
    """What is given there, taken out."""
    value = given.pop(key, False)
    if not isinstance(value, bool):
        raise UserError(f"task {name}: {key}: found {value!r}, allowed: true or false")
    return value


def _make_one(name: str, parameters: dict[str, Any]) -> Task:
    kind, colon, what = name.partition(":")
    given = dict(parameters)
    masked, clipped = (_flag(name, given, key) for key in ("masked", "clipped"))
    delayed = given.pop("delayed", 1)
    if type(delayed) is not int or delayed < 1:
        raise UserError(f"task {name}: delayed: found {delayed!r}, allowed: an integer above 0")
    try:
        if kind == "gym" and colon:
            task: Task = import_module("epg.tasks.gym").Gymnasium(what, **given)
        elif colon:
            task = _find(name)(**given)
            check(task)
        else:
            task = _known(name)(**given)
        if clipped:
            task = Clipped(task)
    except ModuleNotFoundError as error:
        if error.name not in ("mujoco", "gymnasium"):
            raise
        raise UserError(f"task {name}: needs {error.name}, which is not installed") from None
    except UserError as error:
        raise UserError(
            f"task {name}: {error}" if name in _TASKS or colon else str(error)
        ) from None
    except TypeError as error:
        if not re.search(MISCALLED, str(error)):
            raise
        raise UserError(f"task {name}: {error}") from None
    task.name = label({"name": name, **parameters})
    if delayed > 1:
        task = Delayed(task, delayed)
    return Masked(task) if masked else task


def _known(name: str) -> Any:
    if name not in _TASKS:
        near = difflib.get_close_matches(name, names())
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(
            f"task: unknown name {name!r}; {hint}allowed: {', '.join(names())}, gym:ID, "
            "module:Class"
        )
    module, task = _TASKS[name]
    return getattr(import_module(module), task)


def _find(name: str) -> Any:
    """A task class of a user's own."""
    found = find_own(name)
    if not issubclass(found, Task):
        raise UserError("it is not an epg.tasks.Task")
    return found


def describe(task: Task) -> str:
    """Sizes, horizon, what varies and over which range, for people."""
    kind = "discrete" if task.discrete else "continuous"
    lines = [
        f"{task.name}: {task.summary}",
        f"  observation {task.observation_size}, {task.action_size} {kind} "
        f"action{'s' * (task.action_size > 1)}, horizon {task.horizon}",
    ]
    lines += [f"  {varied.line()}" for varied in task.varied]
    parts = task.parts if isinstance(task, TaskMixture) else ()
    return "\n".join(lines + [describe(part.task) for part in parts])


def plain(task: Task) -> dict[str, Any]:
    """The same, for JSON."""
    return {
        "name": task.name,
        "summary": task.summary,
        "observation_size": task.observation_size,
        "action_size": task.action_size,
        "discrete": task.discrete,
        "horizon": task.horizon,
        "varied": [asdict(v) for v in task.varied],
        "parts": [plain(part.task) for part in task.parts] if isinstance(task, TaskMixture) else [],
    }
