"""What became of every method, in numbers: rows of statistics, tables, CSV.

Shape letters: n lifetimes, U updates, T tasks, S evolution seeds.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from epg.evaluation.bootstrap import (
    LIFETIMES,
    SEEDS,
    Interval,
    Summary,
    improvement,
    probability,
    summarise,
)
from epg.evaluation.entry import Entry, EntryResult
from epg.evaluation.tables import DIGITS, GAP, blocks, cells_of, wrap
from epg.lifetime import areas_of

REFERENCE, FLOOR = "ppo", "random"
"""What methods are compared with; what normalised scores are 0 for (they are 1 for the other)."""
PROBABILITY = f"P(> {REFERENCE})"
FEW_SEEDS = 3
"""Of which a resample holds the lowest alone so often that the interval reaches it."""


@dataclass(frozen=True)
class Score:
    """A method on a task."""

    entry: Entry
    result: EntryResult
    worst: tuple[float, float]
    """what a lifetime that failed counts as: the worst return and the worst area of any method on
    this task"""

    @property
    def failed(self) -> np.ndarray:
        """[n] whether learning went to NaN."""
        return np.asarray(~np.isfinite(self.result.final_return))

    @property
    def returns(self) -> np.ndarray:
        """[n] final returns, those that failed as the worst."""
        return np.where(self.failed, self.worst[0], self.result.final_return)

    @property
    def areas(self) -> np.ndarray:
        """[n] areas under learning curves, those that failed as the worst."""
        return np.where(self.failed, self.worst[1], areas_of(self.result.episode_returns))

    @property
    def failures(self) -> int:
        return int(self.failed.sum())


def scores_of(lived: Sequence[tuple[Entry, EntryResult]]) -> tuple[Score, ...]:
    """Of all methods on one task."""
    worst = tuple(
        float(np.nanmin(values)) if np.isfinite(values).any() else 0.0
        for values in (
            np.concatenate([result.final_return for _, result in lived]),
            np.concatenate([areas_of(result.episode_returns) for _, result in lived]),
        )
    )
    return tuple(Score(entry, result, (worst[0], worst[1])) for entry, result in lived)


@dataclass(frozen=True)
class Row:
    """The statistics of a method, on one task or, normalised, over several."""

    method: str
    final_return: Summary
    area: Summary | None
    """None where some lifetimes have seen no end of an episode"""
    improvement: Interval | None
    """over PPO, of final returns; None of PPO itself, and without it"""
    failures: int

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Sample:
    """What a method came to on T tasks."""

    finals: np.ndarray
    """[n, T] final returns"""
    areas: np.ndarray
    """[n, T] areas under the learning curve; NaN where no episode ended"""
    failures: int


Families = Mapping[str, Sequence[str]]
"""Losses that differ by their evolution seed alone, by what to call them together."""


@dataclass(frozen=True)
class TaskScores:
    """All methods on one task, on the same held-out MDPs."""

    task: str
    scores: tuple[Score, ...]
    families: Families

    @property
    def steps(self) -> int:
        """Environment steps of a lifetime."""
        return self.scores[0].entry.setup.lifetime.steps

    def samples(self) -> dict[str, Sample]:
        """By method."""
        return {
            s.entry.method: Sample(s.returns[:, None], s.areas[:, None], s.failures)
            for s in self.scores
        }

    @cached_property
    def rows(self) -> list[Row]:
        return rows_of(self.samples(), self.families)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        courses = {
            s.entry.method: {name: _mean_course(c) for name, c in s.result.course.items()}
            for s in self.scores
            if s.result.course
        }
        return {
            "task": self.task,
            "environment_steps_per_lifetime": self.steps,
            "rows": [row.plain() for row in self.rows],
            "settings": {s.entry.method: s.entry.about for s in self.scores},
            "steps_with_final_episodes": {s.entry.method: s.result.steps for s in self.scores},
            **({"course": courses} if courses else {}),
        }

    def table(self) -> str:
        """For people."""
        lifetimes = len(self.scores[0].returns)
        head = (
            f"{self.task}: {lifetimes} held-out lifetimes of {self.steps:,} environment steps, "
            "the same MDPs for every method"
        )
        about = [f"{s.entry.method}: {s.entry.about}" for s in self.scores]
        about_lines = [line for text in about for line in wrap(text, GAP)]
        return "\n".join([*wrap(head), "", *table_of(self.rows), "", *about_lines])


def rows_of(samples: Mapping[str, Sample], families: Families) -> list[Row]:
    """Families first, then each method by itself.

    Of a family each evolution seed is one number: what its loss comes to over lifetimes and tasks.
    """
    reference = samples.get(REFERENCE)
    rows = []
    for name, members in families.items():
        seeds = [samples[m] for m in members if m in samples]
        if len(seeds) < len(members):
            continue
        together = Sample(
            np.array([[seed.finals.mean()] for seed in seeds]),
            np.array([[seed.areas.mean()] for seed in seeds]),
            sum(seed.failures for seed in seeds),
        )
        beats = None
        if reference is not None:
            each = [[probability(seed.finals, reference.finals)] for seed in seeds]
            beats = summarise(np.array(each), SEEDS).mean
        rows.append(_row(name, together, SEEDS, beats))
    for name, sample in samples.items():
        beats = None
        if reference is not None and name != REFERENCE:
            beats = improvement(sample.finals, reference.finals)
        rows.append(_row(name, sample, LIFETIMES, beats))
    return rows


def _row(method: str, sample: Sample, over: str, beats: Interval | None) -> Row:
    known = bool(np.isfinite(sample.areas).all())
    area = summarise(sample.areas, over) if known else None
    return Row(method, summarise(sample.finals, over), area, beats, sample.failures)


def normalised(tasks: Sequence[TaskScores]) -> dict[str, Sample]:
    """Methods that live on all of several tasks, each task on its own scale: random 0, PPO 1.

    Empty without these two, and where PPO is no better than random on some task.
    """
    samples = [task.samples() for task in tasks]
    columns: list[dict[str, Sample]] = []
    for on_task in samples:
        low, high = on_task.get(FLOOR), on_task.get(REFERENCE)
        if low is None or high is None or not low.finals.mean() < high.finals.mean():
            return {}
        columns.append({name: _scaled(s, low, high) for name, s in on_task.items()})
    return {
        name: Sample(
            np.concatenate([column[name].finals for column in columns], 1),
            np.concatenate([column[name].areas for column in columns], 1),
            sum(column[name].failures for column in columns),
        )
        for name in columns[0]
        if all(name in column for column in columns)
    }


def _scaled(sample: Sample, low: Sample, high: Sample) -> Sample:
    def scaled(values: np.ndarray, zero: np.ndarray, one: np.ndarray) -> np.ndarray:
        span = one.mean() - zero.mean()
        return np.asarray((values - zero.mean()) / (span if span > 0 else np.nan))

    return Sample(
        scaled(sample.finals, low.finals, high.finals),
        scaled(sample.areas, low.areas, high.areas),
        sample.failures,
    )


def columns_of(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The statistics for people: cells by column."""
    finals = [row.final_return for row in rows]
    columns: dict[str, list[Interval | None]] = {
        "mean": [final.mean for final in finals],
        "IQM": [final.iqm for final in finals],
        PROBABILITY: [row.improvement for row in rows],
        "median": [final.median for final in finals],
        "area, IQM": [row.area.iqm if row.area else None for row in rows],
    }
    return {
        name: cells_of(column, DIGITS - (name == PROBABILITY))
        for name, column in columns.items()
        if any(column)
    }


