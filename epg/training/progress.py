"""How far a run is, generation by generation."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from epg.process.progress import Progress as Shown


class Progress:
    """Shows generations as they pass. A context manager."""

    def __init__(self, generations: int, done: int, generation_steps: int) -> None:
        self._generations = generations
        self._done = done
        self._generation_steps = generation_steps
        self._steps = 0
        self._shown = Shown(generations, done, "first generation", passing=False)

    def __enter__(self) -> Progress:
        self._shown.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._shown.__exit__(kind, error, trace)

    def advance(self, steps: int) -> None:
        """So many steps of the generation under way are done."""
        self._steps += steps
        share = min(1.0, self._steps / self._generation_steps)
        self._shown.move(self._done + share * 0.999)

    def show(self, row: Mapping[str, float | None]) -> None:
        """A generation is done; its metrics."""
        self._done, self._steps = int(row["generation"] or 0) + 1, 0
        fitness, validation = row.get("fitness_mean"), row["validation"]
        parts = [
            f"generation {self._done}/{self._generations}",
            f"fitness {fitness:.4g}" if fitness is not None else "fitness: all failed",
            f"{row['steps_per_second']:,.0f} steps/s",
            self._shown.left(self._done),
        ]
        if row.get("failures"):
            parts.append(f"{row['failures']:.1%} of lifetimes failed")
        text, lasting = ", ".join(parts), ""
        if validation is not None:
            parts.insert(2, f"validation after {self._done - 1}: {validation:.4g}")
            lasting = ", ".join(parts)
        self._shown.show(self._done, text, lasting)
