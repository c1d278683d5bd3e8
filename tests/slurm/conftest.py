"""A real SLURM of one node, started for the tests; needs root, slurm-wlm and munge."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from slurm.site import Login

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One cluster, so one test process; it waits more than it works, so it begins at once."""
    here = [item for item in items if FOLDER in item.path.parents]
    for item in here:
        item.add_marker(pytest.mark.xdist_group("slurm"))
    items.sort(key=lambda item: item not in here)


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """SLURM's commands talk to a cluster of our own."""
    missing = [
        name for name in ("sbatch", "slurmctld", "slurmd", "munged") if not shutil.which(name)
    ]
    if os.getuid() != 0:
        missing.append("root")
    if missing:
        why = f"SLURM cannot be started here: {', '.join(missing)} missing"
        if os.environ.get("EPG_TESTS_NEED_SLURM"):
            pytest.fail(why)
        pytest.skip(why)
    folder = tempfile.mkdtemp(prefix="slurm-")  # its sockets must have short names
    started = subprocess.run([FOLDER / "start.sh", folder], capture_output=True, text=True)
    assert started.returncode == 0, started
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = f"{folder}/slurm.conf"
    yield
    subprocess.run([FOLDER / "stop.sh", folder], check=True)
    os.environ.pop("SLURM_CONF")
    if before is not None:
        os.environ["SLURM_CONF"] = before
    shutil.rmtree(folder)


@pytest.fixture
def login(cluster: None, tmp_path: Path, epg: Callable[..., Any]) -> Iterator[Login]:
    login = Login(tmp_path, epg)
    yield login
    login.close()
