"""`epg status`: where runs are, read from their directories and from SLURM's queue."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from epg.cluster import slurm
from epg.errors import UserError
from epg.runs.files import read_object
from epg.runs.lock import STALE_SECONDS
from epg.runs.metrics import number, read_rows
from epg.settings import parse_yaml
from epg.training.estimate import duration
from epg.upgrade import upgrade

RECENT = 20
"""Generations whose pace tells the time left."""


@dataclass(frozen=True)
class Status:
    """Of one run."""

    run: str
    state: str
    """waiting, running, silent, saved, failed, crashed, done, unknown"""
    generation: int = 0
    """that are done"""
    generations: int | None = None
    fitness: float | None = None
    """the mean of the last generation"""
    best_validation: float | None = None
    steps_per_second: float | None = None
    seconds_left: float | None = None
    silent_seconds: float | None = None
    """since the last sign of life"""
    job: str | None = None
    """SLURM's number"""
    queued: str | None = None
    """how SLURM has it"""
    why: str = ""


def read_status(paths: Sequence[Path]) -> list[Status]:
    """Each run, and each of those in a folder of runs. Raises `UserError` where there is none."""
    try:
        jobs = slurm.jobs(*{path.stat().st_uid for path in paths})
        runs = [(run, job) for path in paths for run, job in _runs(path).items()]
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None
    if not runs:
        raise UserError(f"{', '.join(map(str, paths))}: no run here, and no folder of runs")
    return [_try(run, job, jobs) for run, job in runs]


def _try(run: Path, job: str | None, jobs: Mapping[str, str] | None) -> Status:
    """What is wrong with one run hides no other."""
    try:
        return _status(run, job, jobs)
    except (OSError, UserError, KeyError, TypeError, ValueError) as error:
        return Status(str(run), "unknown", job=job, why=f"{type(error).__name__}: {error}")


def _runs(path: Path) -> dict[Path, str | None]:
    """Run directories, with the job that was submitted for each."""
    job, seeds = slurm.submitted(path), slurm.submitted_seeds(path)
    if (path / "config.yaml").is_file() or (job and not seeds):
        return {path: job}
    waiting = {path / f"seed-{seed}": f"{job}_{seed}" for seed in seeds}
    begun = [p for p in path.glob("*/") if (p / "config.yaml").is_file() or slurm.submitted(p)]
    found = {run: waiting.get(run) or slurm.submitted(run) for run in {*begun, *waiting}}
    return dict(sorted(found.items(), key=lambda item: _in_order(item[0])))


def _in_order(path: Path) -> tuple[str, int]:
    """seed-2 comes before seed-10."""
    name, _, number = path.name.rpartition("-")
    return (name, int(number)) if number.isdecimal() else (path.name, -1)


def _status(run: Path, submitted: str | None, jobs: Mapping[str, str] | None) -> Status:
    state = read_object(run / "state.json")
    if not state:
        queued = (jobs or {}).get(submitted or "")
        if queued or submitted is None or jobs is None:
            return Status(str(run), "waiting", job=submitted, queued=queued)
        why = f"job {submitted} ended before the run began; slurm-{submitted}.out may say why"
        return Status(str(run), "failed", job=submitted, why=why)
    job, why = state.get("job") or submitted, str(state.get("why") or "")
    if submitted is not None and submitted != job:
        if jobs is not None and submitted not in jobs:
            why = f"job {submitted} ended before the run went on; see slurm-{submitted}.out"
        job = submitted
    total = int(upgrade(parse_yaml((run / "config.yaml").read_text()))["steps"])
    rows, _ = read_rows(run / "metrics.csv")
    generation = max(len(rows), int(state.get("generation") or 0))
    silent = _silence(run)
    name = str(state["state"])
    if name == "running" and (silent is None or silent > STALE_SECONDS):
        name = "silent"
    validations = [number(row["validation"]) for row in rows]
    left = _seconds_left(rows, total - generation) if name in ("running", "silent") else None
    return Status(
        run=str(run),
        state=name,
        generation=generation,
        generations=total,
        fitness=number(rows[-1]["fitness_mean"]) if rows else None,
        best_validation=max((v for v in validations if v is not None), default=None),
        steps_per_second=number(rows[-1]["steps_per_second"]) if rows else None,
        seconds_left=left,
        silent_seconds=silent,
        job=job,
        queued=(jobs or {}).get(job or ""),
        why=why,
    )


def _seconds_left(rows: Sequence[Mapping[str, str]], generations: int) -> float | None:
    """Of so many more generations, at the pace of the last ones."""
    steps = [float(row["environment_steps"]) + float(row["validation_steps"]) for row in rows]
    paces = [float(row["steps_per_second"]) for row in rows]
    seconds = [
        (after - before) / pace
        for before, after, pace in zip([0.0, *steps], steps, paces, strict=False)
        if pace > 0
    ][-RECENT:]
    return statistics.mean(seconds) * generations if seconds else None


def _silence(run: Path) -> float | None:
    """Seconds since anything was written; a master at work touches its lock."""
    times = []
    for name in ("lock", "journal.jsonl", "state.json"):
        try:
            times.append((run / name).stat().st_mtime)
        except OSError:
            continue
    return max(0.0, time.time() - max(times)) if times else None


COLUMNS = ("run", "state", "generation", "fitness", "best", "steps/s", "left", "last sign", "job")


def table(statuses: Sequence[Status]) -> str:
    """For people: a line for each run, and under it why it ended."""
    lines = [COLUMNS, *(_cells(status) for status in statuses)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    shown = [
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    for line, status in reversed(list(enumerate(statuses, start=1))):
        if status.why:
            shown.insert(line + 1, f"  {status.why}")
    return "\n".join(shown)


def _cells(status: Status) -> tuple[str, ...]:
    def shown(value: float | None, form: str = ".4g") -> str:
        return "–" if value is None else format(value, form)

    of = "" if status.generations is None else f"/{status.generations}"
    left, silent = status.seconds_left, status.silent_seconds
    job = " ".join(part for part in (status.job, status.queued) if part)
    return (
        status.run,
        status.state,
        f"{status.generation}{of}",
        shown(status.fitness),
        shown(status.best_validation),
        shown(status.steps_per_second, ",.0f"),
        "–" if left is None else duration(left),
        "–" if silent is None else f"{duration(silent)} ago",
        job or "–",
    )
