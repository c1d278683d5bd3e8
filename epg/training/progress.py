"""How far a run is: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar

from epg.process.launcher import ON_TERMINAL, launched_size
from epg.training.estimate import duration


class Progress:
    """Shows generations as they pass. A context manager."""

    def __init__(self, generations: int, done: int, generation_steps: int) -> None:
        self._generations = generations
        self._begun_at = done
        self._begun = time.monotonic()
        self._generation_steps = generation_steps
        self._steps = 0
        self._bar: Bar | None = None
        # a launcher may give its ranks a terminal of its own, whatever it writes to
        forced = ON_TERMINAL in os.environ if launched_size() > 1 else None
        console = Console(force_terminal=forced)
        if console.is_terminal:
            columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
            self._bar = Bar(*columns, console=console)
            self._task = self._bar.add_task("first generation", total=generations, completed=done)

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

    def advance(self, steps: int) -> None:
        """So many steps of the generation under way are done."""
        self._steps += steps
        if self._bar:
            share = min(1.0, self._steps / self._generation_steps)
            whole = int(self._bar.tasks[0].completed)
            self._bar.update(self._task, completed=whole + share * 0.999)

    def show(self, row: Mapping[str, float | None]) -> None:
        """A generation is done; its metrics."""
        generation = int(row["generation"] or 0) + 1
        passed = time.monotonic() - self._begun
        left = passed / (generation - self._begun_at) * (self._generations - generation)
        fitness, validation = row.get("fitness_mean"), row["validation"]
        parts = [
            f"generation {generation}/{self._generations}",
            f"fitness {fitness:.4g}" if fitness is not None else "fitness: all failed",
            f"{row['steps_per_second']:,.0f} steps/s",
            f"{duration(left)} left",
        ]
        if validation is not None:
            parts.insert(2, f"validation {validation:.4g}")
        if row.get("failures"):
            parts.append(f"{row['failures']:.1%} of lifetimes failed")
        self._steps = 0
        if self._bar:
            self._bar.update(self._task, completed=generation, description=", ".join(parts))
            if validation is not None:
                self._bar.console.print(", ".join(parts))
        else:
            print(", ".join(parts), flush=True)
