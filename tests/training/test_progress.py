"""A live display on a terminal, through mpirun too; plain lines elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

CURSOR_HIDDEN = "\x1b[?25l"


def on_terminal(*arguments: str | Path, folder: Path) -> str:
    """All that a command shows on a terminal."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "epg", *map(str, arguments)],
        cwd=folder, stdout=its, stderr=its, env=os.environ | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(its)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the terminal is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait() == 0
    return shown.decode()


@pytest.mark.parametrize("ranks", [(), ("--ranks", "2")])
def test_a_terminal_has_a_live_display(tiny: Path, tmp_path: Path, ranks: tuple[str, ...]) -> None:
    shown = on_terminal("train", tiny, "--run", "run", *ranks, folder=tmp_path)
    assert CURSOR_HIDDEN in shown and "100%" in shown
    assert "generation 3/3, fitness" in shown and "steps/s" in shown and "left" in shown
    assert "done: run/best.safetensors" in shown.rstrip().splitlines()[-1]


def test_elsewhere_there_are_plain_lines(tiny: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "epg", "train", tiny, "--run", "run"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "\x1b" not in shown
    lines = [line for line in shown.splitlines() if line.startswith("generation ")]
    assert [line.split(",")[0] for line in lines] == [f"generation {g}/3" for g in (1, 2, 3)]