def table_of(rows: Sequence[Row]) -> list[str]:
    """Lines for people."""
    columns = columns_of(rows)
    cells = zip([row.method for row in rows], *columns.values(), strict=True)
    lines = blocks([("final return", *columns), *cells])
    return lines + [line for row in rows for line in wrap(remarks(row), GAP)]


def remarks(row: Row) -> str:
    """What is to be known of a row's numbers; empty if nothing is."""
    found = []
    n = row.final_return.n
    if row.final_return.over == SEEDS:
        found.append(f"{n} {SEEDS}, each one number, its mean over lifetimes")
        if n <= FEW_SEEDS:
            found.append(f"with {n} the interval is their minimum and maximum")
    if row.failures:
        found.append(f"{row.failures} lifetimes failed")
    return f"{row.method}: {'; '.join(found)}" if found else ""


def csv_of(tasks: Sequence[TaskScores]) -> str:
    """Every lifetime's numbers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("task", "method", "lifetime", "final_return", "area", "failed"))
    for task in tasks:
        for score in task.scores:
            rows = zip(
                score.result.final_return, areas_of(score.result.episode_returns), strict=True
            )
            for lifetime, (final, area) in enumerate(rows):
                cells = (_cell(final), _cell(area), int(not np.isfinite(final)))
                writer.writerow((task.task, score.entry.method, lifetime, *cells))
    return text.getvalue()


def course_of(tasks: Sequence[TaskScores]) -> str:
    """What methods that tune themselves came to after each update, of every lifetime, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("task", "method", "name", "lifetime", "update", "value"))
    for task in tasks:
        for score in task.scores:
            for name, course in score.result.course.items():
                for lifetime, values in enumerate(course):
                    for update, value in enumerate(values, 1):
                        head = (task.task, score.entry.method, name, lifetime, update)
                        writer.writerow((*head, f"{value:.6g}"))
    return text.getvalue()


def _mean_course(course: np.ndarray) -> list[float | None]:
    """[U] mean over the lifetimes that are finite; None where none is."""
    finite = np.isfinite(course)
    total, count = np.where(finite, course, 0.0).sum(0), finite.sum(0)
    return [float(t / c) if c else None for t, c in zip(total, count, strict=True)]


def _cell(value: float) -> str:
    """Empty for what is not known."""
    return repr(float(value)) if np.isfinite(value) else ""
