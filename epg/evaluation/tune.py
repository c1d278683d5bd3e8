"""`epg tune`: hand-made methods tuned on training MDPs, coarsely, finely, and on fresh lives."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from epg import tasks
from epg.config import Config, Setup
from epg.errors import UserError
from epg.evaluation.entry import Entries, Entry, EntryRunner, check_entries, entry_of
from epg.evaluation.search import COARSE, VALUES, Setting, Space
from epg.evaluation.tuned import (
    about,
    cache,
    effort,
    finalists_of,
    keep,
    kept,
    knows_finalists,
    with_setting,
)
from epg.farm import Farm
from epg.farm.run import run_on_ranks
from epg.farm.worker import failing_together
from epg.methods.base import LossAlgorithm, make_algorithm, settings_of
from epg.process.log import open_log
from epg.registry import METHODS, find
from epg.runs.files import foreseen
from epg.runs.journal import Journal
from epg.runs.lock import Lock
from epg.seeds import Purpose
from epg.tasks.base import Task

FLOOR = "random"
"""The method that never learns, whose return is kept with PPO's."""
BEST, FINALISTS, FRESH = 3, 5, 2
"""Settings whose neighbours are tried too; those that live anew, and for how many times the
lifetimes of each round."""


@failing_together()
def tune(
    config: Config,
    lifetimes: int,
    out: Path | None = None,
    methods: Sequence[str] | None = None,
    again: bool = False,
) -> list[dict[str, Any]]:
    """Search the settings of hand-made methods on training MDPs; keep the best of each.

    A coarse grid, then what is next to its best three, for `lifetimes` lives each, the same for
    all; then the five best live twice as many fresh lives, which choose. The budget is the
    configuration's environment steps, U · M, however a setting divides them. Of a mixture every
    task is tuned by itself. methods: hand-made losses, `tunable`, if None; again:
    only the five best of the nearest budget that was tuned, for fresh lives of this one; out: the
    file that the winners join, the user's own if None. The same call again goes on where it
    stopped. The entries; none on workers.
    """
    parts = [tasks.make(spec) for spec in tasks.parts_of(config.task)]
    if methods is None:
        methods = [n for n in tunable() if not again or knows_finalists(n, parts, config.setup)]
    if not methods:
        raise UserError("--again: of no method are the best settings of another budget known")
    for name in methods:
        if make_algorithm(name).tuned_as != name:
            raise UserError(f"method {name}: has no settings of its own that are tuned")
    names = (*((FLOOR,) if "ppo" in methods else ()), *methods)
    kind = Again if again else Search
    search: Search | Again = kind(parts, names, config.setup, lifetimes)
    check_entries([search.entries[number] for number in search.first()], lifetimes)
    winners: list[dict[str, Any]] = []
    runner = EntryRunner(config, search.entries, config.seed, Purpose.TUNING)
    what = hashlib.sha256(f"{config.hash()} {lifetimes} {search.about()}".encode()).hexdigest()[:16]
    folder = cache() / f"tuning-{what}-{'-'.join(methods)}"
    run_on_ranks(
        runner, folder / "log",
        lambda farm: winners.extend(_master(farm, config, runner, search, folder, out)),
    )  # fmt: skip
    return winners


def tunable() -> Iterator[str]:
    """Names of what is tuned if nothing is said: hand-made losses with settings of their own."""
    for name in METHODS:
        found = find("method", name)
        if issubclass(found, LossAlgorithm) and found.tuned_as == name:
            yield name


class Lives:
    """The lifetimes of settings, lived as they are asked for; all of them are counted."""

    def __init__(self, farm: Farm, runner: EntryRunner, journal: Journal, lock: Lock) -> None:
        self._farm, self._runner, self._journal, self._lock = farm, runner, journal, lock
        self.steps: dict[int, int] = {}
        """environment steps by setting, final episodes included"""

    def returns(self, numbers: Sequence[int], lifetimes: int, skip: int, step: int) -> list[float]:
        """Mean final return of each setting over lifetimes skip, …, lifetimes − 1 of a step."""
        entries = self._runner.entries
        check_entries([entries[number] for number in numbers], lifetimes)
        results = self._runner.collect(
            self._farm, lifetimes, self._journal, self._lock, numbers, step
        )
        for number, result in zip(numbers, results, strict=True):
            self.steps[number] = result.steps
        finals = (np.nan_to_num(r.final_return[skip:], nan=-np.inf) for r in results)
        return [round(float(final.mean()), 4) for final in finals]


Pair = tuple[int, str]
"""A task's number, and a method."""
Returns = dict[int, float]
"""By setting, the best first."""


class Search:
    """A coarse grid, what is next to its best, and the five best of all on fresh lives."""

    def __init__(
        self, tasks: Sequence[Task], methods: Sequence[str], setup: Setup, lifetimes: int
    ) -> None:
        self.entries = Space(tasks, methods, setup)
        self.lifetimes = lifetimes
        self.fresh = FRESH * lifetimes
        self.pairs: list[Pair] = [(i, method) for i in range(len(tasks)) for method in methods]
        self._coarse = {pair: list(self.entries.coarse(*pair)) for pair in self.pairs}

    def about(self) -> str:
        """What its settings' numbers mean."""
        searched = [make_algorithm(method).searched for method in self.entries.methods]
        return repr((VALUES, COARSE, self.entries.methods, searched))

    def first(self) -> list[int]:
        """The settings that are tried whatever comes of them."""
        return [number for numbers in self._coarse.values() for number in numbers]

    def setting(self, number: int) -> Setting:
        return self.entries.setting(number)

    def run(self, lives: Lives) -> dict[Pair, Returns]:
        """The finalists' returns."""
        # every setting of the grid, then those next to the best of them
        found = tried(self.entries, lives, self._coarse, self.lifetimes)
        near = {
            pair: [
                number
                for best in list(found[pair])[:BEST]
                for number in self.entries.fine(best)
                if number not in found[pair]
            ]
            for pair in self.pairs
        }
        for pair, returns in tried(self.entries, lives, near, self.lifetimes).items():
            found[pair] |= returns
        # the best of all, chosen on lives that brought none of them here
        finalists = {pair: list(_sorted(found[pair]))[:FINALISTS] for pair in self.pairs}
        total = self.lifetimes + self.fresh
        return tried(self.entries, lives, finalists, total, skip=self.lifetimes)


