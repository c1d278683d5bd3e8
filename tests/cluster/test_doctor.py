"""`epg doctor`: what it says of this machine, and of one with a launcher of another MPI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch

from epg.process.launcher import installed_mpi

Run = Callable[..., object]


def test_this_machine_can_run(
    command: Run, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Where an MPI of the site's stands behind the environment's own, that is remarked."""
    site = tmp_path_factory.mktemp("site")
    (site / "mpirun").write_text("#!/bin/sh\nexit 1\n")
    (site / "mpirun").chmod(0o755)
    said = command("sh", "-c", f"PATH=$PATH:{site} epg doctor --json", folder=tmp_path)
    assert said.code == 0, said
    *lines, last = said.out.splitlines()
    found = json.loads(last)
    assert found["ok"] is True
    by_name = {finding["name"]: finding for finding in found["findings"]}
    assert f"numpy {numpy.__version__}" in by_name["package"]["found"]
    assert by_name["torch"]["found"].startswith(torch.__version__)
    assert f"{len(os.sched_getaffinity(0))} cores" in by_name["processor"]["found"]
    assert "starts 2 ranks that see each other" in by_name["mpirun"]["found"]
    hidden = "in this environment goes before "
    assert (hidden in by_name["mpirun"]["advice"]) == (installed_mpi() is not None)
    assert str(tmp_path) in by_name["disk"]["found"] and "ms" in by_name["disk"]["found"]
    for name in by_name:
        assert any(line.startswith(name) for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_a_launcher_of_another_mpi_is_found_out(tmp_path: Path) -> None:
    """It starts as many processes as it is asked for, each alone in its world."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.symlink_to(sys.executable)
    mpirun = tmp_path / "bin" / "mpirun"
    mpirun.write_text('#!/bin/sh\nshift 2\n"$@"\n"$@"\n')
    mpirun.chmod(0o755)
    packages = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    here = str(Path(__file__).parents[2])
    library = next(Path(sys.prefix, "lib").glob("libmpi.so.*"))
    environment = os.environ | {
        "PYTHONPATH": f"{here}{os.pathsep}{packages}",
        "MPI4PY_LIBMPI": str(library),
    }
    said = subprocess.run(
        [python, "-m", "epg", "doctor"], cwd=tmp_path, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 1, said
    assert "2 ranks that do not see each other" in said.stdout, said.stdout
    assert "do not belong together" in said.stdout and "FAILS" in said.stdout


def test_a_folder_that_is_not_there(command: Run, tmp_path: Path) -> None:
    said = command("epg", "doctor", "nowhere", folder=tmp_path)
    assert said.code == 2 and said.err.count("\n") == 1 and "nowhere" in said.err
