"""Old layouts brought up to the present one: of configurations, overrides and evaluations.

Until version 0.1 the settings of the evolution, of α and of the release's defects stood at the top,
those of agents and of their learning in `lifetime`. YAML files, run directories, saved files and
command lines of that time all come through here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from epg.errors import UserError
from epg.process.launcher import LAUNCH, launched_rank

TOP = {"alpha": "method.alpha", "reference": "method.match_release"}
AGENT = ("hidden", "activation", "memory", "train_memory")
LEARNER = ("learning_rate", "buffer", "minibatch", "passes", "discount", "gae_lambda")
OPTIMIZERS = {"adam": ("beta1", "beta2"), "clipup": ("momentum", "max_speed")}
"""The settings of each, which stood beside each other."""


def upgrade(data: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """A configuration's data in the present layout, whichever it has; the given data stays.

    where: named in errors. Raises `UserError` where a setting is given in both layouts.
    """
    new = {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
    evolution = _group(new, "evolution", where)
    optimizer = evolution.get("optimizer", "adam")
    settings = {
        key: evolution.pop(key) for keys in OPTIMIZERS.values() for key in keys if key in evolution
    }
    if settings and isinstance(optimizer, str):
        mine = {key: settings[key] for key in OPTIMIZERS.get(optimizer, ()) if key in settings}
        evolution["optimizer"] = {"name": optimizer, **mine}
    elif settings:  # beside an optimizer that has its own: refused as unknown keys
        evolution |= settings
    moved = {f"evolution.{key}": value for key, value in evolution.items()}
    moved |= {key: new.pop(key) for key in TOP if key in new}
    lifetime = new.get("lifetime")
    if isinstance(lifetime, dict):
        old = [key for key in lifetime if key in AGENT + LEARNER]
        moved |= {f"lifetime.{key}": lifetime.pop(key) for key in old}
    for key, value in moved.items():
        group, _, name = _present(key).rpartition(".")
        place = new if not group else _place(new, group, where)
        if name in place:
            raise UserError(f"{where}: {key} is now called {_present(key)}, and both are given")
        place[name] = value
    return new


def is_old(data: Mapping[str, Any]) -> bool:
    """Whether a configuration's data is of an old layout."""
    return upgrade(data) != dict(data)


def upgrade_override(key: str) -> str:
    """The present name of a key; says so, in one line, if it has another one by now."""
    present = _present(key)
    spoken = LAUNCH in os.environ  # by the process that launched this one
    if present != key and launched_rank() == 0 and not spoken:
        print(f"epg: {key} is now called {present}", file=sys.stderr, flush=True)
    return present


def upgrade_protocol(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data of an evaluation's protocol in the present layout."""
    if not isinstance(data, Mapping):
        raise UserError(f"found {type(data).__name__}, expected keys and values")
    new = dict(data)
    if "baselines" in new:
        new["methods"] = new.pop("baselines")
    return new


def _present(key: str) -> str:
    """The name that a setting has now."""
    first, _, rest = key.partition(".")
    if first in TOP:
        return ".".join([TOP[first], *rest.split(".")]) if rest else TOP[first]
    name = rest.partition(".")[0]
    if first == "lifetime" and name in AGENT:
        return f"agent.{rest}"
    if first == "lifetime" and name in LEARNER:
        return f"learner.{rest}"
    if first == "evolution" and rest:
        if name == "generations":
            return "steps"
        if any(name in keys for keys in OPTIMIZERS.values()):
            return f"method.optimizer.{rest}"
        return f"method.{rest}"
    return key


def _group(data: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    """A group that has gone, taken out of the data."""
    group = data.pop(name, {})
    if not isinstance(group, dict):
        raise UserError(f"{where}: {name}: found {group!r}, expected keys and values")
    return group


def _place(data: dict[str, Any], group: str, where: str) -> dict[str, Any]:
    """The group that a setting moves to, made if there is none."""
    place = data.setdefault(group, {"name": "epg"} if group == "method" else {})
    if isinstance(place, str):
        place = data[group] = {"name": place}
    if not isinstance(place, dict):
        raise UserError(f"{where}: {group}: found {place!r}, expected keys and values")
    return place
