"""What lives in an evaluation: a way of learning on a task, as a farm takes it.

Shape letters: n lifetimes, U updates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from epg.agents.base import Agents
from epg.config import Setup
from epg.errors import RunError, UserError
from epg.farm import Farm
from epg.farm.work import Outcome, Result, Runner, Shared, Unit, Work, Workload
from epg.lifetime import live
from epg.methods.base import BATCH, Algorithm
from epg.methods.footprint import check_lifetimes, check_memory
from epg.process.launcher import launched_size
from epg.process.progress import Progress
from epg.runs.collect import Collected, Collector
from epg.runs.journal import Journal
from epg.runs.lock import Lock
from epg.seeds import LifetimeSeeds, Purpose
from epg.tasks.base import Task, draw_mdps

COURSE, KEPT = "course.", "kept."
"""Before the names of arrays in a result."""


@dataclass(frozen=True)
class Entry:
    """One way of learning on one task. Lifetime i has the same MDP and chance in every entry."""

    task: Task
    method: str
    about: str
    """the settings that tell it apart"""
    setup: Setup
    agents: Callable[[LifetimeSeeds], Agents]
    """fresh ones, for P seeds"""
    batch: int = BATCH
    """lifetimes in a unit, at most"""
    least_updates: int = 1
    """of a life, at least"""


class Entries(Protocol):
    """Entries by number, as in a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Entry: ...


@dataclass(frozen=True)
class EntryResult:
    """What n lifetimes of an entry came to."""

    final_return: np.ndarray
    """[n]; NaN where learning failed"""
    episode_returns: np.ndarray
    """[n, U], as `LifetimeResult` has them"""
    steps: int
    """environment steps, final episodes included"""
    core_seconds: float
    course: Mapping[str, np.ndarray] = field(default_factory=dict)
    """by name [n, U], as `LifetimeResult` has it"""
    kept: Mapping[str, np.ndarray] = field(default_factory=dict)
    """by name [n, …], likewise"""


def entry_of(
    method: str, algorithm: Algorithm, task: Task, setup: Setup, remark: str = ""
) -> Entry:
    """An algorithm on a task; `setup` has its settings."""
    setup = algorithm.adapt(setup)
    return Entry(
        task, method, algorithm.about(setup) + remark, setup,
        lambda seeds: algorithm.agents(task, setup, seeds), algorithm.batch,
        algorithm.least_updates,
    )  # fmt: skip


def check_entries(entries: Sequence[Entry], lifetimes: int) -> None:
    """Raise `UserError` if so many lifetimes of each are more than memory holds."""
    alone = launched_size() == 1  # ranks live in as small units as there is need for
    for entry in entries:
        found = entry.setup.lifetime.updates
        if found < entry.least_updates:
            raise UserError(
                f"method {entry.method}: needs lives of {entry.least_updates} updates at least, "
                f"found {found}"
            )
        at_once = min(entry.batch if alone else 2, lifetimes)
        check_lifetimes(entry.setup, entry.task, at_once)
    returns = sum(8 * lifetimes * entry.setup.lifetime.updates for entry in entries)
    check_memory("all lifetimes", {f"the returns of {lifetimes} in each update": returns})


