"""metrics.csv: whatever happened to the file, the run goes on and what was whole stays."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from epg.runs.metrics import read_newest, read_rows

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


@pytest.mark.parametrize("longest", [1, 60, 200, 10_000])
def test_the_newest_rows_are_whole_wherever_the_look_begins(
    finished: Path, tmp_path: Path, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    header, *_, last = (finished / "metrics.csv").read_text().splitlines()
    path = tmp_path / "metrics.csv"
    rows = [f"{generation},{last.partition(',')[2]}" for generation in range(1000, 1100)]
    path.write_text("\n".join([header, *rows, ""]))
    monkeypatch.setattr("epg.runs.metrics.LONGEST_ROW", longest)
    for count in (1, 2, 7, 99, 100, 200):
        every, _ = read_rows(path)
        newest = read_newest(path, count)
        assert newest == every[len(every) - len(newest) :]
        assert len(newest) <= count
        if longest == 10_000:
            assert len(newest) == min(count, 100)
    assert read_newest(tmp_path / "absent.csv", 3) == []
