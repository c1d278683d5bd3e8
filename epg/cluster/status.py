"""`epg status`: where runs are, read from their directories and from SLURM's queue."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from epg.cluster.squeue import jobs as jobs_of
from epg.errors import UserError
from epg.process.progress import duration
from epg.runs.files import read_bytes, read_object, unseal
from epg.runs.lock import STALE_SECONDS
from epg.runs.metrics import FILE, Cells, number, read_newest, read_rows
from epg.runs.submission import submitted as submission
from epg.upgrade import upgrade

RUNS = Path("runs")
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


def read_status(paths: Sequence[Path] = ()) -> list[Status]:
    """Each run, and each of those in a folder of runs; of the folders in runs/ if none is named.

    Raises `UserError` where there is none.
    """
    if not paths and not (paths := sorted(path for path in RUNS.glob("*/") if path.is_dir())):
        raise UserError(f"{RUNS}: no runs here; name run directories, or folders of them")
    try:
        jobs = jobs_of(*{path.stat().st_uid for path in paths})
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
    except Exception as error:  # whatever its files hold
        return Status(str(run), "unknown", job=job, why=f"{type(error).__name__}: {error}")


def _runs(path: Path) -> dict[Path, str | None]:
    """Run directories, with the job that was submitted for each."""
    job, seeds = submission(path)
    if (path / "config.yaml").is_file() or (job and not seeds):
        return {path: job}
    found: dict[Path, str | None] = {path / f"seed-{seed}": f"{job}_{seed}" for seed in seeds}
    for run in path.glob("*/"):
        with suppress(PermissionError):  # somebody else's hides no other
            own, _ = submission(run)
            if own or (run / "config.yaml").is_file():
                found.setdefault(run, own)
    return dict(sorted(found.items(), key=lambda item: _in_order(item[0])))


def _in_order(path: Path) -> tuple[str, int]:
    """seed-2 comes before seed-10."""
    name, _, number = path.name.rpartition("-")
    return (name, int(number)) if number.isdecimal() else (path.name, -1)


def _status(run: Path, submitted: str | None, jobs: Mapping[str, str] | None) -> Status:
    state = read_object(run / "state.json")
    if not state and (run / FILE).exists():
        return _of_a_copy(run)
    if not state:
        queued = (jobs or {}).get(submitted or "")
        if queued or submitted is None or jobs is None:
            return Status(str(run), "waiting", job=submitted, queued=queued)
        why = f"job {submitted} ended before the run began; slurm-{submitted}.out may say why"
        return Status(str(run), "failed", job=submitted, why=why)
    job, why = str(state.get("job") or "") or submitted, str(state.get("why") or "")
    if submitted is not None and submitted != job:
        if jobs is not None and submitted not in jobs:
            why = f"job {submitted} ended before the run went on; see slurm-{submitted}.out"
        job = submitted
    total = int(state.get("generations") or _configured(run))
    rows = read_newest(run / FILE, RECENT + 1)
    generation = max(_done(rows), int(state.get("generation") or 0))
    silent = _silence(run)
    name = str(state["state"])
    if name == "running" and (silent is None or silent > STALE_SECONDS):
        name = "silent"
    left = _seconds_left(rows, total - generation) if name in ("running", "silent") else None
    return Status(
        run=str(run),
        state=name,
        generation=generation,
        generations=total,
        fitness=number(rows[-1]["fitness_mean"]) if rows else None,
        best_validation=_best(run),
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
    if rows and int(rows[0]["generation"]) == 0:
        steps.insert(0, 0.0)
    else:  # how many its first one took is not known
        rows = rows[1:]
    paces = [float(row["steps_per_second"]) for row in rows]
    seconds = [
        (after - before) / pace
        for before, after, pace in zip(steps, steps[1:], paces, strict=False)
        if pace > 0
    ][-RECENT:]
    left = statistics.mean(seconds) * generations if seconds else math.nan
    return left if math.isfinite(left) else None


def _configured(run: Path) -> int:
    """Its generations, where they stand in the configuration alone."""
    from epg.config import read  # with all that a configuration may choose: torch, too

    path = run / "config.yaml"
    if not path.is_file():
        raise UserError(f"{path}: not a file")
    return int(upgrade(read(path))["steps"])


def _done(rows: Sequence[Cells]) -> int:
    """Generations that are."""
    return int(rows[-1]["generation"]) + 1 if rows else 0


def _best(run: Path) -> float | None:
    """As the newest checkpoint has it: the validation of what was learned last is there, too."""
    for path in sorted((run / "checkpoint").glob("*.json"), reverse=True):
        try:
            best = unseal(read_bytes(path))["totals"]["best_validation"]
            return None if best is None else float(best)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    rows, _ = read_rows(run / FILE)
    return max((v for row in rows if (v := number(row["validation"])) is not None), default=None)


def _of_a_copy(run: Path) -> Status:
    """A run of which the results were kept, and nothing by which it could go on."""
    rows, total = read_newest(run / FILE, 1), _configured(run)
    return Status(
        run=str(run),
        state="done" if _done(rows) >= total else "unknown",
        generation=_done(rows),
        generations=total,
        fitness=number(rows[-1]["fitness_mean"]) if rows else None,
        best_validation=_best(run),
        steps_per_second=number(rows[-1]["steps_per_second"]) if rows else None,
        why="" if _done(rows) >= total else "it has no state.json",
    )


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