class EntryRunner(Runner):
    """Runs lifetimes of entries."""

    def __init__(self, work: Work, entries: Entries, seed: int, purpose: Purpose) -> None:
        super().__init__(work)
        self.entries = entries
        self.seed = seed
        self.purpose = purpose

    def run(self, shared: Shared | None, unit: Unit) -> Result:
        entry = self.entries[unit.entry]
        seeds = LifetimeSeeds.of(self.seed, self.purpose, unit.first, unit.count, step=unit.step)
        mdps, agents = draw_mdps(entry.task, seeds), entry.agents(seeds)
        lived = live(entry.task, mdps, agents, seeds, entry.setup.lifetime)
        arrays = {
            "final_return": lived.final_return, "episode_returns": lived.episode_returns,
        }  # fmt: skip
        if self.purpose == Purpose.EVALUATION:
            arrays |= {f"{COURSE}{name}": array for name, array in lived.course.items()}
            arrays |= {f"{KEPT}{name}": array for name, array in lived.kept.items()}
        return Result(unit, arrays, lived.steps, lived.exploded)

    def collect(
        self,
        farm: Farm,
        lifetimes: int,
        journal: Journal,
        lock: Lock,
        numbers: Sequence[int] | None = None,
        step: int = 0,
    ) -> list[EntryResult]:
        """All lifetimes of entries: those in the journal, and the rest from the farm.

        lock: held, on the journal's folder; numbers: of the entries, all of them if None; step: of
        several, whose lives have nothing in common. Raises `RunError` if some raised an exception,
        with all others in the journal, or if another start has taken the folder over.
        """
        collector = Collector(farm, journal, lock)
        numbers = range(len(self.entries)) if numbers is None else numbers
        workloads = self._workloads(numbers, farm.workers, lifetimes, step)
        lived = Lived(numbers, lifetimes, self.purpose == Purpose.TUNING)
        for outcome in journal.read(step):
            lived.add(outcome)
        with Progress(lived.total, lived.done, lived.text()) as progress:

            def arrived(outcome: Outcome, collected: Collected) -> None:
                lived.add(outcome)
                if isinstance(outcome, Result):
                    progress.show(lived.done, f"{lived.text()}, {progress.left(lived.done)}")

            parts = collector.collect(None, workloads, arrived)
        failures = [failure for part in parts for failure in part.reasons]
        if failures:
            entry = self.entries[failures[0].unit.entry]
            raise RunError(
                f"{entry.task.name}, {entry.method}: {failures[0].reason} "
                f"({len(failures)} units failed; the same command tries them again)"
            )
        by_entry = {part.workload.entry: part for part in parts}
        results = []
        for number in numbers:
            updates = self.entries[number].setup.lifetime.updates
            with by_entry[number].used():
                results.append(_result(by_entry[number], lifetimes, updates))
        return results

    def _workloads(
        self, numbers: Sequence[int], workers: int, lifetimes: int, step: int
    ) -> list[Workload]:
        """A workload an entry, those that take the longest first.

        Large units are quicker by the lifetime; they are cut where workers would have nothing to
        do.
        """
        batches = {number: self.entries[number].batch for number in numbers}
        parts = -(-2 * workers // len(batches))
        share = -(-lifetimes // parts) if workers > 1 else lifetimes
        return [
            Workload(self.purpose, step, lifetimes, min(batches[number], share), 2, number)
            for number in sorted(numbers, key=batches.__getitem__)
        ]


class Lived:
    """How many lifetimes of entries, by their numbers, are done."""

    def __init__(self, entries: Collection[int], lifetimes: int, tuning: bool) -> None:
        self.total = len(entries) * lifetimes
        self._entries = frozenset(entries)
        self._lifetimes = lifetimes
        self._tuning = tuning
        self._members: defaultdict[int, set[int]] = defaultdict(set)
        """by entry"""

    def add(self, outcome: Outcome) -> None:
        """A unit has lived, now or before; one that failed has not."""
        unit = outcome.unit
        known = unit.entry in self._entries and unit.members.stop <= self._lifetimes
        if known and isinstance(outcome, Result):
            self._members[unit.entry].update(unit.members)

    @property
    def done(self) -> int:
        return sum(map(len, self._members.values()))

    def text(self) -> str:
        """For people."""
        whole = sum(len(members) == self._lifetimes for members in self._members.values())
        setting = f"setting {whole} of {len(self._entries)}, " if self._tuning else ""
        return f"{setting}{self.done:,} of {self.total:,} lifetimes"


def _result(collected: Collected, lifetimes: int, updates: int) -> EntryResult:
    final, returns = collected.array("final_return"), collected.array("episode_returns")
    if final.shape != (lifetimes,) or returns.shape != (lifetimes, updates):
        raise ValueError(f"returns of shapes {final.shape}, {returns.shape}")
    return EntryResult(
        final_return=final.astype(np.float64),
        episode_returns=returns.astype(np.float64),
        steps=sum(r.steps for r in collected.results),
        core_seconds=sum(r.core_seconds for r in collected.results),
        course=_below(COURSE, collected),
        kept=_below(KEPT, collected),
    )


def _below(prefix: str, collected: Collected) -> dict[str, np.ndarray]:
    """The arrays that all units have, of those with names that begin so."""
    units = [set(result.arrays) for result in collected.results]
    names = [n for n in collected.results[0].arrays if n in set.intersection(*units)]
    return {n.removeprefix(prefix): collected.array(n) for n in names if n.startswith(prefix)}
