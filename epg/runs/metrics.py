"""metrics.csv: a row a step; whatever happened to the file, what is whole of it is read."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from epg.runs.files import append_durably, open_file, read_bytes, write_durably

FILE = "metrics.csv"
FIRST = ("generation", "fitness_mean", "validation", "failures", "invalid")
LAST = (
    "exploded", "environment_steps", "validation_steps", "core_seconds", "steps_per_second",
)  # fmt: skip
"""The columns that every method has; its own stand between them."""
LONGEST_ROW = 1000
"""Bytes."""
LONGEST_NUMBER = 18
"""Digits of a generation."""
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
        lines = read_bytes(path).decode(errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        return [], 0
    rows = _whole(lines)
    return rows, len(lines) - len(rows) - (_header(lines) is not None)


def read_newest(path: Path, count: int) -> list[Cells]:
    """The newest whole rows, `count` at most, however long the file is. Raises OSError."""
    try:
        with open_file(path) as file:
            header = file.readline()
            begin = file.seek(0, os.SEEK_END) - count * LONGEST_ROW
            file.seek(max(len(header), begin))
            if begin > len(header):
                file.readline()  # which may be a part of a row
            newest = file.read()
    except FileNotFoundError:
        return []
    lines = (header + newest).decode(errors="replace").splitlines(keepends=True)
    return _whole(lines)[-count:]


def _header(lines: Sequence[str]) -> list[str] | None:
    header = next(csv.reader(lines[:1]), [])
    return header if set(FIRST[:1] + LAST) <= set(header) else None


def _whole(lines: Sequence[str]) -> list[Cells]:
    header = _header(lines)
    if header is None:
        return []
    rows = []
    for line in lines[1:]:
        cells = next(csv.reader([line.rstrip("\n")]), [])
        if line.endswith("\n") and len(cells) == len(header) and all(map(_is_number, cells)):
            row = dict(zip(header, cells, strict=True))
            if row["generation"].isdecimal() and len(row["generation"]) <= LONGEST_NUMBER:
                rows.append(row)
    return rows


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
