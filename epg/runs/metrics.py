"""metrics.csv: a row a step; whatever happened to the file, what is whole of it is read."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from epg.runs.files import append_durably, write_durably

FILE = "metrics.csv"
FIRST = ("generation", "fitness_mean", "validation", "failures", "invalid")
LAST = (
    "exploded", "environment_steps", "validation_steps", "core_seconds", "steps_per_second",
)  # fmt: skip
"""The columns that every method has; its own stand between them."""
Cells = dict[str, str]


def columns_of(metrics: Sequence[str]) -> tuple[str, ...]:
    """All columns; metrics: a method's own. docs/metrics.md says what each is."""
    return (*FIRST, *metrics, *LAST)


def read_rows(path: Path) -> tuple[list[Cells], int]:
    """The whole rows of a file as text by column, and how many lines are damaged.

    A row is whole if it ends, has a cell for each column, and nothing but numbers in them; a file
    whose header is damaged has none. No file has no rows. Raises OSError.
    """
    try:
        text = path.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return [], 0
    lines = text.splitlines(keepends=True)
    header = next(csv.reader(lines[:1]), [])
    if not set(FIRST[:1] + LAST) <= set(header):
        return [], len(lines)
    rows = []
    for line in lines[1:]:
        cells = next(csv.reader([line.rstrip("\n")]), [])
        if line.endswith("\n") and len(cells) == len(header) and all(map(_is_number, cells)):
            row = dict(zip(header, cells, strict=True))
            if row["generation"].isdecimal():
                rows.append(row)
    return rows, len(lines) - 1 - len(rows)


def number(cell: str) -> float | None:
    """The number in a cell; None where nothing was measured, or nothing finite."""
    return float(cell) if cell and math.isfinite(float(cell)) else None


def rewrite(path: Path, columns: Sequence[str], rows: Sequence[Cells]) -> None:
    """Write a file anew."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_durably(path, text.getvalue().encode())


def add(path: Path, columns: Sequence[str], row: Mapping[str, float | None]) -> None:
    """Append a step's row. An empty field means: not measured."""
    cells = ("" if row.get(name) is None else _plain(row[name]) for name in columns)
    append_durably(path, (",".join(cells) + "\n").encode())


def _is_number(cell: str) -> bool:
    try:
        float(cell or 0)
    except ValueError:
        return False
    return True


def _plain(value: float | None) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)