class Again:
    """The best settings of the nearest budget that was tuned, on fresh lives of this one."""

    def __init__(
        self, tasks: Sequence[Task], methods: Sequence[str], setup: Setup, lifetimes: int
    ) -> None:
        """Raises `UserError` where none is known or fits, and where a whole search has been."""
        self.lifetimes = self.fresh = lifetimes
        self.entries: list[Entry] = []
        self._settings: list[Setting] = []
        self._numbers: dict[Pair, list[int]] = {}
        for i, task in enumerate(tasks):
            for method in methods:
                algorithm, first = make_algorithm(method), len(self.entries)
                known = finalists_of(method, task.name, setup) if algorithm.searched else [{}]
                for setting in known:
                    if setup.lifetime.steps % setting.get("steps_per_update", 1) == 0:
                        self._settings.append(setting)
                        tried_as = with_setting(setup, setting)
                        self.entries.append(entry_of(method, algorithm, task, tried_as))
                if len(self.entries) == first:
                    raise UserError(
                        f"{task.name}: none of the best settings of {method} divides a life of "
                        f"{setup.lifetime.steps} steps into updates"
                    )
                self._numbers[i, method] = list(range(first, len(self.entries)))

    def about(self) -> str:
        return repr(("again", self._numbers, self._settings))

    def first(self) -> list[int]:
        return list(range(len(self.entries)))

    def setting(self, number: int) -> Setting:
        return self._settings[number]

    def run(self, lives: Lives) -> dict[Pair, Returns]:
        return tried(self.entries, lives, self._numbers, self.lifetimes, step=1)


def tried(
    entries: Entries,
    lives: Lives,
    numbers: Mapping[Pair, Sequence[int]],
    lifetimes: int,
    skip: int = 0,
    step: int = 0,
) -> dict[Pair, Returns]:
    """What settings come to, which is said as well; arguments as of `Lives.returns`."""
    flat = list(dict.fromkeys(number for each in numbers.values() for number in each))
    print(f"to try: {len(flat)} settings, {lifetimes - skip} lifetimes each", flush=True)
    found = lives.returns(flat, lifetimes, skip, step) if flat else []
    returns = dict(zip(flat, found, strict=True))
    for number, value in returns.items():
        entry = entries[number]
        said = f"every {entry.setup.lifetime.steps_per_update} steps, {entry.about}"
        print(f"{entry.task.name}: {entry.method}, {said}: {value:.5g}", flush=True)
    return {pair: _sorted({n: returns[n] for n in mine}) for pair, mine in numbers.items()}


def _sorted(returns: Returns) -> Returns:
    return dict(sorted(returns.items(), key=lambda item: -item[1]))


def _master(
    farm: Farm,
    config: Config,
    runner: EntryRunner,
    search: Search | Again,
    folder: Path,
    out: Path | None,
) -> list[dict[str, Any]]:
    """The master's part; what is lived is in a journal until the winners are kept."""
    try:
        with Lock(folder.with_name(f"{folder.name}.lock")) as lock:  # the folder goes in the end
            folder.mkdir(exist_ok=True)
            open_log(folder / "log", 0)
            lives = Lives(farm, runner, Journal(folder / "journal.jsonl", config.hash(), {}), lock)
            found = search.run(lives)
            winners = list(_keep_winners(search, found, lives, config, out or kept()))
            shutil.rmtree(folder, ignore_errors=True)
            return winners
    except OSError as error:
        if not error.filename:
            raise
        raise foreseen(error) from None


def _keep_winners(
    search: Search | Again,
    found: dict[Pair, Returns],
    lives: Lives,
    config: Config,
    out: Path,
) -> Iterator[dict[str, Any]]:
    """Those of each task and method, once they are in a file."""
    entries = search.entries
    for (task, method), finalists in found.items():
        if method == FLOOR:
            continue
        number = next(iter(finalists))
        best = entries[number]
        mine = [n for n in lives.steps if entries[n].task is best.task]
        settings = [n for n in mine if entries[n].method == method]
        floor = [n for n in mine if entries[n].method == FLOOR and method == "ppo"]
        winner = about(method, best.setup) | search.setting(number)
        winner |= {
            "final_return": finalists[number],
            "lifetimes": search.lifetimes,
            "fresh": search.fresh,
            "settings": len(settings),
            "seed": config.seed,
            "grid_steps": sum(lives.steps[n] for n in settings + floor),
        }
        if floor:
            [winner["random_return"]] = found[task, FLOOR].values()
        winner["finalists"] = [search.setting(n) for n in finalists]
        keep(best.task.name, winner, out)
        print(
            f"{best.task.name}: {method}, {effort(winner)}, {winner['grid_steps']:,} steps: every "
            f"{best.setup.lifetime.steps_per_update} steps, {settings_of(best.setup)}, final "
            f"return {winner['final_return']:.5g}; written to {out}",
            flush=True,
        )
        yield winner
