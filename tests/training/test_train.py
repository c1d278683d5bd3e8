"""Training end to end, and going on after every kind of interruption, bit by bit the same."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from epg.config import load
from epg.methods.saved import Saved
from epg.methods.saved import load as load_saved
from epg.runs.journal import Journal
from epg.training.loop import train

Run = Callable[..., object]
TIMED = ("core_seconds", "steps_per_second")
KILLED = -signal.SIGKILL
KILL = """\
import os, signal
fsync, done = os.fsync, []
def fsync_and_die(descriptor):
    fsync(descriptor)
    done.append(descriptor)
    if {when}:
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = fsync_and_die
"""
"""Code that kills its process by SIGKILL right after the fsync that `when` tells."""


def metrics(run: Path) -> list[dict[str, str]]:
    """Rows without what the clock says."""
    with open(run / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMED} for row in csv.DictReader(file)]


def phi(saved: Saved) -> Tensor:
    """All that was learned, one after the other."""
    return torch.cat([tensor.flatten() for tensor in saved.params.values()])


@pytest.fixture
def same(tensors: Run, finished: Path) -> Callable[[Path], None]:
    """`same(run)`: fails unless a run came to what the undisturbed one did."""

    def check(run: Path) -> None:
        for name in ("loss.safetensors", "best.safetensors"):
            assert tensors(run / name) == tensors(finished / name)
        assert metrics(run) == metrics(finished)
        assert json.loads((run / "DONE").read_text()) == json.loads((finished / "DONE").read_text())

    return check


def test_crash_after_crash_comes_to_the_same(
    epg: Run, tiny: Path, tmp_path: Path, same: Run
) -> None:
    """Each start is killed later than the one before, somewhere between two writes."""
    for writes in (1, 6, 11, 16, 22):
        before = KILL.format(when=f"len(done) == {writes}")
        said = epg("train", tiny, "--run", "run", folder=tmp_path, before=before)
        assert said.code == KILLED, said
        assert not (tmp_path / "run" / "DONE").exists()
    said = epg("train", tiny, "--run", "run", folder=tmp_path)
    assert said.code == 0 and "goes on after" in said.out
    same(tmp_path / "run")


@pytest.mark.parametrize(("signal_name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupted_run_is_saved(
    epg: Run, tiny: Path, finished: Path, tmp_path: Path, same: Run, signal_name: str, code: int
) -> None:
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    before = heard + KILL.format(when="len(done) == 16").replace("SIGKILL", signal_name)
    said = epg("train", tiny, "--run", "run", folder=tmp_path, before=before)
    assert said.code == code and "Traceback" not in said.err
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    assert (state["state"], state["why"]) == ("saved", signal_name)
    assert epg("train", tiny, "--run", "run", folder=tmp_path).code == 0
    same(tmp_path / "run")
    loss = "loss.safetensors"
    assert (tmp_path / "run" / loss).read_bytes() == (finished / loss).read_bytes()


def test_seeds_are_trained_one_after_another(
    epg: Run, tiny: Path, tmp_path: Path, same: Run
) -> None:
    """In this process and under mpirun, interrupted and continued; each is a run by itself."""
    started = ("train", tiny, "--run", "runs", "--seeds")
    runs = tmp_path / "runs"
    before = KILL.format(when="len(done) == 16").replace("SIGKILL", "SIGTERM")
    assert epg(*started, "0-1", folder=tmp_path, before=before).code == 143
    assert [run.name for run in runs.iterdir()] == ["seed-0"]  # one end ends all
    assert epg(*started, "0", folder=tmp_path).code == 0
    same(runs / "seed-0")
    said = epg(*started, "0-1", "--ranks", "2", folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    assert "runs/seed-0: all 3 generations were done before" in said.out
    assert "done: runs/seed-1/best.safetensors" in said.out
    same(runs / "seed-0")
    assert load_saved(runs / "seed-1" / "loss.safetensors").config.seed == 1
    for arguments, told in (
        (("0-1", "seed=2"), "--seeds: found 0-1 and an override of seed"),
        (("1-",), "--seeds: found '1-', expected such as 0-9"),
        (("0-1", "--run", "runs/seed-1"), "runs/seed-1: holds a run by itself"),
    ):
        said = epg(*started, *arguments, folder=tmp_path)
        assert said.code == 2 and said.err.count("\n") == 1 and told in said.err
    said = epg(*started, "0-1", folder=tmp_path, environment={"EPG_RANKS": "2"})
    assert said.code == 2 and "but mpirun started this; give it --ranks" in said.err


def test_what_is_known_is_not_lived_again(epg: Run, tiny: Path, tmp_path: Path, same: Run) -> None:
    """Killed when two of the four units of generation 1 stand in the journal."""
    arguments = ("train", tiny, "--run", "run", "farm.chunk=1")
    known = """open("run/journal.jsonl").read().count('"step":1') == 2"""
    before = KILL.format(when=f"os.path.exists('run/journal.jsonl') and {known}")
    assert epg(*arguments, folder=tmp_path, before=before).code == KILLED
    journal = tmp_path / "run" / "journal.jsonl"
    assert len(journal.read_text().splitlines()) == 3
    with open(journal, "a") as file:
        file.write('{"purpose":1,"step":1,"first":2,"cou')
    assert epg(*arguments, folder=tmp_path).code == 0
    log = (tmp_path / "run" / "log" / "rank-0.log").read_text()
    lived = Counter(
        line.split(" INFO ")[1].split("):")[0] for line in log.splitlines() if " INFO " in line
    )
    training = {unit: n for unit, n in lived.items() if "TRAINING" in unit}
    assert len(training) == 3 * 4 and set(training.values()) == {1}
    same(tmp_path / "run")


def test_more_generations_go_on_where_fewer_ended(
    epg: Run, tiny: Path, tmp_path: Path, same: Run
) -> None:
    arguments = ("train", tiny, "--run", "run")
    assert epg(*arguments, "steps=2", folder=tmp_path).code == 0
    assert json.loads((tmp_path / "run" / "DONE").read_text())["generations"] == 2
    assert epg(*arguments, folder=tmp_path).code == 0
    same(tmp_path / "run")


def test_a_broken_newest_checkpoint_costs_a_generation_and_no_more(
    epg: Run, tiny: Path, finished: Path, tmp_path: Path, same: Run
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "DONE").unlink()
    newest = tmp_path / "run" / "checkpoint" / "00000003.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    said = epg("train", tiny, "--run", "run", folder=tmp_path)
    assert said.code == 0 and "00000003.json: broken checkpoint" in said.out
    assert "goes on after 2 of 3" in said.out
    same(tmp_path / "run")


def test_broken_checkpoints_alone_are_refused_and_nothing_is_overwritten(
    epg: Run, tiny: Path, finished: Path, tmp_path: Path, contents: Run
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "DONE").unlink()
    for manifest in (tmp_path / "run" / "checkpoint").glob("*.json"):
        manifest.write_text("{}")
    before = contents(tmp_path)
    said = epg("train", tiny, "--run", "run", folder=tmp_path)
    assert said.code == 2 and "every checkpoint is broken" in said.err
    assert contents(tmp_path) == before


def test_an_empty_done_is_none(
    epg: Run, tiny: Path, finished: Path, tmp_path: Path, same: Run
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "DONE").write_text("")
    assert epg("train", tiny, "--run", "run", folder=tmp_path).code == 0
    same(tmp_path / "run")


def test_the_best_is_chosen_anew_where_alpha_at_the_end_is_another(
    epg: Run, tiny: Path, tmp_path: Path
) -> None:
    """α falls over four generations: stopped after two, it ends at another value."""
    arguments = (
        "train",
        tiny,
        "--run",
        "run",
        "method.alpha={start: 0.5, end: 0.0, generations: 4}",
    )
    for generations, alpha in ((2, 0.25), (4, 0.0)):
        asked = f"steps={generations}"
        assert epg(*arguments, asked, folder=tmp_path).code == 0
        best = load_saved(tmp_path / "run" / "best.safetensors")
        assert best.method().validated_as() == {"alpha": alpha}


def test_a_finished_run_says_so_and_changes_nothing(
    epg: Run, tiny: Path, finished: Path, tmp_path: Path, contents: Run
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    before = contents(tmp_path)
    said = epg("train", tiny, "--run", "run", folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    assert said.out == "run: all 3 generations were done before\n"
    assert contents(tmp_path) == before


def test_a_journal_of_another_configuration_is_refused(
    epg: Run, tiny: Path, finished: Path, tmp_path: Path, contents: Run
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    journal = tmp_path / "run" / "journal.jsonl"
    Journal(journal, "another", {}).clear()
    before = contents(tmp_path)
    said = epg("train", tiny, "--run", "run", "steps=4", folder=tmp_path)
    assert said.code == 2 and said.err.count("\n") == 1
    assert "journal.jsonl: a journal of another configuration" in said.err
    assert contents(tmp_path) == before


def test_a_loss_to_start_from(epg: Run, tiny: Path, finished: Path, tmp_path: Path) -> None:
    loss = finished / "best.safetensors"
    arguments = ("train", tiny, "--run", "run", "--from", loss, "steps=1")
    assert epg(*arguments, "method.learning_rate=1e-9", folder=tmp_path).code == 0
    theirs, ours = load_saved(loss), load_saved(tmp_path / "run" / "loss.safetensors")
    assert torch.allclose(phi(ours), phi(theirs), rtol=0, atol=1e-6)
    assert ours.config.start_from is not None
    # The same run without its loss, or with another one, is another run.
    other = finished / "loss.safetensors"
    for more in ((), ("--from", other)):
        said = epg("train", tiny, "--run", "run", *more, "method.learning_rate=1e-9",
                   folder=tmp_path)  # fmt: skip
        assert said.code == 2 and "loss of --from" in said.err


@pytest.mark.parametrize(
    "overrides",
    [
        ("method.optimizer=clipup", "method.shaping=centered_rank",
         "method.task_draw=generation", "method.mdps_per_pair=2"),
        ("task=cart-pole", "method.match_release=true", "method.start=residual",
         "learner.learning_rate=0.1"),
        ("task=random-cart-pole", "method.evolve_policy_init=true",
         "method.weight_decay=0.1", "method.sigma={start: 0.1, end: 0.01, generations: 2}"),
    ],
)  # fmt: skip
def test_other_ways_to_evolve(tiny: Path, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    """From Python: an interrupted run comes to what an undisturbed one does."""
    config = load(tiny, [*overrides, "steps=2"])
    once = load_saved(train(config, tmp_path / "once"))
    train(load(tiny, [*overrides, "steps=1"]), tmp_path / "twice")
    again = load_saved(train(config, tmp_path / "twice"))
    rows = metrics(tmp_path / "once")
    assert len(rows) == 2 and rows == metrics(tmp_path / "twice")
    assert float(rows[0]["phi_norm"]) != float(rows[1]["phi_norm"])
    newest = [phi(load_saved(tmp_path / r / "loss.safetensors")) for r in ("once", "twice")]
    assert torch.equal(*newest) and torch.isfinite(newest[0]).all()
    assert once.tasks == again.tasks == (config.task,)


def test_all_failed_moves_nothing(tiny: Path, tmp_path: Path) -> None:
    """A learning rate beyond all numbers breaks every agent: counted, and no step taken."""
    config = load(tiny, ["learner.learning_rate=1e30", "steps=1"])
    train(config, tmp_path / "run")
    (row,) = metrics(tmp_path / "run")
    assert (float(row["failures"]), row["fitness_mean"], float(row["ties"])) == (1.0, "", 1.0)
    newest = phi(load_saved(tmp_path / "run" / "loss.safetensors"))
    assert float(newest.norm()) == pytest.approx(float(row["phi_norm"]))
