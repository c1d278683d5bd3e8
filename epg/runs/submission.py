"""What `epg submit` leaves in a run directory, or in the folder of an array."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from epg.runs.files import read_object, write_durably

SUBMITTED_SCRIPT, SUBMISSION = "job.sh", "job.json"


def write_submission(folder: Path, job: str, seeds: Sequence[int] | None, script: str) -> None:
    """Leave word of a job; seeds: those of an array. Raises OSError."""
    record = {"job": job, "seeds": seeds}
    write_durably(folder / SUBMISSION, (json.dumps(record) + "\n").encode())
    write_durably(folder / SUBMITTED_SCRIPT, script.encode())


def submitted(folder: Path) -> tuple[str | None, list[int]]:
    """The number of the job that was submitted there, and the seeds if it is an array."""
    record = read_object(folder / SUBMISSION)
    job, seeds = record.get("job"), record.get("seeds")
    return (
        job if isinstance(job, str) else None,
        [seed for seed in seeds if isinstance(seed, int)] if isinstance(seeds, list) else [],
    )
