"""Trained here, tested there: the shape of MetaGenRL's table 1 (Kirsch et al. 2020, 1910.04098)."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources

from epg.evaluation.scores import TaskScores

PUBLISHED = "metagenrl_table1.csv"
MISSING, UNLEARNED = "–", "(not learned)"


def table(
    tasks: Sequence[TaskScores], trained_on: Mapping[str, str], published: bool = False
) -> list[str]:
    """Lines: what a method was trained on, then its mean final return on each task.

    A dash where a loss does not fit a task; ° on tasks that a loss was not trained on. `published`:
    the paper's figures too, and in what they differ from ours.
    """
    names = [task.task for task in tasks]
    rows: list[tuple[str, ...]] = [("trained on \\ tested on", "method", *names)]
    means = [{row.method: str(row.final_return.mean) for row in task.rows} for task in tasks]
    lived = dict.fromkeys(name for column in means for name in column)
    for method in sorted(lived, key=lambda name: name not in trained_on):
        known = trained_on.get(method, "")
        cells = (column.get(method, MISSING) for column in means)
        rows.append((known or UNLEARNED, method, *_mark(known, names, cells)))
    notes = [
        "Mean final return with 95 % intervals. ° not trained on; – the loss does not fit the "
        "task, or nothing was published."
    ]
    if published:
        theirs = read()
        for entry in theirs if any(name in theirs[0] for name in names) else ():
            known = entry["trained_on"]
            cells = (f"{entry[n]}*" if n in entry else MISSING for n in names)
            rows.append((known or UNLEARNED, f"{entry['method']}*", *_mark(known, names, cells)))
        ours = tasks[0].steps
        notes.append(
            f"* published ({theirs[0]['source']}), mean over seeds, without intervals: "
            f"{int(theirs[0]['steps']):,} environment steps a lifetime, here {ours:,}; OpenAI "
            "Gym's environments, here Gymnasium's v5"
        )
        for name in names:
            if name not in theirs[0]:
                notes.append(f"  {name}: not among theirs")
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        *("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip()
          for row in rows),
        *notes,
    ]  # fmt: skip


def _mark(trained_on: str, names: Sequence[str], cells: Iterable[str]) -> Iterator[str]:
    """The cells, with ° where a learned method meets a task for the first time."""
    known = trained_on.split(" + ")
    for name, cell in zip(names, cells, strict=True):
        unseen = trained_on and name not in known and cell != MISSING
        yield f"{cell}°" if unseen else cell


def read() -> list[dict[str, str]]:
    """The published rows: task columns by our names, and what was spent."""
    text = (resources.files("epg.evaluation") / PUBLISHED).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
