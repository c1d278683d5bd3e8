"""Policies that never learn, evolved once for a family of MDPs and kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from epg import tasks
from epg.config import Config
from epg.evaluation.policies import FIXED, policy_file
from epg.farm.mpi import MASTER
from epg.methods.base import make_method
from epg.process.launcher import launched_rank
from epg.runs.files import read_bytes, read_object, write_durably
from epg.training.loop import cost_of_step, train

LAYERS: dict[str, tuple[int, ...]] = {"linear": (), "mlp": (32, 32)}
"""Of the policies that evolve; the better one is kept."""
PAIRS, SIGMA, LEARNING_RATE = 32, 0.1, 0.1
VALIDATIONS = 10
"""In an evolution, about; each of 64 lifetimes, none of which trains."""
FEWEST = 10
"""Generations of an evolution."""


def evolve_policies(config: Config, steps: int | None = None) -> list[Path]:
    """Evolve a linear and a deeper policy for each task of a configuration; keep the better one.

    steps: environment steps for both together at most, validations left out; None: as many as the
    configuration's own training takes. The files; on workers none. The same call again goes on
    where it stopped. Raises `UserError`.
    """
    if steps is None:
        steps = config.steps * cost_of_step(make_method(config, tasks.make(config.task)))
    return [path for spec in tasks.parts_of(config.task) for path in _evolve(config, spec, steps)]


def _evolve(config: Config, spec: str | dict[str, Any], steps: int) -> Iterator[Path]:
    task = tasks.make(spec)
    place = policy_file(task.name)
    each = 2 * PAIRS * (task.horizon + 1)
    generations = max(FEWEST, steps // len(LAYERS) // each)
    found: dict[float, tuple[str, Path]] = {}
    for kind, hidden in LAYERS.items():
        evolution = Config.model_validate(
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
            }
        )  # fmt: skip
        run = place.with_suffix("") / f"{kind}-{evolution.hash()}-{generations}"
        best = train(evolution, run)
        if launched_rank() == MASTER:
            found[read_object(run / "DONE")["best_validation"]] = kind, best
    if launched_rank() == MASTER:
        value, (kind, best) = max(found.items())
        write_durably(place, read_bytes(best))
        print(
            f"{task.name}: {FIXED}, {kind}: {value:.5g} in validation, the best of "
            f"{' and '.join(LAYERS)}, {generations} generations or {generations * each:,} "
            f"environment steps each at most; written to {place}",
            flush=True,
        )
        yield place
