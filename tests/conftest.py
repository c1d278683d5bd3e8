"""A tiny configuration, real processes to run it in, and one finished run for all to look at.

Tests have one thread, as every worker has, so that numbers can be compared bitwise.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import patience
import pytest
import torch
from patience import Patience
from safetensors.torch import load_file
from torch import Tensor

torch.set_num_threads(1)

TINY = """\
task: point-goal
steps: 3
method: {name: epg, pairs: 4, alpha: {start: 0.5, end: 0.0, generations: 1}}
agent: {hidden: [8], memory: 4}
lifetime: {updates: 2, steps_per_update: 32, final_episodes: 1}
learner: {buffer: 64, minibatch: 16}
validation: {every: 2, lifetimes: 2}
farm: {chunk: 2}
"""

BECOME_EPG = """\
import os, runpy, sys
os.chdir(folder)
os.environ.update(environment)
for descriptor, file in ((1, "out"), (2, "err")):
    os.dup2(os.open(said + file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
sys.argv = ["epg", *arguments]
from epg.process import progress
progress.SECONDS = 1e9  # lines that come by the clock would come on slow machines alone
exec(before)
runpy.run_module("epg", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this user's winners of `epg tune` would be: the tests begin with none."""
    path = tmp_path_factory.mktemp("cache")
    os.environ["EPG_CACHE"] = str(path)
    return path


@dataclass(frozen=True)
class Said:
    """What a process said, and its exit code; that of a killed one is negative."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def epg(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Said]:
    """`epg(argument, …, folder=…)`: `python -m epg argument …` in a process of its own.

    The processes fork from one in which the imports are done already. `before` is Python code to
    run first, `environment` joins the environment.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "pytest",
            "epg.cli",
            "epg.training.loop",
            "epg.evaluation.evaluate",
            "epg.evaluation.plot",
            "epg.tasks.mujoco",
            "evotorch.algorithms.functional",
            "gymnasium",
            "matplotlib.backends.backend_agg",
            "tensorboard.summary.writer.record_writer",
        ]
    )

    def run(
        *arguments: str | Path,
        folder: Path,
        before: str = "",
        environment: dict[str, str] | None = None,
    ) -> Said:
        said = tmp_path_factory.mktemp("said")
        names = {
            "arguments": [str(a) for a in arguments],
            "folder": str(folder),
            "said": f"{said}{os.sep}",
            "before": before,
            "environment": environment or {},
        }
        process = context.Process(target=exec, args=(BECOME_EPG, names))
        process.start()
        waiting = Patience(folder)
        while process.exitcode is None:
            process.join(1)
            waiting.ask((said / "out").read_text(), (said / "err").read_text())
        return Said(process.exitcode, (said / "out").read_text(), (said / "err").read_text())

    return run


@pytest.fixture(scope="session")
def command() -> Callable[..., Said]:
    """`command("python", argument, …, folder=…)` with the environment's own Python and mpirun."""

    def run(*arguments: str | Path, folder: Path) -> Said:
        here = Path(sys.executable).parent
        path = f"{here}{os.pathsep}{os.environ['PATH']}"
        process = patience.run(arguments, folder, PATH=path)
        return Said(process.returncode, process.stdout, process.stderr)

    return run


@pytest.fixture(scope="session")
def once(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, Callable[[Path], object]], Path]:
    """`once(name, make)`: a folder that one of the test processes makes for all of them."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder_of(name: str, make: Callable[[Path], object]) -> Path:
        folder, made = root / name, root / f"{name}.made"
        with open(root / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                folder.mkdir()
                make(folder)
                made.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration whose run takes a second."""
    path = tmp_path_factory.mktemp("configs") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def finished(epg: Callable[..., Said], tiny: Path, once: Callable[..., Path]) -> Iterator[Path]:
    """The run directory of `tiny`, lived undisturbed in one process. Nobody changes it."""

    def live(folder: Path) -> None:
        said = epg("train", tiny, "--run", "run", folder=folder)
        assert (said.code, said.err) == (0, "")

    folder = once("finished", live)
    before = _contents(folder)
    yield folder / "run"
    assert _contents(folder) == before


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """`contents(folder)`: the bytes of all files below, by name; of none if there is no folder."""
    return _contents


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="session")
def tensors() -> Callable[[Path], dict[str, bytes]]:
    """`tensors(file)`: the bytes of the tensors in a safetensors file, by name."""

    def read(file: Path) -> dict[str, bytes]:
        named: dict[str, Tensor] = load_file(file)
        return {name: tensor.numpy().tobytes() for name, tensor in named.items()}

    return read


@pytest.fixture
def wrote(tmp_path: Path) -> Callable[[str, Any], Path]:
    """`wrote(name, text or bytes)`: a new file."""

    def write(name: str, what: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(what if isinstance(what, bytes) else what.encode())
        return path

    return write
