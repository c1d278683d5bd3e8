"""PPO tuned on training MDPs: a grid of learning rate, minibatch and passes; the winner is kept."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch

from epg import tasks
from epg.config import Config, Lifetime
from epg.errors import UserError
from epg.lifetime import ppo_of
from epg.losses.base import Loss
from epg.metatest.protocol import raise_agents
from epg.seeds import Purpose
from epg.tuned import TUNED, keep

LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
MINIBATCHES = (16, 32, 64)
PASSES = (1, 3, 10)


def tune(config: Config, lifetimes: int) -> list[dict[str, Any]]:
    """Try every setting of the grid on the same training MDPs; the best joins tuned_ppo.yaml.

    The budget is the configuration's: U updates every M steps. The grid is what divides M. Of a
    mixture every task is tuned by itself. The return of a policy that never learns is kept too.
    """
    torch.set_num_threads(config.threads)
    return [_tune_one(part, config, lifetimes) for part in tasks.parts_of(config.task)]


def _tune_one(spec: tasks.Spec, config: Config, lifetimes: int) -> dict[str, Any]:
    task, life = tasks.make(spec), config.lifetime

    def final_return(loss: Loss | None, setting: Lifetime) -> float:
        lived = raise_agents(task, lambda _: loss, setting, lifetimes, config.seed, Purpose.TUNING)
        return round(float(np.nan_to_num(lived.final_return, nan=-np.inf).mean()), 4)

    minibatches = [size for size in MINIBATCHES if life.steps_per_update % size == 0]
    if not minibatches:
        raise UserError(
            f"lifetime.steps_per_update: found {life.steps_per_update}, allowed: a multiple of "
            f"{MINIBATCHES[0]}, the smallest minibatch that is tried"
        )
    best: dict[str, Any] = {}
    steps = 0
    for rate, minibatch, passes in itertools.product(LEARNING_RATES, minibatches, PASSES):
        setting = {"learning_rate": rate, "minibatch": minibatch, "passes": passes}
        score = final_return(ppo_of(life), life.but(**setting))
        steps += lifetimes * life.steps
        print(f"{task.name}: {setting}: final return {score:.5g}", flush=True)
        if not best or score > best["final_return"]:
            best = {**setting, "final_return": score}
    entry = {
        "updates": life.updates,
        "steps_per_update": life.steps_per_update,
        **best,
        "random_return": final_return(None, life),
        "lifetimes": lifetimes,
        "seed": config.seed,
        "grid_steps": steps,
    }
    keep(task.name, entry)
    print(f"{task.name}: best of {steps:,} steps: {best}; written to {TUNED}", flush=True)
    return entry
