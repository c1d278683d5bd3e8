"""From submission to a finished loss, in a real SLURM."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from slurm.site import Login

SLOW = {"TROUBLE_SECONDS": "0.15"}
"""A run takes some twenty seconds, so that there is time to disturb it."""


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory, epg: Callable[..., Any]) -> Path:
    """The same run in one process, without SLURM."""
    login = Login(tmp_path_factory.mktemp("twin"), epg)
    said = login.epg("train", "config.yaml", "--run", "runs/one")
    assert said.code == 0, said
    return login.run


def check_same(run: Path, twin: Path) -> None:
    """Fails unless a run has come to its twin's losses, each generation once."""
    assert (run / "DONE").exists()
    for name in ("loss.safetensors", "best.safetensors"):
        ours, theirs = load_file(run / name), load_file(twin / name)
        assert {k: v.numpy().tobytes() for k, v in ours.items()} == {
            k: v.numpy().tobytes() for k, v in theirs.items()
        }
    with open(run / "metrics.csv", newline="") as file:
        assert [row["generation"] for row in csv.DictReader(file)] == ["0", "1", "2"]


def test_from_submission_to_the_loss(login: Login, twin: Path) -> None:
    said = login.epg("submit", "config.yaml", "--run", "runs/one", "--tasks", "3", "--name", "hop")
    assert said.code == 0, said
    assert "2 workers and a master; a generation has 10 units, 5 for each worker" in said.out
    assert re.search(r"a generation takes about \d+ s", said.out)
    job = login.note(re.search(r"job (\d+) is queued", said.out)[1])  # type: ignore[index]
    login.wait_for_end(job)
    check_same(login.run, twin)
    assert login.read_state()["job"] == job
    assert "#SBATCH --job-name=hop\n" in (login.run / "job.sh").read_text()
    assert (login.run / f"slurm-{job}.out").exists()
    again = login.epg("submit", "config.yaml", "--run", "runs/one", "--tasks", "3")
    assert again.code == 2
    assert "runs/one: all 3 generations were done before" in again.err


@pytest.mark.soak  # SLURM's notice comes a minute before at the earliest
def test_the_time_limit_comes_first(login: Login, twin: Path) -> None:
    """USR1 comes before it; the job is requeued, and goes on to the same loss."""
    stuck = {"TROUBLE": '{"1": "sleep"}', "TROUBLE_ONCE": str(login.folder)}  # in its first start
    limit = ("--time", "2", "--sbatch=--signal=B:USR1@50")  # it comes up to a minute earlier
    job = login.submit("farm.least_deadline=600", *limit, **stuck)
    login.wait_for(lambda: "Restarts=1" in login.told(job), job)
    assert login.read_state().get("why") in ("SIGUSR1", None)  # None: before the ranks were up
    assert not (login.run / "DONE").exists()
    login.wait_for(lambda: login.state(job) == "PENDING", job)
    said = login.epg("status", "runs/one").out
    assert re.search(rf"runs/one +(saved|waiting) .* {job} PENDING \(BeginTime\)", said), said
    twice = login.epg("submit", "config.yaml", "--run", "runs/one", "--tasks", "3")
    assert twice.code == 2 and f"job {job} is at it, or waits" in twice.err
    login.see_through(job)
    check_same(login.run, twin)


@pytest.mark.soak  # what it is told is what USR1 says in the tests before and below
def test_a_higher_partition_preempts_it(login: Login, twin: Path) -> None:
    job = login.submit(**SLOW)
    login.wait_for(lambda: login.units() > 2, job)
    other = login.type(
        "sbatch", "--parsable", "--partition=high", "--exclusive", "--wrap=sleep 3",
        "--output=/dev/null",
    )  # fmt: skip
    urgent = login.note(other.stdout.strip())
    login.wait_for_end(urgent)
    assert login.read_state()["state"] == "saved"
    login.see_through(job)
    check_same(login.run, twin)


def test_no_more_requeues_than_allowed_and_later_submissions(login: Login, twin: Path) -> None:
    job = login.submit("--max-requeues", "0", **SLOW)
    login.wait_for(lambda: login.units() > 2, job)
    login.type("scancel", "--signal=USR1", "--batch", job)
    login.wait_for_end(job, "FAILED")
    assert login.read_state()["state"] == "saved"
    assert "ExitCode=75:0" in login.told(job)
    units = login.units()
    job = login.submit(**SLOW)  # the same again goes on
    login.wait_for(lambda: login.units() != units, job)
    row = login.status()
    assert (row["state"], row["job"], row["queued"]) == ("running", job, "RUNNING")
    assert row["silent_seconds"] is not None and row["generations"] == 3
    login.type("scancel", job)
    login.wait_for_end(job, "CANCELLED")
    assert not (login.run / "DONE").exists()
    login.wait_for_end(login.submit())
    check_same(login.run, twin)
    assert "goes on" in login.said() or login.read_state()["generation"] == 3


@pytest.mark.soak  # as without SLURM, in tests/accidents
def test_a_kill_within_the_job(login: Login, twin: Path) -> None:
    """The supervisor starts the ranks again, in the same job."""
    job = login.submit(**SLOW)
    login.wait_for(lambda: login.units() > 2, job)
    os.kill(login.master(), signal.SIGKILL)
    login.wait_for_end(job)
    assert "again in" in login.said()
    check_same(login.run, twin)


