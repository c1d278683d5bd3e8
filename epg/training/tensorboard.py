"""The metrics as TensorBoard events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from epg.runs.files import sync


class Events:
    """Event files in a run directory; points from `generation` on are replaced."""

    def __init__(self, path: Path, generation: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # half a second; workers do without

        before = set(path.glob("events.out.*"))
        self._writer = SummaryWriter(path, purge_step=generation)
        (self._file,) = set(path.glob("events.out.*")) - before

    def __enter__(self) -> Events:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def add(self, row: Mapping[str, float | None]) -> None:
        """A generation's metrics, durably."""
        generation = row["generation"]
        for name, value in row.items():
            if name != "generation" and value is not None:
                self._writer.add_scalar(name, value, generation)
        self._writer.flush()
        sync(self._file)
