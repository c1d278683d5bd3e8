"""The results of a step, come what may: journaled, tried again, and in time.

Training, evaluation and tuning all get theirs here.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from epg.errors import ForeseenError, RunError, UserError
from epg.farm import Farm
from epg.farm.work import Failure, Outcome, Result, Shared, Workload
from epg.process.log import logger
from epg.runs.journal import Journal
from epg.runs.lock import Lock
from epg.seeds import Purpose

REMEMBERED = 1000
"""Units whose seconds make the median."""


@dataclass
class Deadline:
    """How long a unit may take: `times` the median unit, and `least` seconds at least."""

    times: float = math.inf
    least: float = math.inf
    typical_seconds: float = 0.0
    """of a unit, as long as none has ended; 0 if that is not known"""
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    @property
    def seconds(self) -> float:
        """After which a unit is given up."""
        typical = statistics.median(self._seconds) if self._seconds else self.typical_seconds
        return max(self.least, self.times * typical) if typical else self.least

    def add(self, seconds: float) -> None:
        """Tell it that a unit took so long."""
        self._seconds.append(seconds)


@dataclass
class Collected:
    """What came of a workload."""

    workload: Workload
    attempts: int
    """after so many failures a member is invalid"""
    results: list[Result] = field(default_factory=list)
    """in the order of members, once all are there"""
    failures: Counter[int] = field(default_factory=Counter)
    """of each member"""
    done: set[int] = field(default_factory=set)
    """members with a result"""
    reasons: list[Failure] = field(default_factory=list)
    """every failure that came"""
    journal: Path | None = None
    """where results come from that were there before, whose arrays may be anything"""

    def take(self, outcome: Outcome) -> None:
        """Add what became of a unit."""
        if isinstance(outcome, Failure):
            self.failures.update(outcome.unit.members)
            self.reasons.append(outcome)
        elif self.done.isdisjoint(outcome.unit.members):  # nothing counts twice
            self.done.update(outcome.unit.members)
            self.results.append(outcome)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Where results are used: what fails there of a journal's results is a `UserError`."""
        try:
            yield
        except ForeseenError:
            raise
        except Exception as error:
            if self.journal is None:
                raise
            logger.exception("results of the journal")
            raise UserError(
                f"{self.journal}: its results of step {self.workload.step + 1} are not what is to "
                f"be done with them ({type(error).__name__}: {error}); remove it: they are lived "
                "again"
            ) from None

    @property
    def invalid(self) -> list[int]:
        """Members that are given up."""
        often = (member for member, times in self.failures.items() if times >= self.attempts)
        return sorted(member for member in often if member not in self.done)

    def array(self, name: str) -> np.ndarray:
        """[valid members, …] the results' arrays of that name, in the order of members."""
        return np.concatenate([result.arrays[name] for result in self.results])


class Collector:
    """Gets the results of workloads from the journal, and the rest from the farm."""

    def __init__(
        self,
        farm: Farm,
        journal: Journal,
        lock: Lock,
        attempts: int = 1,
        most_invalid: float = 1.0,
        deadline: Deadline | None = None,
    ) -> None:
        """attempts: after so many failures a member is invalid; 1 keeps failures out of the
        journal, so that the next start tries them again. most_invalid: share of a training
        workload's members; more end the run."""
        self._farm = farm
        self._journal = journal
        self._lock = lock
        self._attempts = attempts
        self._most_invalid = most_invalid
        self.deadline = deadline or Deadline()

    def collect(
        self,
        shared: Shared | None,
        workloads: Sequence[Workload],
        arrived: Callable[[Outcome, Collected], None],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[Collected]:
        """What came of each workload, all of one step.

        What fails is tried again when all else is done. `arrived` is told of each outcome that
        comes from the farm; `meanwhile` is done, again and again, while none comes.
        Raises `RunError` when too much is invalid, or another start has taken the folder over.
        """
        if not workloads:
            return []
        step = workloads[0].step
        found = {(w.purpose, w.entry): Collected(w, self._attempts) for w in workloads}
        for outcome in self._journal.read(step):
            if self._keeps(outcome):
                self._take(found, outcome)
        for collected in found.values():
            collected.journal = self._journal.path if collected.results else None
        while True:
            for (purpose, _), collected in found.items():
                if purpose == Purpose.TRAINING:
                    self._stop_if_hopeless(collected)
            missing = [
                unit
                for collected in found.values()
                for unit in collected.workload.units({*collected.done, *collected.invalid})
            ]
            if not missing:
                break
            for outcomes in self._farm.run(shared, missing, self.deadline.seconds):
                if not outcomes:
                    meanwhile()
                    continue
                self._lock.check()
                kept = [outcome for outcome in outcomes if self._keeps(outcome)]
                if kept:
                    self._journal.append(kept)
                for outcome in outcomes:
                    self._take(found, outcome)
                    if isinstance(outcome, Failure):
                        logger.error("%s failed: %s", outcome.unit, outcome.why)
                    arrived(outcome, found[outcome.unit.purpose, outcome.unit.entry])
        for collected in found.values():
            collected.results.sort(key=lambda result: result.unit.first)
        return list(found.values())

    def _keeps(self, outcome: Outcome) -> bool:
        return self._attempts > 1 or isinstance(outcome, Result)

    def _take(self, found: dict[tuple[Purpose, int], Collected], outcome: Outcome) -> None:
        mine = found.get((outcome.unit.purpose, outcome.unit.entry))
        if mine is None or outcome.unit.members.stop > mine.workload.total:
            return  # of a journal that says more than there is
        mine.take(outcome)
        if isinstance(outcome, Result):
            self.deadline.add(outcome.seconds)

    def _stop_if_hopeless(self, collected: Collected) -> None:
        invalid, total = len(collected.invalid), collected.workload.total
        if invalid > self._most_invalid * total:
            step = collected.workload.step
            self._journal.forget_failures(step)  # once mended, they are tried anew
            raise RunError(
                f"{self._journal.folder}: {invalid} of {total} members of step {step + 1} are "
                f"invalid, more than {self._most_invalid:.0%}; log/ says why they failed; once "
                "that is mended, the same command goes on"
            )