def test_an_array_of_seeds(login: Login, twin: Path) -> None:
    job = login.submit("--seeds", "0-1", "--name", "seeds")
    for seed in range(2):
        login.wait_for(lambda s=seed: (login.run / f"seed-{s}" / "DONE").exists(), job)  # type: ignore[misc]
    login.wait_for_end(job)
    check_same(login.run / "seed-0", twin)
    losses = [load_file(login.run / f"seed-{seed}" / "loss.safetensors") for seed in range(2)]
    assert len({next(iter(loss.values())).numpy().tobytes() for loss in losses}) == 2
    said = login.epg("status", "runs/one", "--json")
    rows = json.loads(said.out.splitlines()[-1])["runs"]
    assert [row["run"] for row in rows] == [f"runs/one/seed-{seed}" for seed in range(2)]
    assert {(row["state"], row["generation"], row["queued"]) for row in rows} == {("done", 3, None)}
    assert [row["job"] for row in rows] == [f"{job}_{seed}" for seed in range(2)]
    found = [str(path) for path in sorted(login.run.glob("seed-*/best.safetensors"))]
    judged = login.epg(
        "evaluate", *(os.path.relpath(path, login.folder) for path in found),
        "--task", "trouble:Trouble", "--lifetimes", "4", "--methods", "random",
    )  # fmt: skip
    assert judged.code == 0, judged
    assert all(f"seed-{seed}" in judged.out for seed in range(2)), judged.out


def test_srun_starts_the_ranks(login: Login, twin: Path) -> None:
    job = login.submit("--launcher", "srun --mpi=pmi2", **SLOW)
    login.wait_for(lambda: login.units() > 2, job)
    login.type("scancel", "--signal=USR1", "--batch", job)
    login.see_through(job)
    check_same(login.run, twin)


def test_the_wrong_mpi_of_srun_is_refused(login: Login) -> None:
    """Instead of two runs side by side."""
    job = login.submit("--launcher", "srun --mpi=none")
    login.wait_for_end(job, "FAILED")
    said = login.said()
    assert said.count("the launcher started 2 ranks, but MPI sees 1") == 1, said
    assert "--mpi=pmi2 for MPICH" in said and "again in" not in said
    assert not (login.run / "config.yaml").exists()
    row = login.status()
    assert row["state"] == "failed" and f"slurm-{job}.out" in row["why"]


@pytest.mark.parametrize(
    "launcher",
    [pytest.param("mpirun -n 5", marks=pytest.mark.soak), "srun --mpi=pmi2 -n 5"],
)
def test_workers_take_the_gpus_in_turn(login: Login, launcher: str) -> None:
    """SLURM's two GPUs of this job, its second and third here, and five ranks."""
    (login.folder / "seats.py").write_text(
        "import time\n"
        "from epg.farm.gpu import gpu_of, visible_gpus\n"
        "from epg.farm.mpi import connect\n"
        "world, seat = connect()\n"
        "gpu = gpu_of(seat, 'cuda') if seat >= 0 else None\n"
        "found = world.gather((world.rank, gpu, gpu_of(seat, 'cpu'), visible_gpus()))\n"
        "if world.rank == 0: open('seats', 'w').write(repr(found))\n"
    )
    job = login.type(
        "sbatch", "--parsable", "--ntasks=5", "--gpus-per-node=2", "--output=seats-%j.out",
        f"--wrap={launcher} python seats.py",
    )  # fmt: skip
    login.wait_for_end(login.note(job.stdout.strip()))
    both = ["0", "1"]
    assert eval((login.folder / "seats").read_text()) == [
        (0, None, None, both), (1, "0", None, both), (2, "1", None, both),
        (3, "0", None, both), (4, "1", None, both),
    ]  # fmt: skip


def test_a_template_edited_by_hand(login: Login, twin: Path) -> None:
    template = Path(__file__).parents[2] / "mpi_launch" / "slurm" / "preemptible.sh"
    text = template.read_text()
    for old, new in (
        ("#SBATCH --partition=preemptible", "#SBATCH --partition=low"),
        ("config=configs/random-hopper.yaml", "config=config.yaml"),
        ('run="runs/random-hopper"', 'run="runs/one"'),
        ("source .venv/bin/activate", "true"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (login.folder / "mine.sh").write_text(text)
    job = login.note(login.type("sbatch", "--parsable", "mine.sh").stdout.strip())
    login.wait_for_end(job)
    check_same(login.run, twin)


@pytest.mark.soak  # what `submit` writes itself is what it prints
def test_a_printed_script_is_submitted_by_hand(login: Login, twin: Path) -> None:
    said = login.epg("submit", "config.yaml", "--run", "runs/one", "--tasks", "2", "--print")
    (login.folder / "mine.sh").write_text(said.out)
    job = login.note(login.type("sbatch", "--parsable", "mine.sh").stdout.strip())
    login.wait_for_end(job)
    assert (login.folder / f"one-{job}.out").exists()
    check_same(login.run, twin)


def test_nothing_is_queued_that_cannot_run(login: Login) -> None:
    said = login.epg(
        "submit", "config.yaml", "--run", "runs/one", "--tasks", "3", "--partition", "nope"
    )
    assert said.code == 2 and said.err.count("\n") == 1, said
    assert "epg: sbatch: invalid partition specified: nope" in said.err
    assert not (login.folder / "runs").exists()
    said = login.epg("submit", "config.yaml", "--run", "/proc/runs/one", "--tasks", "3")
    assert said.code == 2 and said.err.count("\n") == 1, said
    assert "/proc/runs/one: cannot be written" in said.err
    assert login.type("squeue", "--noheader").stdout == ""
