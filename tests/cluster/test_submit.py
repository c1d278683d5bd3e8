"""`epg submit` and `epg status` where there is no SLURM: scripts, and mistakes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from epg.cluster.slurm import numbers, parse_directive, seconds_of
from epg.errors import UserError
from epg.process.launcher import installed_mpi
from epg.process.shipped import BATCH_SCRIPTS

Run = Callable[..., object]
REPOSITORY = Path(__file__).parents[2]
SUBMIT = ("submit", "config.yaml", "--tasks", "3")


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(tiny.read_text())
    return tmp_path


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--tasks", "1"), "--tasks: found 1, needed are a master and a worker"),
        (("task=nix",), "unknown name 'nix'"),
        (("method.pairs=0",), "method.pairs"),
        (("device=cuda",), "device: found cuda, but the job has no GPU; give it --gpus N"),
        (("--gpus", "2"), "found 2, but the configuration has device: cpu"),
        (("--seeds", "a-b"), "--seeds: found 'a-b', expected such as 0-9"),
        (("--seeds", "0-2", "seed=4"), "--seeds: found 0-2 and an override of seed"),
        (("--sbatch", "qos"), "--sbatch: found 'qos', expected such as --qos=long"),
        (("--run", "config.yaml"), "config.yaml: a file, expected a run directory"),
        (("--from", "nix.safetensors"), "nix.safetensors"),
        (("--launcher", ""), "--launcher: found nothing"),
        (("--launcher", "srun '"), "--launcher: found"),
        (("--sbatch=--ntasks=many",), "--tasks: found many"),
        (("--time", "tomorrow"), "--time: found 'tomorrow', allowed: minutes, or such as 24:00:00"),
        (("--sbatch=--time=1:2:3:4",), "--time: found '1:2:3:4'"),
    ],
)
def test_mistakes_are_one_line(epg: Run, folder: Path, more: tuple[str, ...], told: str) -> None:
    said = epg(*SUBMIT, *more, "--print", folder=folder)
    assert said.code == 2 and said.err.count("\n") == 1 and told in said.err, said
    assert said.out == "" and [path.name for path in folder.iterdir()] == ["config.yaml"]


def test_without_slurm_it_says_so(epg: Run, folder: Path) -> None:
    nowhere = f"import os; os.environ['PATH'] = {str(Path(sys.executable).parent)!r}"
    said = epg(*SUBMIT, folder=folder, before=nowhere)
    assert said.code == 2 and "sbatch: not found" in said.err and said.err.count("\n") == 1
    assert not (folder / "runs").exists()


def test_what_is_printed_is_what_was_asked_for(epg: Run, folder: Path) -> None:
    said = epg(
        *SUBMIT, "--print", "--run", "my runs/a", "--time", "1:00:00", "--nodes", "2",
        "--cpus", "4",
        "--partition", "p", "--account", "me", "--constraint", "icelake", "--name", "hop",
        "--setup", "module load openmpi", "--launcher", "srun --mpi=pmix", "--max-requeues", "7",
        "--sbatch=--mem=8G", "--sbatch=#SBATCH --exclusive", "method.sigma=0.2",
        folder=folder,
    )  # fmt: skip
    assert said.code == 0, said
    lines = said.out.splitlines()
    for line in (
        "#SBATCH --ntasks=3", "#SBATCH --nodes=2", "#SBATCH --cpus-per-task=4",
        "#SBATCH --time=1:00:00", "#SBATCH --account=me", "#SBATCH --constraint=icelake",
        "#SBATCH --job-name=hop", "#SBATCH --mem=8G", "#SBATCH --exclusive",
        "#SBATCH --output=%x-%j.out", "#SBATCH --partition=p",
        "module load openmpi", "run='my runs/a'", "arguments=(method.sigma=0.2)",
        "launcher='srun --mpi=pmix'", "max_requeues=7",
    ):  # fmt: skip
        assert lines.count(line) == 1, line
    assert "mem-per-cpu" not in said.out and ".venv" not in said.out.partition("PATH=")[0]
    assert "2 workers and a master; a generation has 2 units, 1 for each worker" in said.err
    hidden = f"{installed_mpi()} in this environment goes before the MPI of 'module load openmpi'"
    assert (hidden in said.err) == (installed_mpi() is not None)
    assert subprocess.run(["bash", "-n"], input=said.out, text=True).returncode == 0
    assert list(folder.iterdir()) == [folder / "config.yaml"]


def test_an_array_has_a_directory_and_a_seed_for_each(epg: Run, folder: Path) -> None:
    said = epg(*SUBMIT, "--print", "--seeds", "0-9%4", "--run", "r", folder=folder)
    assert "#SBATCH --array=0-9%4\n" in said.out
    assert 'run=r/"seed-$SLURM_ARRAY_TASK_ID"\n' in said.out
    assert 'arguments=("seed=$SLURM_ARRAY_TASK_ID")\n' in said.out
    assert "10 runs, each with 2 workers" in said.err


def test_gpus(epg: Run, folder: Path) -> None:
    said = epg(*SUBMIT, "--print", "--gpus", "4", "device=cuda", folder=folder)
    assert "#SBATCH --gpus-per-node=4\n" in said.out and "arguments=(device=cuda)\n" in said.out
    said = epg(*SUBMIT, "--print", "--sbatch=--gres=gpu:a100:4", "device=cuda", folder=folder)
    assert "#SBATCH --gres=gpu:a100:4\n" in said.out and "gpus-per-node" not in said.out


def test_numbers() -> None:
    assert numbers("0-9:3,20%4") == [0, 3, 6, 9, 20] and numbers("7") == [7]
    for wrong in ("", "1-", "3-1", "1;2", "0-9:0", "a"):
        with pytest.raises(UserError, match="--seeds"):
            numbers(wrong)


def test_directives() -> None:
    assert parse_directive("--qos=long") == ("qos", "long")
    assert parse_directive("#SBATCH --exclusive") == ("exclusive", "")
    for wrong in ("-q long", "--array=0-3", "--chdir=/scratch"):
        with pytest.raises(UserError, match="--sbatch"):
            parse_directive(wrong)


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("30", 1800), ("30:30", 1830), ("12:00:00", 43200), ("2-12", 216000), ("1-0:1", 86460),
     ("1-00:00:01", 86401), ("UNLIMITED", None), ("", None)],
)  # fmt: skip
def test_time_limits(limit: str, seconds: float | None) -> None:
    assert seconds_of(limit) == seconds


def test_a_limit_that_is_too_short_is_warned_of(epg: Run, folder: Path) -> None:
    said = epg(*SUBMIT, "--print", "--time", "3", folder=folder)
    assert said.code == 0 and "warning: a unit takes" in said.err
    assert "warning" not in epg(*SUBMIT, "--print", "--time", "10", folder=folder).err


def test_seeds_have_a_folder_of_their_own(epg: Run, finished: Path, folder: Path) -> None:
    shutil.copytree(finished, folder / "run")
    said = epg(*SUBMIT, "--print", "--run", "run", "--seeds", "0-2", folder=folder)
    assert said.code == 2 and "run: holds a run by itself; name another --run" in said.err
    shutil.copytree(finished, folder / "seeds" / "seed-2")  # it has seed 0
    said = epg(*SUBMIT, "--print", "--run", "seeds", "--seeds", "0-2", folder=folder)
    assert said.code == 2 and "seed-2: holds a run of another configuration" in said.err


def test_templates_run_alike() -> None:
    """What stands below the line is the same in all that train, and all are shell."""
    bodies = set()
    for name in ("cpu", "gpu", "array", "preemptible"):
        text = (BATCH_SCRIPTS / f"{name}.sh").read_text()
        bodies.add(text.partition("# From here on nothing needs to be changed.")[2])
    assert len(bodies) == 1 and "scontrol requeue" in bodies.pop()
    for path in BATCH_SCRIPTS.glob("*.sh"):
        assert subprocess.run(["bash", "-n", path]).returncode == 0
        assert os.access(path, os.X_OK)


def test_status_of_a_run_without_slurm(epg: Run, finished: Path, tmp_path: Path) -> None:
    said = epg("status", str(finished), folder=tmp_path)
    assert said.code == 0 and said.out.splitlines()[0].split() == [
        "run", "state", "generation", "fitness", "best", "steps/s", "left", "last", "sign", "job"
    ]  # fmt: skip
    assert "done" in said.out and "3/3" in said.out
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "DONE").unlink()
    (run / "state.json").write_text('{"state": "running", "generation": 2}')
    cut = (run / "metrics.csv").read_bytes()[:-20]
    for content in (cut, b""):
        (run / "metrics.csv").write_bytes(content)
        said = epg("status", ".", folder=tmp_path)
        assert said.code == 0 and " running " in said.out, said
    (run / "metrics.csv").unlink()
    assert epg("status", "run", folder=tmp_path).code == 0
    (run / "config.yaml").write_text("broken: [")
    said = epg("status", "run", str(finished), folder=tmp_path)
    assert said.code == 0 and " unknown " in said.out and " done " in said.out, said
    shutil.rmtree(run)
    nothing = epg("status", ".", folder=tmp_path)
    assert nothing.code == 2 and nothing.err == "epg: .: no run here, and no folder of runs\n"
    nothing = epg("status", "nix", folder=tmp_path)
    assert nothing.code == 2 and nothing.err == "epg: nix: No such file or directory\n"


def test_status_of_a_run_of_an_earlier_version(epg: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(REPOSITORY / "results" / "shared-skill" / "config.yaml", run)
    (run / "state.json").write_text('{"state": "done", "generation": 40}')
    said = epg("status", "run", folder=tmp_path)
    assert said.code == 0 and " done " in said.out and " 40/40 " in said.out, said
