"""The metrics as TensorBoard events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class Events:
    """Event files in a run directory; points from `generation` on are replaced."""

    def __init__(self, path: Path, generation: int) -> None:
        self._writer = SummaryWriter(path, purge_step=generation)

    def add(self, row: Mapping[str, float | None]) -> None:
        """A generation's metrics."""
        generation = row["generation"]
        for name, value in row.items():
            if name != "generation" and value is not None:
                self._writer.add_scalar(name, value, generation)
        self._writer.flush()

    def close(self) -> None:
        """Write out what is left."""
        self._writer.close()
