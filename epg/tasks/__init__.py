"""The tasks by name. A task's module, and its simulator with it, is imported when it is made."""

from __future__ import annotations

import difflib
from dataclasses import asdict
from importlib import import_module
from typing import Any

from epg.errors import UserError
from epg.tasks.base import Batch, Mdp, Step, Task, Varied

__all__ = ["Batch", "Mdp", "Step", "Task", "Varied", "describe", "make", "names", "plain"]

_TASKS = {
    "cart-pole": ("epg.tasks.cart_pole", "CartPole"),
    "dir-hopper": ("epg.tasks.hopper", "DirHopper"),
    "point-goal": ("epg.tasks.point_goal", "PointGoal"),
    "random-cart-pole": ("epg.tasks.cart_pole", "RandomCartPole"),
    "random-hopper": ("epg.tasks.hopper", "RandomHopper"),
}


def names() -> list[str]:
    """The names that `make` takes, sorted."""
    return sorted(_TASKS)


def make(name: str) -> Task:
    """The task of that name."""
    if name not in _TASKS:
        near = difflib.get_close_matches(name, names())
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"task: unknown name {name!r}; {hint}allowed: {', '.join(names())}")
    module, task = _TASKS[name]
    try:
        made: Task = getattr(import_module(module), task)()
    except ModuleNotFoundError as error:
        if error.name not in ("mujoco", "gymnasium"):
            raise
        raise UserError(f"task {name}: needs {error.name}, which is not installed") from error
    return made


def describe(task: Task) -> str:
    """Sizes, horizon, what varies and over which range, for people."""
    kind = "discrete" if task.discrete else "continuous"
    lines = [
        f"{task.name}: {task.summary}",
        f"  observation {task.observation_size}, {task.action_size} {kind} "
        f"action{'s' * (task.action_size > 1)}, horizon {task.horizon}",
    ]
    lines += [
        f"  {v.name}: {v.low:g} to {v.high:g} {v.unit}".rstrip()
        + (f" ({v.note})" if v.note else "")
        for v in task.varied
    ]
    return "\n".join(lines)


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
    }
