"""When a test gives up waiting: when nothing below a folder has grown or come for long.

A limit on the whole would be outrun on a busy machine.
"""

from __future__ import annotations

import time
from pathlib import Path

SECONDS = 300.0
BETWEEN_LOOKS = 1.0


class Patience:
    """Fails, when asked, once nothing has moved below a folder for `SECONDS`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._looked = self._moved = time.monotonic()
        self._seen = self._look()

    def _look(self) -> dict[Path, int]:
        found = {}
        for path in self._folder.rglob("*"):
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
