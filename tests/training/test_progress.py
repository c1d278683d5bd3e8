"""A live display on a terminal, through mpirun too; plain lines elsewhere."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    validated = [part for part in shown.split(", ") if part.startswith("validation after ")]
    assert [part.split()[2] for part in validated] == ["0:", "2:"]


WORK = {
    "evaluate": ("evaluate", "best.safetensors", "--lifetimes", "4"),
    "inspect": ("inspect", "best.safetensors", "--task", "point-goal", "--lifetimes", "4"),
    "tune": ("tune", "tiny.yaml", "--lifetimes", "2", "--methods", "reinforce", "--out", "t.yaml"),
}
TOLD = {
    "evaluate": "16 of 16 lifetimes, 0 s left",
    "inspect": "gradients: 2 of 2 updates of 4 lifetimes, 0 s left",
    "tune": "setting 5 of 5, 30 of 30 lifetimes, 0 s left",
}


@pytest.fixture
def folder(finished: Path, tiny: Path, tmp_path: Path) -> Path:
    """With what those commands need."""
    shutil.copy(finished / "best.safetensors", tmp_path)
    shutil.copy(tiny, tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["evaluate", "inspect"])
def test_other_work_has_a_live_line_that_goes(folder: Path, name: str) -> None:
    shown = on_terminal(*WORK[name], folder=folder)
    assert CURSOR_HIDDEN in shown and "100%" in shown
    assert TOLD[name].partition(",")[0] in " ".join(shown.split())
    assert " left" not in shown.rstrip().splitlines()[-1]


@pytest.mark.parametrize("name", WORK)
def test_elsewhere_it_has_a_line_now_and_then_on_stderr(
    epg: Callable[..., Any], folder: Path, name: str
) -> None:
    often = "from epg.process import progress; progress.SECONDS = 0"
    said = epg(*WORK[name], folder=folder, before=often)
    assert said.code == 0 and "\x1b" not in said.err + said.out
    lines = said.err.splitlines()
    assert len(lines) > 1 and all(line.endswith(" s left") for line in lines)
    assert lines[-1] == TOLD[name] and TOLD[name] not in said.out
    assert name != "tune" or "to try: 5 settings, 4 lifetimes each\n" in said.out


def test_what_is_quick_says_nothing_of_its_progress(epg: Callable[..., Any], folder: Path) -> None:
    never = "from epg.process import progress; progress.SECONDS = 1e9"
    assert epg(*WORK["evaluate"], folder=folder, before=never).err == ""
