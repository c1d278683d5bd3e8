"""Policies that never learn, evolved once for a family of MDPs and kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from epg import tasks
from epg.config import Config, validate
from epg.evaluation.policies import FIXED, policy_file
from epg.farm.mpi import MASTER
from epg.methods.base import make_method
from epg.process.launcher import launched_rank
from epg.runs.files import read_bytes, read_object, write_durably
from epg.training.loop import train

LAYERS: dict[str, tuple[int, ...]] = {"linear": (), "mlp": (32, 32)}
"""Of the policies that evolve; the better one is kept."""
PAIRS, SIGMA, LEARNING_RATE = 32, 0.1, 0.1
VALIDATIONS = 10
"""In an evolution, about; each of 64 lifetimes, none of which trains."""
FEWEST = 10
"""Generations of an evolution."""


def evolve_policies(config: Config, steps: int | None = None) -> list[Path]:
    """Evolve a linear and a deeper policy for each task of a configuration; keep the better one.

    steps: environment steps for all of them together at most, validations left out, but for
    FEWEST generations each; None: as many as the configuration's own training takes. Of all that
    were ever evolved for a task here the best stays. The files; on workers none. The same call
    again goes on where it stopped. Raises `UserError`.
    """
    if steps is None:
        steps = config.steps * make_method(config, tasks.make(config.task)).step_cost()
    parts = tasks.parts_of(config.task)
    return [path for spec in parts for path in _evolve(config, spec, steps // len(parts))]


def _evolve(config: Config, spec: str | dict[str, Any], steps: int) -> Iterator[Path]:
    task = tasks.make(spec)
    place = policy_file(task.name)
    each = 2 * PAIRS * (task.horizon + 1)
    generations = max(FEWEST, steps // len(LAYERS) // each)
    for kind, hidden in LAYERS.items():
        evolution = validate(
            {
                "seed": config.seed,
                "task": spec,
                "steps": generations,
                "method": {
                    "name": FIXED, "hidden": hidden, "pairs": PAIRS, "sigma": SIGMA,
                    "learning_rate": LEARNING_RATE,
                },
                "agent": config.agent,
                "lifetime": {"updates": 1, "steps_per_update": 1, "final_episodes": 1},
                "learner": {"buffer": 1, "minibatch": 1},
                "validation": {"every": max(1, generations // VALIDATIONS), "lifetimes": 64},
                "farm": config.farm,
            },
            FIXED,
        )  # fmt: skip
        train(evolution, place.with_suffix("") / f"{kind}-{evolution.hash()}-{generations}")
    if launched_rank() == MASTER:
        runs = [file.parent for file in sorted(place.with_suffix("").glob("*/DONE"))]
        best = max(runs, key=_validation)  # the first of equals, which are linear
        write_durably(place, read_bytes(best / "best.safetensors"))
        print(
            f"{task.name}: {FIXED}, {best.name.partition('-')[0]}: {_validation(best):.5g} in "
            f"validation, the best of {' and '.join(LAYERS)}, {generations} generations or at most "
            f"{generations * each:,} environment steps each; written to {place}",
            flush=True,
        )
        yield place


def _validation(run: Path) -> float:
    """Of the best policy of a run; −∞ if none was finite."""
    value = read_object(run / "DONE").get("best_validation")
    return float(value) if isinstance(value, int | float) else -math.inf
