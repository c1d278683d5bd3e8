"""What is known of tuned PPO, by task and budget: its settings, its return, a random policy's.

`epg tune` finds them out, and they are kept in `tuned_ppo.yaml`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from epg.config import Config, Lifetime, parse_yaml
from epg.errors import UserError
from epg.files import write_durably
from epg.tasks import label

TUNED = Path(str(resources.files("epg") / "tuned_ppo.yaml"))


def keep(task: str, entry: dict[str, Any]) -> None:
    """Add what was found out of a task and budget, in place of what was known before."""
    known = _read()
    others = [e for e in known.get(task, []) if _budget(e) != _budget(entry)]
    known[task] = [*others, entry]
    try:
        write_durably(TUNED, yaml.safe_dump(known, sort_keys=False).encode())
    except OSError as error:
        raise UserError(f"{TUNED}: {error.strerror}; found for {task}: {entry}") from None


def tuned_ppo(task: str, life: Lifetime) -> tuple[Lifetime, bool]:
    """PPO's settings for a task and budget, and whether they were tuned for just that.

    Falls back to those of the nearest budget, then to the lifetime's own.
    """
    entries = _read().get(task, [])
    if not entries:
        return life, False

    def distance(entry: dict[str, Any]) -> float:
        return abs(float(np.log(entry["updates"] * entry["steps_per_update"] / life.steps)))

    nearest = min(entries, key=distance)
    setting = {name: nearest[name] for name in ("learning_rate", "minibatch", "passes")}
    if life.steps_per_update % setting["minibatch"]:
        return life, False
    return life.but(**setting), _budget(nearest) == (life.updates, life.steps_per_update)


def with_scales(config: Config) -> Config:
    """The same run; in a mixture every task says which returns are its fitness 0 and 1.

    Raises `UserError` for a task that does not say so and of which it is not known.
    """
    if not isinstance(config.task, list):
        return config
    parts = [_scaled(part, config.lifetime) for part in config.task]
    return config.model_copy(update={"task": parts})


def _scaled(part: str | dict[str, Any], life: Lifetime) -> dict[str, Any]:
    whole = {"name": part} if isinstance(part, str) else part
    if "scale" in whole:
        return whole
    for entry in _read().get(label(part), []):
        if _budget(entry) == (life.updates, life.steps_per_update):
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


def _budget(entry: dict[str, Any]) -> tuple[int, int]:
    return entry["updates"], entry["steps_per_update"]


def _read() -> dict[str, list[dict[str, Any]]]:
    return (parse_yaml(TUNED.read_text()) or {}) if TUNED.exists() else {}
