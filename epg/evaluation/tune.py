"""`epg tune`: hand-made methods tuned on training MDPs, coarsely, finely, and on fresh lives."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from epg import tasks
from epg.config import Config
from epg.errors import UserError
from epg.evaluation.entry import EntryRunner, check_entries
from epg.evaluation.search import Setting, Space
from epg.evaluation.tuned import about, cache, effort, finalists_of, keep, kept
from epg.farm import Farm
from epg.farm.run import run_on_ranks
from epg.farm.worker import failing_together
from epg.methods.base import make_algorithm, settings_of
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
    task is tuned by itself. methods: all that have settings of their own to tune, if None; again:
    only the five best of the nearest budget that was tuned, for fresh lives of this one; out: the
    file that the winners join, the user's own if None. The same call again goes on where it
    stopped. The entries; none on workers.
    """
    methods = tuple(tunable()) if methods is None else methods
    for name in methods:
        if make_algorithm(name).tuned_as != name:
            raise UserError(f"method {name}: has no settings of its own that are tuned")
    parts = [tasks.make(spec) for spec in tasks.parts_of(config.task)]
    floor = (FLOOR,) if "ppo" in methods else ()
    space = Space(parts, (*floor, *methods), config.setup)
    search = (Again if again else Search)(space, lifetimes)
    check_entries([space[number] for number in search.first()], lifetimes)
    winners: list[dict[str, Any]] = []
    runner = EntryRunner(config, space, config.seed, Purpose.TUNING)
    what = f"{lifetimes}-{'-'.join(methods)}{'-again' * again}"
    folder = cache() / f"tuning-{config.hash()}-{what}"
    run_on_ranks(
        runner, folder / "log",
        lambda farm: winners.extend(_master(farm, config, runner, search, folder, out)),
    )  # fmt: skip
    return winners


def tunable() -> Iterator[str]:
    """The names of all algorithms that have settings of their own to tune."""
    for name in METHODS:
        if getattr(find("method", name), "tuned_as", None) == name:
            yield name


class Lives:
    """The lifetimes of settings, lived as they are asked for; all of them are counted."""

    def __init__(self, farm: Farm, runner: EntryRunner, journal: Journal, lock: Lock) -> None:
        self._farm, self._runner, self._journal, self._lock = farm, runner, journal, lock
        self.steps: dict[int, int] = {}
        """environment steps by setting, final episodes not counted"""

    def returns(self, numbers: Sequence[int], lifetimes: int, skip: int = 0) -> list[float]:
        """Mean final return of each setting over lifetimes skip, …, lifetimes − 1."""
        check_entries([self._runner.entries[number] for number in numbers], lifetimes)
        results = self._runner.collect(self._farm, lifetimes, self._journal, self._lock, numbers)
        for number in numbers:
            self.steps[number] = lifetimes * self._runner.entries[number].setup.lifetime.steps
        finals = (np.nan_to_num(r.final_return[skip:], nan=-np.inf) for r in results)
        return [round(float(final.mean()), 4) for final in finals]


class Search:
    """A coarse grid, what is next to its best, and the five best of all on fresh lives."""

    def __init__(self, space: Space, lifetimes: int) -> None:
        self.space = space
        self.lifetimes = lifetimes
        self.fresh = FRESH * lifetimes
        self._pairs = [(task, method) for task in space.tasks for method in space.methods]
        self._coarse = {pair: list(space.coarse(*pair)) for pair in self._pairs}

    def first(self) -> list[int]:
        """The settings that are tried whatever comes of them."""
        return [number for numbers in self._coarse.values() for number in numbers]

    def run(self, lives: Lives) -> dict[tuple[Task, str], dict[int, float]]:
        """By task and method: the finalists' returns, the best first."""
        # every setting of the grid, then those next to the best of them
        found = self._tried(lives, self._coarse)
        near = {
            pair: [
                number
                for best in list(found[pair])[:BEST]
                for number in self.space.fine(best)
                if number not in found[pair]
            ]
            for pair in self._pairs
        }
        for pair, returns in self._tried(lives, near).items():
            found[pair] |= returns
        # the best of all, chosen on lives that chose none of them
        finalists = {pair: list(_sorted(found[pair]))[:FINALISTS] for pair in self._pairs}
        return self._tried(lives, finalists, self.lifetimes + self.fresh, self.lifetimes)

    def _tried(
        self,
        lives: Lives,
        numbers: dict[tuple[Task, str], list[int]],
        lifetimes: int | None = None,
        skip: int = 0,
    ) -> dict[tuple[Task, str], dict[int, float]]:
        flat = list(dict.fromkeys(number for each in numbers.values() for number in each))
        lifetimes = lifetimes or self.lifetimes
        print(f"to try: {len(flat)} settings, {lifetimes - skip} lifetimes each", flush=True)
        returns = dict(zip(flat, lives.returns(flat, lifetimes, skip) if flat else (), strict=True))
        found = {}
        for (task, method), mine in numbers.items():
            for number in mine:
                entry = self.space[number]
                said = f"every {entry.setup.lifetime.steps_per_update} steps, {entry.about}"
                print(f"{task.name}: {method}, {said}: {returns[number]:.5g}", flush=True)
            found[task, method] = _sorted({number: returns[number] for number in mine})
        return found


class Again(Search):
    """The five best of the nearest budget that was tuned, on fresh lives of this one."""

    def __init__(self, space: Space, lifetimes: int) -> None:
        super().__init__(space, lifetimes)
        self.fresh = lifetimes
        self._coarse = {
            (task, method): [
                space.number(task, method, setting)
                for setting in self._settings(task, method)
                if space.fits(setting)
            ]
            for task, method in self._pairs
        }

    def _settings(self, task: Task, method: str) -> Sequence[Setting]:
        if not make_algorithm(method).searched:
            return [{}]
        return finalists_of(method, task.name, self.space.setup)

    def run(self, lives: Lives) -> dict[tuple[Task, str], dict[int, float]]:
        return self._tried(lives, self._coarse)


def _sorted(returns: dict[int, float]) -> dict[int, float]:
    return dict(sorted(returns.items(), key=lambda item: -item[1]))


def _master(
    farm: Farm, config: Config, runner: EntryRunner, search: Search, folder: Path, out: Path | None
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
    search: Search,
    found: dict[tuple[Task, str], dict[int, float]],
    lives: Lives,
    config: Config,
    out: Path,
) -> Iterator[dict[str, Any]]:
    """Those of each task and method, once they are in a file."""
    space = search.space
    for (task, method), finalists in found.items():
        if method == FLOOR:
            continue
        tried = [n for n in lives.steps if (e := space[n]).task is task and e.method == method]
        best = space[next(iter(finalists))]
        winner = about(method, best.setup) | space.setting(next(iter(finalists)))
        winner |= {
            "final_return": next(iter(finalists.values())),
            "lifetimes": search.lifetimes,
            "fresh": search.fresh,
            "settings": len(tried),
            "seed": config.seed,
            "grid_steps": sum(lives.steps[number] for number in tried),
        }
        if method == "ppo":
            [random] = found[task, FLOOR].values()
            winner["random_return"] = random
        winner["finalists"] = [space.setting(number) for number in finalists]
        keep(task.name, winner, out)
        print(
            f"{task.name}: {method}, {effort(winner)}, {winner['grid_steps']:,} steps: every "
            f"{winner['steps_per_update']} steps, {settings_of(best.setup)}, final return "
            f"{winner['final_return']:.5g}; written to {out}",
            flush=True,
        )
        yield winner
