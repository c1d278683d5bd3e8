"""The run directory: what a finished run leaves, and what is found again after an accident."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from epg.config import Config, load
from epg.errors import UserError
from epg.methods.epg import Epg
from epg.methods.saved import load as load_saved
from epg.runs.directory import Checkpoint, RunDirectory, read_config
from epg.runs.metrics import columns_of

Run = Callable[..., object]
ROOT = Path(__file__).parents[2]
QUICKSTART, CONFIGS = ROOT / "results" / "shared-skill", ROOT / "configs"
SOMETIMES = ("validation", "gradient_cosine", "pair_signal")
"""Columns that may be empty: not measured in every generation, or not defined."""
COLUMNS = columns_of(Epg.metrics)
LIKE = {"center": torch.zeros(3)}
"""The shape of checkpoints here."""


def open_run(path: Path, config: Config) -> RunDirectory:
    """As a run of EPG does whose α is 0 at the end."""
    return RunDirectory(path, config, Epg.metrics, {"alpha": 0.0})


@pytest.fixture
def directory(tiny: Path, tmp_path: Path) -> Iterator[RunDirectory]:
    directory = open_run(tmp_path / "run", load(tiny))
    with directory.held():
        directory.begin()
        yield directory


def checkpoint(generation: int) -> Checkpoint:
    return Checkpoint(
        generation, {"center": torch.full((3,), 1.0 * generation)}, {"best_validation": -math.inf}
    )


def row(generation: int) -> dict[str, float | None]:
    return dict.fromkeys(COLUMNS, 0.5) | {"generation": generation, "validation": None}


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
    assert state == {
        "state": "done", "generation": 3, "generations": 3, "why": "", "launch": "", "job": "",
    }  # fmt: skip
    assert json.loads((finished / "DONE").read_text())["generations"] == 3
    kept = sorted(path.name for path in (finished / "checkpoint").iterdir())
    assert kept == [f"0000000{g}.{end}" for g in (1, 2, 3) for end in ("json", "safetensors")]
    assert [path.name for path in (finished / "log").iterdir()] == ["rank-0.log"]


def test_metrics_have_a_row_for_each_generation(finished: Path) -> None:
    with open(finished / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["generation"] for row in rows] == ["0", "1", "2"]
    for name in set(COLUMNS) - set(SOMETIMES):
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


def test_tensorboard_is_an_extra(epg: Run, tiny: Path, tmp_path: Path) -> None:
    """Without it no events are written; who asks for them is told before anything begins."""
    before = "import sys; sys.modules['tensorboard'] = None"
    start = ("train", tiny, "steps=1", "--run")
    wanted = ("run", "log.tensorboard=true")
    for more in (wanted, (*wanted, "--ranks", "2")):
        said = epg(*start, *more, folder=tmp_path, before=before)
        assert said.code == 2 and said.err.count("\n") == 1 and said.out == ""
        assert "log.tensorboard: needs TensorBoard" in said.err and "'epg[tensorboard]'" in said.err
    assert list(tmp_path.iterdir()) == []
    said = epg(*start, "run", folder=tmp_path, before=before)
    assert (said.code, said.err) == (0, "")
    assert epg(*start, "other", "log.tensorboard=false", folder=tmp_path).code == 0
    assert (tmp_path / "run" / "DONE").exists() and not list(tmp_path.glob("*/events.out.*"))
    assert epg(*start, *wanted, "steps=2", folder=tmp_path).code == 0  # now it is installed
    (events,) = tmp_path.glob("run/events.out.*")
    assert [p.step for p in EventAccumulator(str(events)).Reload().Scalars("invalid")] == [1]


def test_the_losses_say_what_they_are(finished: Path, tiny: Path) -> None:
    done = json.loads((finished / "DONE").read_text())
    newest = load_saved(finished / "loss.safetensors")
    best = load_saved(finished / "best.safetensors")
    assert newest.step == 3 and best.step == done["best_generation"]
    assert newest.tasks == ("point-goal",) and newest.method().about() == {"α": 0}
    assert newest.task == "point-goal" and newest.config == load(tiny)
    assert done["best_validation"] >= done["validation"]


def test_nothing_is_written_before_a_run_begins(tiny: Path, tmp_path: Path) -> None:
    open_run(tmp_path / "run", load(tiny))
    assert list(tmp_path.iterdir()) == []


def test_a_start_killed_at_its_first_file_is_a_fresh_start(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / ".config.yaml.4711.new").write_text("task: poi")
    directory = open_run(tmp_path, load(tiny))
    with directory.held():
        directory.begin()
    assert read_config(tmp_path) == load(tiny)
    assert not list(tmp_path.glob("*.new"))


@pytest.mark.parametrize("content", ["", "task: [", "- 1", "task: x\n", "\x00"])
def test_a_broken_config_is_refused(tiny: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(UserError, match=r"config\.yaml: "):
        open_run(tmp_path, load(tiny))
    assert (tmp_path / "config.yaml").read_text() == content


def test_the_newest_checkpoints_are_kept(directory: RunDirectory) -> None:
    for generation in range(1, 6):
        directory.save(checkpoint(generation))
    kept = sorted(path.stem for path in (directory.path / "checkpoint").glob("*.json"))
    assert kept == ["00000003", "00000004", "00000005"]
    found = directory.resume(LIKE)
    assert found is not None and found.step == 5
    assert torch.equal(found.tensors["center"], torch.full((3,), 5.0))
    assert found.totals == {"best_validation": -math.inf}


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
    assert found is not None and found.step == 1


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


# Run directories of the layout of before


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """One that version 0.1 has finished."""
    run = tmp_path / "old"
    run.mkdir()
    shutil.copy(QUICKSTART / "config.yaml", run)
    (run / "DONE").write_text('{"generations": 40}\n')
    return run


def test_an_old_run_that_is_done_is_done(epg: Run, old: Path, contents: Run) -> None:
    """For the same configuration, whichever layout it is written in; nothing is changed."""
    before = contents(old)
    for config in (QUICKSTART / "config.yaml", CONFIGS / "shared-skill.yaml"):
        said = epg("train", config, "--run", old, folder=old.parent)
        assert (said.code, said.err) == (0, "")
        assert said.out == f"{old}: all 40 generations were done before\n"
    assert contents(old) == before


def test_an_old_run_that_is_not_done_is_refused(epg: Run, old: Path, contents: Run) -> None:
    (old / "DONE").unlink()
    before = contents(old)
    for asked in ("steps=40", "steps=50"):
        said = epg("train", old / "config.yaml", "--run", old, asked, folder=old.parent)
        assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1
        assert said.err.startswith(f"epg: {old}: begun by an earlier version")
        assert "name a new --run" in said.err
    assert contents(old) == before


def test_an_old_run_is_not_gone_on_with(epg: Run, old: Path, contents: Run) -> None:
    """More steps than it has, or another configuration."""
    before = contents(old)
    told = {"steps=41": "begun by an earlier version", "seed=1": "seed: there 0, here 1"}
    for more, why in told.items():
        said = epg("train", CONFIGS / "shared-skill.yaml", "--run", old, more, folder=old.parent)
        assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1
        assert said.err.startswith(f"epg: {old}: ") and why in said.err
    assert contents(old) == before


def test_the_configuration_of_an_old_run_is_read(old: Path) -> None:
    assert read_config(old) == load(CONFIGS / "shared-skill.yaml")
