"""When a test gives up waiting: when nothing below some folders has grown or come for long.

A limit on the whole would be outrun on a busy machine.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

SECONDS = 300.0
BETWEEN_LOOKS = 1.0


class Patience:
    """Fails, when asked, once nothing has moved below some folders for `SECONDS`."""

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._looked = self._moved = time.monotonic()
        self._seen = self._look()

    def _look(self) -> dict[Path, int]:
        found = {}
        for folder in self._folders:
            for path in folder.rglob("*"):
                try:
                    found[path] = path.stat().st_size
                except OSError:  # it went meanwhile
                    continue
        return found

    def ask(self, *said: object) -> None:
        """`said`: what to show where it fails."""
        now = time.monotonic()
        if now - self._looked < BETWEEN_LOOKS:
            return
        self._looked, seen = now, self._look()
        if seen != self._seen:
            self._seen, self._moved = seen, now
        assert now - self._moved < SECONDS, ("it hangs", *said)


def run(
    command: Sequence[str | Path], folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """What a process in a folder came to, which may take as long as it says or writes something.

    environment: what joins that of the tests.
    """
    with tempfile.TemporaryDirectory() as name:
        out, err = (Path(name) / each for each in ("out", "err"))
        with open(out, "w") as to_out, open(err, "w") as to_err:
            process = subprocess.Popen(
                [str(a) for a in command], cwd=folder, env=os.environ | environment,
                stdout=to_out, stderr=to_err,
            )  # fmt: skip
        patience = Patience(folder, Path(name))
        try:
            while process.poll() is None:
                time.sleep(0.02)
                patience.ask(err.read_text())
        finally:
            process.kill()
            process.wait()
        return subprocess.CompletedProcess(
            command, process.returncode, out.read_text(), err.read_text()
        )
