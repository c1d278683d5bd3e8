"""`epg submit`: a batch script from the templates in `mpi_launch`, checked before it queues."""

from __future__ import annotations

import math
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from epg import tasks
from epg.cluster.squeue import jobs
from epg.cluster.supervisor import parse_launcher
from epg.config import Config, load
from epg.errors import RunError, UserError
from epg.evaluation.tuned import with_scales
from epg.farm.serial import SerialFarm
from epg.farm.work import Shared
from epg.methods.base import Method, make_method
from epg.process.launcher import installed_mpi
from epg.process.progress import duration
from epg.process.shipped import BATCH_SCRIPTS
from epg.runs.directory import RunDirectory
from epg.runs.submission import submitted, write_submission
from epg.training.estimate import TrialError, estimate
from epg.training.loop import digest, starting_params
from epg.training.runner import TrainingRunner
from epg.training.tensorboard import check_tensorboard

SEEDS = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?::([0-9]{1,9}))?)?")
"""A part of an array: 7, 0-9, or every third of 0-9:3."""
DIRECTIVE = re.compile(r"#SBATCH --([a-z-]+)(=.*)?")
LIMIT = re.compile(r"(?i)([0-9]+-)?[0-9]+(:[0-9]+){0,2}|infinite|unlimited")
"""Times as sbatch takes them."""
LOADS_MPI = re.compile(r"(?i)\s*(module|ml|spack)\s.*(mpi|mvapich|hpcx)")
"""A line of shell that makes a site's MPI available."""
OURS = {
    "array": "--seeds",
    "wrap": "a script of your own",
    "chdir": "another folder to submit from",
}
"""Options of sbatch that would break the script, and what to use instead."""
MOST_SEEDS = 100_000
WARNING_SECONDS = 180.0
"""SLURM's notice comes so long before the time limit, at the earliest."""
MEMORY = ("mem", "mem-per-cpu", "mem-per-gpu")
GPUS = ("gpus", "gpus-per-node", "gpus-per-task", "gres")


@dataclass(frozen=True)
class Job:
    """What is to be queued."""

    config: Path
    overrides: Sequence[str]
    run: Path
    """the run directory; with seeds the folder of theirs"""
    start_from: Path | None = None
    launcher: str = "mpirun"
    setup: Sequence[str] = ()
    """lines of shell that make MPI available"""
    seeds: str | None = None
    """as SLURM writes arrays: 0-9, 1,5,7, 0-99%4"""
    max_requeues: int = 100
    directives: Mapping[str, str] = field(default_factory=dict)
    """sbatch's options, by their long names"""

    def runs(self, config: Config) -> dict[Path, Config]:
        """Each run directory, with its configuration."""
        if self.seeds is None:
            return {self.run: with_scales(config)}
        return {
            run: with_scales(config.model_copy(update={"seed": seed}))
            for seed, run in seed_runs(self.run, self.seeds, self.overrides).items()
        }

    @property
    def tasks(self) -> int:
        """Ranks of a run. Raises `UserError`."""
        text = self.directives["ntasks"]
        if not text.isdecimal() or int(text) < 2:
            raise UserError(f"--tasks: found {text}, needed are a master and a worker at least")
        return int(text)


def seed_runs(run: Path, seeds: str, overrides: Sequence[str]) -> dict[int, Path]:
    """The run directory of each seed, in a folder of theirs. Raises `UserError`."""
    if any(text.startswith("seed=") for text in overrides):
        raise UserError(f"--seeds: found {seeds} and an override of seed; give one of them")
    if (run / "config.yaml").exists():
        raise UserError(f"{run}: holds a run by itself; name another --run for the seeds")
    return {seed: run / f"seed-{seed}" for seed in numbers(seeds)}


def numbers(seeds: str) -> list[int]:
    """0-9:3,20%4 are 0, 3, 6, 9 and 20. Raises `UserError`."""
    found: list[int] = []
    listed, _, at_once = seeds.partition("%")
    well_said = "%" not in seeds or (at_once.isascii() and at_once.isdecimal())
    for part in listed.split(","):
        bounds = SEEDS.fullmatch(part) if well_said else None
        first, last, step = (int(n or 0) for n in bounds.groups()) if bounds else (0, 0, 0)
        wrong = not bounds or (bounds[2] and last < first) or (bounds[3] and not step)
        if wrong or last - first > MOST_SEEDS:
            raise UserError(f"--seeds: found {seeds!r}, expected such as 0-9, 1,5,7 or 0-99%4")
        found += range(first, max(first, last) + 1, step or 1)
    return found


