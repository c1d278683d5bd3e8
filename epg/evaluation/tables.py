"""Tables for people, no wider than a terminal: columns of one precision, in blocks."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from epg.evaluation.bootstrap import Interval

WIDTH = 80
DIGITS = 4
GAP = "  "


def cells_of(column: Sequence[Interval | None], digits: int = DIGITS) -> list[str]:
    """Cells such as 178.0 [167.1, 187.7], all with the same decimals; empty where None.

    digits: significant ones of the largest number.
    """
    rows = [None if i is None else (i.value, i.low, i.high) for i in column]
    largest = max((abs(x) for row in rows if row for x in row if math.isfinite(x)), default=0.0)
    decimals = digits - 1 - math.floor(math.log10(largest)) if largest else 0
    places = min(max(decimals, 0), 9)
    shown = (row and [f"{round(x, places) + 0.0:.{places}f}" for x in row] for row in rows)
    return [f"{each[0]} [{each[1]}, {each[2]}]" if each else "" for each in shown]


def blocks(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table. The first row is its head; one of a single cell is the heading of others.

    Columns that do not fit beside the first one begin another block, which has that one again.
    """
    widths = [max(map(len, column)) for column in zip(*(r for r in rows if r[1:]), strict=True)]
    parts: list[list[int]] = []
    room = 0
    for column, width in enumerate(widths[1:], 1):
        room -= width + len(GAP)
        if room < 0:
            parts.append([])
            room = WIDTH - widths[0] - width - len(GAP)
        parts[-1].append(column)
    lines: list[str] = []
    for part in parts:
        lines += [""] * bool(lines)
        for name, *cells in rows:
            shown = [f"{cells[i - 1]:>{widths[i]}}" for i in part] if cells else []
            lines.append(GAP.join([f"{name:<{widths[0]}}", *shown]).rstrip())
    return lines


def wrap(text: str, indent: str = "") -> list[str]:
    """Lines of prose; all but the first are indented by two more."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent + GAP,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
