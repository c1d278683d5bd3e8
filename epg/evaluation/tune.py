"""`epg tune`: hand-made methods tuned on training MDPs by a grid; the winners are kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from epg import tasks
from epg.config import Config, Setup
from epg.errors import UserError
from epg.evaluation.entry import Entry, EntryResult, EntryRunner, check_entries, entry_of
from epg.evaluation.tuned import TUNED, about, cache, effort, keep, kept
from epg.farm import Farm
from epg.farm.run import run_on_ranks
from epg.farm.worker import failing_together
from epg.methods.base import MINIBATCHES, make_algorithm, settings_of
from epg.process.log import open_log
from epg.registry import METHODS, find
from epg.runs.files import foreseen
from epg.runs.journal import Journal
from epg.runs.lock import Lock
from epg.seeds import Purpose

FLOOR = "random"
"""The method that never learns, whose return is kept with PPO's."""


@failing_together()
def tune(
    config: Config,
    lifetimes: int,
    out: Path | None = None,
    methods: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Try every setting of the methods' grids on the same training MDPs; keep the best.

    methods: all that have settings of their own to tune, if None. The budget is the
    configuration's: U updates every M steps. Of a mixture every task is tuned by itself. `out` is
    the file that the winners join, the user's own if None. The same call again goes on where it
    stopped. The entries; none on workers.
    """
    if config.lifetime.steps_per_update % MINIBATCHES[0]:
        raise UserError(
            f"lifetime.steps_per_update: found {config.lifetime.steps_per_update}, allowed: a "
            f"multiple of {MINIBATCHES[0]}, the smallest minibatch that is tried"
        )
    methods = tuple(tunable()) if methods is None else methods
    for name in methods:
        if make_algorithm(name).tuned_as != name:
            raise UserError(f"method {name}: has no settings of its own that are tuned")
    parts = [tasks.make(spec) for spec in tasks.parts_of(config.task)]
    entries = [
        entry_of(method, make_algorithm(method), task, setup)
        for task in parts
        for method, setup in grid(config.setup, methods)
    ]
    check_entries(entries, lifetimes)
    winners: list[dict[str, Any]] = []
    runner = EntryRunner(config, entries, config.seed, Purpose.TUNING)
    folder = cache() / f"tuning-{config.hash()}-{lifetimes}-{'-'.join(methods)}"
    run_on_ranks(
        runner, folder / "log",
        lambda farm: winners.extend(_master(farm, config, runner, lifetimes, folder, out)),
    )  # fmt: skip
    return winners


def tunable() -> Iterator[str]:
    """The names of all algorithms that have settings of their own to tune."""
    for name in METHODS:
        if getattr(find("method", name), "tuned_as", None) == name:
            yield name


def grid(setup: Setup, methods: Sequence[str]) -> Iterator[tuple[str, Setup]]:
    """What is tried: methods with settings."""
    if "ppo" in methods:
        yield FLOOR, setup
    for name in methods:
        for tried in make_algorithm(name).grid(setup):
            yield name, tried


def _master(
    farm: Farm, config: Config, runner: EntryRunner, lifetimes: int, folder: Path, out: Path | None
) -> list[dict[str, Any]]:
    """The master's part; what is lived is in a journal until the winners are kept."""
    try:
        with Lock(folder.with_name(f"{folder.name}.lock")) as lock:  # the folder goes in the end
            folder.mkdir(exist_ok=True)
            open_log(folder / "log", 0)
            journal = Journal(folder / "journal.jsonl", config.hash(), {})
            count = len(runner.entries)
            print(f"to try: {count} settings, {lifetimes} lifetimes each", flush=True)
            lived = list(
                zip(runner.entries, runner.collect(farm, lifetimes, journal, lock), strict=True)
            )
            winners = list(_keep_winners(lived, config, lifetimes, out or kept()))
            shutil.rmtree(folder, ignore_errors=True)
            return winners
    except OSError as error:
        if not error.filename:
            raise
        raise foreseen(error) from None


def _keep_winners(
    lived: Sequence[tuple[Entry, EntryResult]], config: Config, lifetimes: int, out: Path
) -> Iterator[dict[str, Any]]:
    """Those of each task, once they are in a file."""
    for task in {id(entry.task): entry.task for entry, _ in lived}.values():
        mine = [(entry, result) for entry, result in lived if entry.task is task]
        for winner in _winners(mine, config, lifetimes):
            keep(task.name, winner, out)
            print(
                f"{task.name}: {winner['method']}, {effort(winner)}, {winner['grid_steps']:,} "
                f"steps: { {name: winner[name] for name in TUNED} }, final return "
                f"{winner['final_return']:.5g}; written to {out}",
                flush=True,
            )
            yield winner


def _winners(
    lived: Sequence[tuple[Entry, EntryResult]], config: Config, lifetimes: int
) -> Iterator[dict[str, Any]]:
    """The best setting of each method, as it is kept."""
    scores = [
        (entry, round(float(np.nan_to_num(result.final_return, nan=-np.inf).mean()), 4))
        for entry, result in lived
    ]
    for method in dict.fromkeys(entry.method for entry, _ in scores if entry.method != FLOOR):
        mine = [(entry, score) for entry, score in scores if entry.method == method]
        for entry, score in mine:
            settings = settings_of(entry.setup)
            print(f"{entry.task.name}: {method}, {settings}: {score:.5g}", flush=True)
        best, score = max(mine, key=lambda pair: pair[1])
        winner = (
            about(method, config.setup)
            | {name: best.setup.get(name) for name in TUNED}
            | {
                "final_return": score,
                "lifetimes": lifetimes,
                "seed": config.seed,
                "grid_steps": len(mine) * lifetimes * config.lifetime.steps,
            }
        )
        if method == "ppo":
            [random] = [value for entry, value in scores if entry.method == FLOOR]
            winner["random_return"] = random
        yield winner
