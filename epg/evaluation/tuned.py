"""What is known of tuned baselines, by task, method and budget: settings and returns.

`epg tune` finds them out. Those in `tuned.yaml` came with the package; a user's own are kept in
the cache, and count first.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from glob import escape
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from pydantic import ValidationError

from epg.agents.policy_gradient import RateSchedule
from epg.config import Config, Setup
from epg.errors import UserError
from epg.runs.files import remove_unfinished, write_durably
from epg.runs.lock import Lock
from epg.settings import parse_yaml
from epg.tasks import label
from epg.tasks.base import Task

SHIPPED = Path(str(resources.files("epg.evaluation") / "tuned.yaml"))
TUNED = (
    "steps_per_update", "learning_rate", "minibatch", "passes", "discount", "gae_lambda", "clip",
    "entropy", "meta_rate", "schedule",
)  # fmt: skip
"""The settings that are searched; an entry of version 0.1 and before has the first four."""
ALWAYS = {"schedule": "constant"}
"""What an entry that says nothing of it was tuned with, whatever a loss beside it has."""
ABOUT = ("updates", "steps_per_update", "hidden", "activation")
"""The settings that an entry says it is about, besides the method: the product of the first two is
its budget, and agents."""
ENOUGH = 16
"""Lifetimes of a setting: chance decides between neighbours of the grid where they are fewer."""


def cache() -> Path:
    """The folder for what can be found out again: EPG_CACHE, or epg in the user's cache.

    Raises `UserError` for a user without a home.
    """
    if told := os.environ.get("EPG_CACHE"):
        return Path(told)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "epg"
    except RuntimeError:
        raise UserError("EPG_CACHE: not set, nor has this user a home; name a folder") from None


def kept() -> Path:
    """The user's own file."""
    return cache() / "tuned.yaml"


def keep(task: str, entry: dict[str, Any], path: Path) -> None:
    """Add what was found out to a file, in place of what it said of the same before."""
    try:
        with Lock(path.with_name(f"{path.name}.lock")):  # two tunings may end together
            remove_unfinished(path.parent, escape(path.name))
            known = _read(path)
            known[task] = [e for e in known.get(task, []) if _about(e) != _about(entry)] + [entry]
            write_durably(path, yaml.safe_dump(known, sort_keys=False).encode())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; found for {task}: {entry}") from None
    except UserError as error:
        raise UserError(f"{error}; found for {task}: {entry}") from None


class Winner(NamedTuple):
    """Settings of a method for a task and budget."""

    setup: Setup
    exact: bool
    """whether they were tuned for just that"""
    source: str
    """how, for people"""


def tuned(method: str, task: str, setup: Setup) -> Winner:
    """A method's settings for a task and budget; task: its label.

    Falls back to those of the nearest budget, then to those of the task without its parameters,
    then to the setup's own.
    """
    wanted = _about(about(method, setup))
    for name, entry in _nearest(method, task, setup):
        if setup.lifetime.steps % entry["steps_per_update"] == 0:
            setting = ALWAYS | {key: entry[key] for key in TUNED if key in entry}
            found = with_setting(setup, setting)
            exact = name == task and _about(entry) == wanted
            where = "tuned" if name == task else f"tuned on {name}"
            return Winner(found, exact, f"{where}: {effort(entry)}")
    return Winner(setup, False, "")


def knows_finalists(method: str, tasks: Sequence[Task], setup: Setup) -> bool:
    """Whether the best settings of another budget are known on all tasks."""
    wanted = _about(about(method, setup))
    return all(
        any(e.get("finalists") and _about(e) != wanted for _, e in _nearest(method, t.name, setup))
        for t in tasks
    )


def finalists_of(method: str, task: str, setup: Setup) -> list[dict[str, Any]]:
    """The best settings of the nearest budget for which they are known.

    Raises `UserError` if there are none, or if this very budget was searched by more settings.
    """
    wanted = _about(about(method, setup))
    for name, entry in _nearest(method, task, setup):
        if not entry.get("finalists"):
            continue
        if _about(entry) != wanted:
            return [ALWAYS | finalist for finalist in entry["finalists"]]
        if name == task and entry["settings"] > len(entry["finalists"]):
            raise UserError(
                f"{task}: for this budget {method} has been tuned among {entry['settings']} "
                "settings; --again is for budgets that were not"
            )
    raise UserError(
        f"{task}: of no other budget are the best settings of {method} known; tune one without "
        "--again first"
    )


