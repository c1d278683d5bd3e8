"""PPO tuned on training MDPs: a grid of learning rate, minibatch and passes; the winner is kept."""

from __future__ import annotations

import itertools
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from epg import tasks
from epg.config import Config, Lifetime, parse_yaml
from epg.errors import UserError
from epg.files import write_durably
from epg.lifetime import ppo_of
from epg.metatest.protocol import raise_agents
from epg.seeds import Purpose

LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
MINIBATCHES = (16, 32, 64)
PASSES = (1, 3, 10)
TUNED = Path(str(resources.files("epg") / "metatest" / "tuned_ppo.yaml"))


def tune(config: Config, lifetimes: int) -> dict[str, Any]:
    """Try every setting of the grid on the same training MDPs; the best joins tuned_ppo.yaml.

    The budget is the configuration's: U updates every M steps. The grid is what divides M.
    """
    torch.set_num_threads(config.threads)
    task, life = tasks.make(config.task), config.lifetime
    best: dict[str, Any] = {}
    steps = 0
    for rate, minibatch, passes in itertools.product(LEARNING_RATES, MINIBATCHES, PASSES):
        if life.steps_per_update % minibatch:
            continue
        setting = {"learning_rate": rate, "minibatch": minibatch, "passes": passes}
        lived = raise_agents(
            task, lambda _: ppo_of(life), life.but(**setting), lifetimes,
            config.seed, Purpose.TUNING,
        )  # fmt: skip
        score = float(np.nan_to_num(lived.final_return, nan=-np.inf).mean())
        steps += lifetimes * life.steps
        print(f"{setting}: final return {score:.5g}", flush=True)
        if not best or score > best["final_return"]:
            best = {**setting, "final_return": round(score, 4)}
    entry = {
        "updates": life.updates,
        "steps_per_update": life.steps_per_update,
        **best,
        "lifetimes": lifetimes,
        "seed": config.seed,
        "grid_steps": steps,
    }
    known = _read()
    budget = (life.updates, life.steps_per_update)
    others = [e for e in known.get(task.name, []) if _budget(e) != budget]
    known[task.name] = [*others, entry]
    try:
        write_durably(TUNED, yaml.safe_dump(known, sort_keys=False).encode())
    except OSError as error:
        raise UserError(f"{TUNED}: {error.strerror}; the winner is {best}") from None
    print(f"best of {steps:,} steps: {best}; written to {TUNED}", flush=True)
    return entry


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


def _budget(entry: dict[str, Any]) -> tuple[int, int]:
    return entry["updates"], entry["steps_per_update"]


def _read() -> dict[str, list[dict[str, Any]]]:
    return (parse_yaml(TUNED.read_text()) or {}) if TUNED.exists() else {}
