"""The metrics as TensorBoard events, where the extra is installed."""

from __future__ import annotations

import io
import os
import platform
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from epg.errors import UserError
from epg.runs.files import append_durably

VERSION = "brain.Event:2"
"""Of event files: a start of the session replaces the points from its step on."""


def check_tensorboard(wanted: bool | None) -> None:
    """Raise `UserError` if events are asked for that cannot be written."""
    if wanted and find_spec("tensorboard") is None:
        raise UserError(
            "log.tensorboard: needs TensorBoard, which is not installed: "
            "pip install 'epg[tensorboard]'"
        )


class Events:
    """A new event file in a run directory; points from `generation` on are replaced.

    TensorBoard's own writer has a thread that fails by itself, and names no file.
    """

    def __init__(self, path: Path, generation: int, wanted: bool | None) -> None:
        """wanted: whether to write any; None, if TensorBoard is installed."""
        self._file: Path | None = None
        if wanted is False or find_spec("tensorboard") is None:
            return
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        name = f"events.out.tfevents.{time.time():.0f}.{platform.node()}.{os.getpid()}.0"
        self._file = path / name
        start = SessionLog(status=SessionLog.START)
        _append(self._file, Event(file_version=VERSION), Event(step=generation, session_log=start))

    def add(self, row: Mapping[str, float | None]) -> None:
        """A generation's metrics, durably."""
        if self._file is None:
            return
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in row.items()
            if name != "generation" and value is not None
        ]
        _append(self._file, Event(step=row["generation"], summary=Summary(value=values)))


def _append(file: Path, *events: Any) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    records = io.BytesIO()
    for event in events:
        event.wall_time = time.time()
        RecordWriter(records).write(event.SerializeToString())
    append_durably(file, records.getvalue())