def script(job: Job, arguments: Sequence[str], log_in_run: bool) -> str:
    """The batch script; `arguments` are those of the command that asked for it.

    log_in_run: the folder `job.run` will be there, which SLURM does not make.
    """
    gpus = any(name in job.directives for name in GPUS)
    kind = "array" if job.seeds else "gpu" if gpus else "cpu"
    seed = "$SLURM_ARRAY_TASK_ID"
    words = [shlex.quote(word) for word in job.overrides]
    run = shlex.quote(str(job.run))
    log = f"{job.run}/slurm-%j.out"
    directives = dict(job.directives)
    if job.start_from is not None:
        words = ["--from", shlex.quote(str(job.start_from)), *words]
    if job.seeds:
        directives["array"] = job.seeds
        words.append(f'"seed={seed}"')
        run, log = f'{run}/"seed-{seed}"', f"{job.run}/slurm-%A_%a.out"
    variables = {
        "config": shlex.quote(str(job.config)),
        "run": run,
        "arguments": f"({' '.join(words)})",
        "launcher": shlex.quote(job.launcher),
        "max_requeues": str(job.max_requeues),
    }
    setup = [*job.setup, f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"']
    title = "# Written by: " + " ".join(shlex.join(["epg", *arguments]).split())
    template = (BATCH_SCRIPTS / f"{kind}.sh").read_text(encoding="utf-8")
    if log_in_run:
        directives = {"output": log, **directives}
    return render(template, title, directives, variables, setup)


def render(
    template: str,
    title: str,
    directives: Mapping[str, str],
    variables: Mapping[str, str],
    setup: Sequence[str],
) -> str:
    """A template with other values, in the places where it has some, and new ones after them."""
    head, rest = template.split("\n\n", 1)
    lines = [head.splitlines()[0], title, ""]
    left = dict(directives)
    dropped = [
        name for one_of in (MEMORY, GPUS) if set(one_of) & set(left) for name in one_of
        if name not in left
    ]  # fmt: skip
    last_directive = 0
    in_setup = False
    for line in rest.splitlines():
        directive = DIRECTIVE.fullmatch(line)
        name, is_set, _ = line.partition("=")
        if directive and directive[1] in dropped:
            continue
        if directive and directive[1] in left:
            line = _directive(directive[1], left.pop(directive[1]))
        elif is_set and name in variables:
            line = f"{name}={variables[name]}"
        if line == "# setup: end":
            lines += setup
            in_setup = False
        if not in_setup:
            lines.append(line)
        if line == "# setup: begin":
            in_setup = True
        if directive:
            last_directive = len(lines)
    lines[last_directive:last_directive] = [_directive(n, v) for n, v in left.items()]
    return "\n".join(lines) + "\n"


def _directive(name: str, value: str) -> str:
    if not value.isprintable():
        raise UserError(f"--{name}: found {value!r}, allowed: one line of plain characters")
    quoted = f'"{value}"' if " " in value else value
    return f"#SBATCH --{name}={quoted}" if value else f"#SBATCH --{name}"


def parse_directive(text: str) -> tuple[str, str]:
    """`--name=value` or `--name`, with or without #SBATCH. Raises `UserError`."""
    found = re.fullmatch(r"(?:#SBATCH\s+)?--([a-z][a-z-]*)(?:[=\s]\s*(.+))?", text.strip())
    if not found:
        raise UserError(f"--sbatch: found {text!r}, expected such as --qos=long")
    if found[1] in OURS:
        raise UserError(f"--sbatch: found --{found[1]}; use {OURS[found[1]]} instead")
    return found[1], (found[2] or "").strip()


def seconds_of(limit: str) -> float | None:
    """A time limit as sbatch writes it: 30, 30:00, 12:00:00, 2-12, 2-12:00:00; None if none."""
    days, dash, rest = limit.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdecimal() for part in [*parts, days or "0"]) or len(parts) > 3:
        return None
    hours = [int(part) for part in parts]
    if not dash and len(parts) < 3:  # minutes, or minutes and seconds
        hours = [0, *hours]
    hours += [0] * (3 - len(hours))
    return int(days or 0) * 86400.0 + hours[0] * 3600 + hours[1] * 60 + hours[2]


def submit(job: Job, arguments: Sequence[str], show: bool) -> None:
    """Check a job, say what it will be, and queue it; or show its script alone.

    arguments: those of the command. Raises `UserError` for what would fail in the queue.
    """
    if job.seeds is not None:
        seed_runs(job.run, job.seeds, job.overrides)
    config = load(job.config, job.overrides)
    scaled = with_scales(config)
    method = make_method(scaled, tasks.make(scaled.task))
    units = len(list(method.workload(0).units()))
    usual = {"job-name": job.run.resolve().name, "ntasks": str(1 + units),
             "cpus-per-task": str(config.threads)}  # fmt: skip
    job = replace(job, directives={**usual, **job.directives})
    words = sys.stderr if show else sys.stdout
    if not show:
        check_queue(job)
    try:
        check(job, config, method)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None
    for line in (*mpi_warnings(job), *plan(job, config, units)):
        print(line, file=words, flush=True)
    text = script(job, arguments, log_in_run=not show)
    if show:
        print(text, end="")
        return
    number = queue(job, text)
    print(f"{job.run}: job {number} is queued; epg status {job.run} tells of it")


