"""The run directory: what a finished run leaves, and what is found again after an accident."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from epg import artifact
from epg.config import load
from epg.errors import UserError
from epg.run import METRICS, Checkpoint, RunDirectory, read_config

SOMETIMES = ("validation", "gradient_cosine", "pair_signal")
"""Columns that may be empty: not measured in every generation, or not defined."""


LIKE = {"center": torch.zeros(3)}
"""The shape of checkpoints here."""


@pytest.fixture
def directory(tiny: Path, tmp_path: Path) -> Iterator[RunDirectory]:
    directory = RunDirectory(tmp_path / "run", load(tiny))
    with directory.held():
        directory.begin()
        yield directory


def checkpoint(generation: int) -> Checkpoint:
    return Checkpoint(
        generation, {"center": torch.full((3,), 1.0 * generation)}, {"best": -math.inf}
    )


def row(generation: int) -> dict[str, float | None]:
    return dict.fromkeys(METRICS, 0.5) | {"generation": generation, "validation": None}


def generations(directory: RunDirectory) -> list[str]:
    with open(directory.path / "metrics.csv", newline="") as file:
        return [row["generation"] for row in csv.DictReader(file)]


def test_a_finished_run_has_it_all(finished: Path, tiny: Path) -> None:
    names = {path.name for path in finished.iterdir() if not path.name.startswith("events.out.")}
    assert names == {
        "config.yaml", "state.json", "checkpoint", "journal.jsonl", "metrics.csv",
        "loss.safetensors", "best.safetensors", "log", "DONE",
    }  # fmt: skip
    assert read_config(finished) == load(tiny)
    state = json.loads((finished / "state.json").read_text())
    assert state == {"state": "done", "generation": 3, "why": "", "launch": "", "job": ""}
    assert json.loads((finished / "DONE").read_text())["generations"] == 3
    kept = sorted(path.name for path in (finished / "checkpoint").iterdir())
    assert kept == [f"0000000{g}.{end}" for g in (1, 2, 3) for end in ("json", "safetensors")]
    assert [path.name for path in (finished / "log").iterdir()] == ["rank-0.log"]


def test_metrics_have_a_row_for_each_generation(finished: Path) -> None:
    with open(finished / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == METRICS
    assert [row["generation"] for row in rows] == ["0", "1", "2"]
    for name in set(METRICS) - set(SOMETIMES):
        assert all(math.isfinite(float(row[name])) for row in rows), name
    assert [bool(row["validation"]) for row in rows] == [True, False, True]
    assert [bool(row["gradient_cosine"]) for row in rows] == [False, True, True]
    assert [float(row["alpha"]) for row in rows] == [0.5, 0, 0]
    assert [int(row["environment_steps"]) for row in rows] == [768, 1536, 2304]
    assert [int(row["validation_steps"]) for row in rows] == [192, 192, 384]
    for row in rows:
        assert float(row["fitness_worst"]) < float(row["fitness_mean"]) < float(row["fitness_best"])


def test_tensorboard_shows_the_metrics(finished: Path) -> None:
    events = EventAccumulator(str(finished)).Reload()
    with open(finished / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    points = events.Scalars("fitness_mean")
    assert [p.step for p in points] == [0, 1, 2]
    assert [p.value for p in points] == pytest.approx([float(r["fitness_mean"]) for r in rows])
    assert [p.step for p in events.Scalars("validation")] == [0, 2]


def test_the_losses_say_what_they_are(finished: Path, tiny: Path) -> None:
    done = json.loads((finished / "DONE").read_text())
    newest = artifact.load(finished / "loss.safetensors")
    best = artifact.load(finished / "best.safetensors")
    assert newest.generation == 3 and best.generation == done["best_generation"]
    assert newest.tasks == ("point-goal",) and newest.alpha == 0
    assert newest.config == load(tiny).model_dump(mode="json")
    assert done["best_validation"] >= done["validation"]


def test_nothing_is_written_before_a_run_begins(tiny: Path, tmp_path: Path) -> None:
    RunDirectory(tmp_path / "run", load(tiny))
    assert list(tmp_path.iterdir()) == []


def test_a_start_killed_at_its_first_file_is_a_fresh_start(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / ".config.yaml.4711.new").write_text("task: poi")
    directory = RunDirectory(tmp_path, load(tiny))
    with directory.held():
        directory.begin()
    assert read_config(tmp_path) == load(tiny)
    assert not list(tmp_path.glob("*.new"))


@pytest.mark.parametrize("content", ["", "task: [", "- 1", "task: x\n", "\x00"])
def test_a_broken_config_is_refused(tiny: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(UserError, match=r"config\.yaml: "):
        RunDirectory(tmp_path, load(tiny))
    assert (tmp_path / "config.yaml").read_text() == content


def test_the_newest_checkpoints_are_kept(directory: RunDirectory) -> None:
    for generation in range(1, 6):
        directory.save(checkpoint(generation))
    kept = sorted(path.stem for path in (directory.path / "checkpoint").glob("*.json"))
    assert kept == ["00000003", "00000004", "00000005"]
    found = directory.resume(LIKE)
    assert found is not None and found.generation == 5
    assert torch.equal(found.tensors["center"], torch.full((3,), 5.0))
    assert found.totals == {"best": -math.inf}


@pytest.mark.parametrize("name", ["00000002.json", "00000002.safetensors"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "flipped"])
def test_a_broken_checkpoint_gives_way_to_the_one_before(
    directory: RunDirectory, name: str, damage: str
) -> None:
    directory.save(checkpoint(1))
    directory.save(checkpoint(2))
    path = directory.path / "checkpoint" / name
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[-2] ^= 0xFF
        cut = {"empty": 0, "cut": len(content) // 2, "flipped": len(content)}[damage]
        path.write_bytes(content[:cut])
    found = directory.resume(LIKE)
    assert found is not None and found.generation == 1


def test_metrics_that_are_lived_again_are_dropped(directory: RunDirectory) -> None:
    directory.start_metrics(0)
    for generation in range(4):
        directory.add_metrics(row(generation))
    directory.start_metrics(2)
    assert generations(directory) == ["0", "1"]
    directory.add_metrics(row(2))
    with open(directory.path / "metrics.csv", "a") as file:
        file.write("3,0.5,0.")
    directory.start_metrics(4)
    assert generations(directory) == ["0", "1", "2"]
