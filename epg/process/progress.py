"""How far some work is: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Column

from epg.process.launcher import ON_TERMINAL, launched_size

SECONDS = 10.0
"""Between two plain lines of work whose progress is not kept, at least."""
BAR_WIDTH = 10


class Progress:
    """Shows how much of some work is done. A context manager."""

    def __init__(self, total: int, done: int = 0, text: str = "", passing: bool = True) -> None:
        """passing: none of it is kept. The live line goes when the work is done, and plain ones
        come now and then, on stderr; otherwise all of them, on stdout."""
        self._total = total
        self._begun_at = done
        self._begun = self._said = time.monotonic()
        self._passing = passing
        self._bar: Bar | None = None
        # a launcher may give its ranks a terminal of its own, whatever it writes to
        forced = ON_TERMINAL in os.environ if launched_size() > 1 else None
        console = Console(force_terminal=forced)
        if console.is_terminal:
            rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
            columns = (BarColumn(BAR_WIDTH), TaskProgressColumn(), TimeElapsedColumn(),
                       TextColumn("{task.description}", table_column=rest))  # fmt: skip
            self._bar = Bar(*columns, console=console, transient=passing)
            self._task = self._bar.add_task(text, total=total, completed=done)

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def move(self, done: float) -> None:
        """So much is done, and no more to say of it."""
        if self._bar:
            self._bar.update(self._task, completed=done)

    def show(self, done: float, text: str, lasting: str = "") -> None:
        """So much is done; lasting: what stays above the live line, and stands elsewhere instead
        of the text."""
        if self._bar:
            self._bar.update(self._task, completed=done, description=text)
            if lasting:
                self._bar.console.print(lasting)
        elif not self._passing:
            print(lasting or text, flush=True)
        elif time.monotonic() - self._said >= SECONDS:
            print(text, file=sys.stderr, flush=True)
            self._said = time.monotonic()

    def left(self, done: float) -> str:
        """How long the rest takes, at the pace since the start."""
        pace = (time.monotonic() - self._begun) / max(done - self._begun_at, 1)
        return f"{duration(pace * (self._total - done))} left"


def duration(seconds: float) -> str:
    """For people: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
