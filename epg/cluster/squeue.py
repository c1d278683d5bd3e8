"""What stands in SLURM's queue."""

from __future__ import annotations

import os
import shutil
import subprocess


def jobs(*owners: int) -> dict[str, str] | None:
    """Of some users, or of this one: state and reason, by number.

    That is 12, or in an array 12_3. None if SLURM does not answer.
    """
    if shutil.which("squeue") is None:
        return None
    users = ",".join(str(owner) for owner in owners or [os.getuid()])
    how = ("--noheader", "--all", "--array", "--format=%i|%T|%r")
    command = ["squeue", *how, f"--user={users}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        return None
    found = {}
    for line in result.stdout.splitlines():
        number, state, reason = line.strip().split("|", 2)
        found[number] = state if reason in ("None", "") else f"{state} ({reason})"
    return found
