"""metrics.csv: whatever happened to the file, the run goes on and what was whole stays."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from epg.runs.metrics import read_rows

Run = Callable[..., object]


def generations(path: Path) -> list[str]:
    with open(path, newline="") as file:
        return [row["generation"] for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("damage", "whole"),
    [
        (lambda content: content + b"\xff", 3),
        (lambda content: content.replace(b"\n1,", b"\nx,"), 2),
        (lambda content: content.replace(b"\n1,", b"\n1,1,"), 2),
        (lambda content: content[:-4], 2),
        (lambda content: content.replace(b"generation", b"degeneration", 1), 0),
        (lambda content: content.split(b"\n", 1)[1], 0),
        (lambda content: b"\0" * len(content), 0),
        (lambda content: b"", 0),
    ],
    ids=["a byte", "a word", "a cell too many", "cut", "a column", "no header", "zeros", "empty"],
)
def test_a_damaged_file_does_not_end_a_run(
    epg: Run,
    tiny: Path,
    finished: Path,
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
    whole: int,
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    path = run / "metrics.csv"
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    rows, _ = read_rows(path)
    assert len(rows) == whole
    said = epg("train", tiny, "--run", run, "steps=4", folder=tmp_path)
    assert (said.code, said.err) == (0, ""), said
    assert len(generations(path)) == whole + 1 and generations(path)[-1] == "3"
    if damaged:
        assert "damaged lines are left out" in said.out
        assert path.with_suffix(".csv.damaged").read_bytes() == damaged
    assert epg("status", run, folder=tmp_path).code == 0


def test_a_sound_file_is_read_whole(finished: Path) -> None:
    rows, damaged = read_rows(finished / "metrics.csv")
    assert [row["generation"] for row in rows] == ["0", "1", "2"] and damaged == 0
    assert read_rows(finished / "absent.csv") == ([], 0)