def check_queue(job: Job) -> None:
    """Raise `UserError` if there is no queue, or the run has a job in it."""
    if shutil.which("sbatch") is None:
        raise UserError(
            "sbatch: not found: this is no machine of a SLURM cluster; --print shows the script"
        )
    waiting, _ = submitted(job.run)
    if waiting is not None and any(name.partition("_")[0] == waiting for name in jobs() or ()):
        raise UserError(
            f"{job.run}: job {waiting} is at it, or waits in the queue; scancel {waiting} ends it"
        )


def check(job: Job, config: Config, method: Method) -> None:
    """Raise `UserError` for what would fail in the queue."""
    for name, value in job.directives.items():
        _directive(name, value)
    limit = job.directives.get("time")
    if limit is not None and not LIMIT.fullmatch(limit):
        raise UserError(
            f"--time: found {limit!r}, allowed: minutes, or such as 24:00:00, 2-12 (days-hours), "
            "2-12:30:00 or UNLIMITED"
        )
    parse_launcher(job.launcher)
    check_tensorboard(config.log.tensorboard)
    gpus = [name for name in GPUS if name in job.directives]
    if config.device != "cpu" and not gpus:
        raise UserError(f"device: found {config.device}, but the job has no GPU; give it --gpus N")
    if config.device == "cpu" and gpus:
        raise UserError(
            f"--{gpus[0]}: found {job.directives[gpus[0]]}, but the configuration has device: cpu; "
            "add device=cuda"
        )
    if job.start_from is not None or config.start_from is not None:
        starting_params(method, job.start_from)
    if job.start_from is not None:
        config = config.model_copy(update={"start_from": digest(job.start_from)})
    directories = [
        RunDirectory(run, each, method.metrics, method.validated_as())
        for run, each in job.runs(config).items()
    ]
    if all(directory.done for directory in directories):
        total = config.steps
        raise UserError(
            f"{job.run}: all {total} generations were done before; more of them: steps=N"
        )


def mpi_warnings(job: Job) -> Iterator[str]:
    """What hides the MPI that a line of its setup makes available."""
    installed = installed_mpi()
    for line in job.setup:
        if installed and LOADS_MPI.match(line):
            yield (
                f"warning: {installed} in this environment goes before the MPI of {line!r}; "
                "uninstall it to use the site's"
            )


def plan(job: Job, config: Config, units: int) -> Iterator[str]:
    """What each rank has to do, and how long that should take."""
    workers = job.tasks - 1
    each = math.ceil(units / workers)
    runs = f"{len(numbers(job.seeds))} runs, each with " if job.seeds else ""
    yield (
        f"{runs}{workers} workers and a master; a generation has {units} units, "
        f"{each} for each worker" + f" ({workers - units} workers have none)" * (workers > units)
    )
    kind, _, gpu = config.device.partition(":")
    if kind == "cuda" and int(gpu or 0) >= torch.cuda.device_count():
        yield "no estimate of the time: no such GPU on this machine"
        return
    runner = TrainingRunner(with_scales(config))
    runner.method.begin(runner.method.init())
    shared = Shared(0, runner.method.shared(0))
    try:
        cost = estimate(SerialFarm(runner), workers, runner.method, shared, 0)
    except TrialError as error:
        raise UserError(f"{job.config}: a trial on this machine failed: {error}") from None
    yield f"a generation takes about {duration(each * cost.unit_seconds)}, as timed here"
    yield cost.line()
    limit = seconds_of(job.directives.get("time", ""))
    if limit is not None and cost.unit_seconds > limit - WARNING_SECONDS:
        yield (
            f"warning: a unit takes {duration(cost.unit_seconds)}, the job is told to end after "
            f"{duration(max(0.0, limit - WARNING_SECONDS))}: none may ever be finished; a smaller "
            "farm.chunk or a longer --time mends it"
        )


def queue(job: Job, text: str) -> str:
    """Submit a script, and leave word of it in the run directory. The job's number.

    Raises `UserError` with SLURM's words; then nothing is left behind.
    """
    made = _make(job.run)
    result = _run(["sbatch", "--parsable"], text)
    if result.returncode:
        for folder in made:
            folder.rmdir()
        words = [line.removeprefix("sbatch: error: ") for line in result.stderr.splitlines()]
        raise UserError(f"sbatch: {'; '.join(words)}")
    number = result.stdout.strip().partition(";")[0]
    seeds = numbers(job.seeds) if job.seeds else None
    try:
        write_submission(job.run, number, seeds, text)
    except OSError as error:
        why = f"{error.filename}: {error.strerror}"
        raise RunError(f"job {number} is queued, but that could not be noted: {why}") from None
    return number


def _make(folder: Path) -> list[Path]:
    """Make a folder that can be written into; the folders that are new, the deepest first."""
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
    return missing


def _run(command: list[str], words: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=words, capture_output=True, text=True, check=False)