def _nearest(method: str, task: str, setup: Setup) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is known of a method, that of the task and the nearest budget first; and of what."""
    wanted = _about(about(method, setup))

    def distance(entry: dict[str, Any]) -> tuple[bool, float]:
        steps = entry["updates"] * entry["steps_per_update"]
        return _about(entry) != wanted, abs(float(np.log(steps / setup.lifetime.steps)))

    for name in dict.fromkeys((task, task.partition("(")[0])):
        mine = [entry for entry in _known(name) if entry["method"] == method]
        yield from ((name, entry) for entry in sorted(mine, key=distance))


def with_setting(setup: Setup, setting: dict[str, Any]) -> Setup:
    """The setup with some settings and as many environment steps. Raises `UserError`."""
    each = setting.get("steps_per_update", setup.lifetime.steps_per_update)
    fitting = {
        "updates": setup.lifetime.steps // each,
        "buffer": max(setup.learner.buffer, each),
        "minibatch": math.gcd(setup.learner.minibatch, each),
    }
    return setup.change(**fitting | setting)


def effort(entry: dict[str, Any]) -> str:
    """With how much a winner was found, for people; that it was little, if so."""
    lives, steps = entry.get("lifetimes"), entry.get("grid_steps")
    if not (isinstance(lives, int) and isinstance(steps, int) and lives > 0):
        return "it is not known with how many lifetimes"
    few = f" (few: {ENOUGH} or more tell settings apart)" if lives < ENOUGH else ""
    each = entry["updates"] * entry["steps_per_update"]
    settings = entry.get("settings", steps // (lives * each))
    fresh = entry.get("fresh", lives)
    last = f", the best five {fresh} more" if fresh != lives else ""
    return f"best of {settings} settings, {lives} lifetimes each{last}{few}"


def with_scales(config: Config) -> Config:
    """The same run; in a mixture every task says which returns are its fitness 0 and 1.

    Raises `UserError` for a task that does not say so and of which it is not known.
    """
    if not isinstance(config.task, list):
        return config
    parts = [_scaled(part, config.setup) for part in config.task]
    return config.model_copy(update={"task": parts})


def _scaled(part: str | dict[str, Any], setup: Setup) -> dict[str, Any]:
    whole = {"name": part} if isinstance(part, str) else part
    life = setup.lifetime
    if "scale" in whole:
        return whole
    for entry in _known(label(part)):
        if _about(entry) == _about(about("ppo", setup)):
            if entry["final_return"] <= entry["random_return"]:
                raise UserError(
                    f"task {label(part)}: in {life.updates} updates every {life.steps_per_update} "
                    f"steps tuned PPO comes to {entry['final_return']}, a random policy to "
                    f"{entry['random_return']}: raise lifetime.updates, or give it a `scale`"
                )
            return whole | {"scale": [entry["random_return"], entry["final_return"]]}
    raise UserError(
        f"task {label(part)}: in a mixture it needs `scale: [return of a random policy, of tuned "
        f"PPO]`, which is not known for {life.updates} updates every {life.steps_per_update} "
        "steps; `epg tune CONFIG` measures it"
    )


def about(method: str, setup: Setup) -> dict[str, Any]:
    """What an entry speaks of, as it says so."""
    values = {name: setup.get(name) for name in ABOUT}
    plain = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
    return {"method": method} | plain


def _about(entry: dict[str, Any]) -> dict[str, Any]:
    """What tells entries apart: method, budget, agents."""
    steps = entry["updates"] * entry["steps_per_update"]
    return {"method": entry["method"], "steps": steps} | {name: entry[name] for name in ABOUT[2:]}


def _known(task: str) -> Iterator[dict[str, Any]]:
    """The user's own first."""
    for path in (kept(), SHIPPED):
        yield from _read(path).get(task, [])


def _check_setting(setting: Mapping[str, Any]) -> None:
    """Raise an error for values that none of them can have."""
    for name in TUNED:
        if name not in setting and name not in ("steps_per_update", "learning_rate"):
            continue  # of a method without it, or of an earlier version
        value = setting[name]
        if name == "schedule":
            RateSchedule.model_validate(value)
            continue
        kind = int if name in ("steps_per_update", "minibatch", "passes") else float
        if not isinstance(value, int | kind) or isinstance(value, bool) or not 0 < value < 1e9:
            raise TypeError(f"{name}: {value!r}")


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        known = parse_yaml(path.read_text(encoding="utf-8")) or {}
        for entries in known.values():
            for entry in entries:
                _about(entry), entry["final_return"]
                for setting in (entry, *entry.get("finalists", ())):
                    _check_setting(setting)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); EPG_CACHE can name another folder"
        ) from None
    except (UnicodeDecodeError, UserError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    except (AttributeError, KeyError, TypeError, ValidationError) as error:
        raise UserError(f"{path}: no file of `epg tune`, or a damaged one ({error!r})") from None
    return dict(known)
