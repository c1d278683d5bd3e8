"""`epg tune`: baselines tuned on training MDPs by a grid; the winners are kept.

The grid of PPO is learning rate × minibatch × passes, of what divides M; that of REINFORCE is
learning rate.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from epg import tasks
from epg.config import Config, Lifetime
from epg.errors import RunError, UserError
from epg.farm import Farm
from epg.farm.journal import Journal
from epg.farm.roles import take_part
from epg.farm.worker import failing_together
from epg.lock import Lock
from epg.log import open_log
from epg.metatest.baselines import on_policy, settings_of, subject_of
from epg.metatest.subjects import Lives, Subject, SubjectRaiser, raise_all
from epg.seeds import Purpose
from epg.tuned import TUNED, about, cache, keep, kept

LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
MINIBATCHES = (16, 32, 64)
PASSES = (1, 3, 10, 20)


@failing_together()
def tune(config: Config, lifetimes: int, out: Path | None = None) -> list[dict[str, Any]]:
    """Try every setting of the grids on the same training MDPs; the best are written to `out`.

    The budget is the configuration's: U updates every M steps. Of a mixture every task is tuned by
    itself. The return of a policy that never learns is kept with PPO's. `out` is the user's own
    file if None. The same call again goes on where it stopped. The entries; none on workers.
    """
    if config.lifetime.steps_per_update % MINIBATCHES[0]:
        raise UserError(
            f"lifetime.steps_per_update: found {config.lifetime.steps_per_update}, allowed: a "
            f"multiple of {MINIBATCHES[0]}, the smallest minibatch that is tried"
        )
    parts = [tasks.make(spec) for spec in tasks.parts_of(config.task)]
    subjects = [
        subject_of(method, task, life, config.seed, Purpose.TUNING)
        for task in parts
        for method, life in grid(config.lifetime)
    ]
    lives: list[Lives] = []
    folder = cache() / f"tuning-{config.hash()}-{lifetimes}"
    take_part(
        SubjectRaiser(config, subjects),
        folder / "log",
        lambda farm: lives.extend(_lead(farm, config, subjects, lifetimes, folder)),
    )
    found = list(zip(subjects, lives, strict=True)) if lives else []
    entries = []
    for task in parts:
        mine = [(subject, life) for subject, life in found if subject.task == task.name]
        for entry in _winners(mine, config, lifetimes):
            keep(task.name, entry, out or kept())
            print(
                f"{task.name}: best {entry['method']} of {entry['grid_steps']:,} steps: "
                f"{ {name: entry[name] for name in TUNED} }, final return "
                f"{entry['final_return']:.5g}; written to {out or kept()}",
                flush=True,
            )
            entries.append(entry)
    if entries:
        shutil.rmtree(folder, ignore_errors=True)
    return entries


def grid(life: Lifetime) -> Iterator[tuple[str, Lifetime]]:
    """What is tried: methods with settings."""
    yield "random", life
    for rate in LEARNING_RATES:
        yield "reinforce", on_policy(life).but(learning_rate=rate)
    minibatches = [size for size in MINIBATCHES if life.steps_per_update % size == 0]
    for rate, minibatch, passes in itertools.product(LEARNING_RATES, minibatches, PASSES):
        yield "ppo", life.but(learning_rate=rate, minibatch=minibatch, passes=passes)


def _lead(
    farm: Farm, config: Config, subjects: Sequence[Subject], lifetimes: int, folder: Path
) -> list[Lives]:
    """The master's part; what is lived is in a journal until all is."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with Lock(folder / "lock") as lock:
            open_log(folder / "log", 0)
            journal = Journal(folder / "journal.jsonl", config.hash(), {})
            return raise_all(farm, subjects, lifetimes, Purpose.TUNING, journal, lock)
    except OSError as error:
        if not error.filename:
            raise
        raise RunError(f"{error.filename}: {error.strerror}") from None


def _winners(
    lived: Sequence[tuple[Subject, Lives]], config: Config, lifetimes: int
) -> Iterator[dict[str, Any]]:
    scores = [
        (subject, round(float(np.nan_to_num(life.final_return, nan=-np.inf).mean()), 4))
        for subject, life in lived
    ]
    for method in ("ppo", "reinforce"):
        mine = [(subject, score) for subject, score in scores if subject.method == method]
        if not mine:
            continue
        for subject, score in mine:
            print(f"{subject.task}: {method}, {settings_of(subject.life)}: {score:.5g}", flush=True)
        best, score = max(mine, key=lambda pair: pair[1])
        entry = (
            about(method, config.lifetime)
            | {name: getattr(best.life, name) for name in TUNED}
            | {
                "final_return": score,
                "lifetimes": lifetimes,
                "seed": config.seed,
                "grid_steps": len(mine) * lifetimes * config.lifetime.steps,
            }
        )
        if method == "ppo":
            [random] = [value for subject, value in scores if subject.method == "random"]
            entry["random_return"] = random
        yield entry
