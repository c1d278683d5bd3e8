"""Trained here, tested there: the shape of MetaGenRL's table 1 (Kirsch et al. 2020, 1910.04098)."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources

from epg.evaluation.scores import TaskScores, columns_of
from epg.evaluation.tables import GAP, blocks, wrap

PUBLISHED = "metagenrl_table1.csv"
MISSING, UNLEARNED = "–", "not learned"


def table(
    tasks: Sequence[TaskScores], trained_on: Mapping[str, str], published: bool = False
) -> list[str]:
    """Lines: below what methods were trained on, their mean final return on each task.

    A dash where a loss does not fit a task; ° on tasks that a loss was not trained on. `published`:
    the paper's figures too, and in what they differ from ours.
    """
    names = [task.task for task in tasks]
    groups: dict[str, list[tuple[str, ...]]] = {}
    """rows by what their methods were trained on"""
    means = [
        dict(zip([row.method for row in task.rows], columns_of(task.rows)["mean"], strict=True))
        for task in tasks
    ]
    lived = dict.fromkeys(name for column in means for name in column)
    for method in sorted(lived, key=lambda name: name not in trained_on):
        known = trained_on.get(method, "")
        cells = (column.get(method, MISSING) for column in means)
        row = (f"{GAP}{method}", *_mark(known, names, cells))
        groups.setdefault(known or UNLEARNED, []).append(row)
    notes = [
        "Mean final return with 95 % intervals. ° not trained on; – the loss does not fit the "
        "task, or nothing was published."
    ]
    if published:
        theirs = read()
        for entry in theirs if any(name in theirs[0] for name in names) else ():
            known = entry["trained_on"]
            cells = (f"{entry[n]}*" if n in entry else MISSING for n in names)
            row = (f"{GAP}{entry['method']}*", *_mark(known, names, cells))
            groups.setdefault(known or UNLEARNED, []).append(row)
        ours = tasks[0].steps
        notes.append(
            f"* published ({theirs[0]['source']}), mean over seeds, without intervals: "
            f"{int(theirs[0]['steps']):,} environment steps a lifetime, here {ours:,}; OpenAI "
            "Gym's environments, here Gymnasium's v5"
        )
        for name in names:
            if name not in theirs[0]:
                notes.append(f"{name}: not among theirs")
    groups[UNLEARNED] = groups.pop(UNLEARNED, [])  # the last
    rows: list[tuple[str, ...]] = [("trained on, tested on", *names)]
    for known, members in groups.items():
        rows += [(known,), *members] if members else []
    return [*blocks(rows), "", *(line for note in notes for line in wrap(note))]


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
