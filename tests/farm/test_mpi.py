"""The farm over a real MPI: the same numbers on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., object]


def came_to_the_same(run: Path, finished: Path, tensors: Run) -> bool:
    names = ("loss.safetensors", "best.safetensors")
    return all(tensors(run / name) == tensors(finished / name) for name in names)


@pytest.mark.soak  # as on four, below; and accidents/ starts by --ranks all the time
def test_two_ranks_come_to_what_one_process_does(
    epg: Run, tiny: Path, finished: Path, tmp_path: Path, tensors: Run
) -> None:
    """Three generations, started by `--ranks`, with units of one pair instead of two."""
    arguments = ("train", tiny, "--run", "run", "farm.chunk=1", "--ranks", 2)
    said = epg(*arguments, folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    assert said.out.count("to do: 3 generations") == 1 and "on 1 worker " in said.out
    assert came_to_the_same(tmp_path / "run", finished, tensors)
    logs = sorted(path.name for path in (tmp_path / "run" / "log").iterdir())
    assert logs == ["rank-0.log", "rank-1.log"]


def test_four_ranks_come_to_what_one_process_does(
    command: Run, tiny: Path, finished: Path, tmp_path: Path, tensors: Run
) -> None:
    """With units of three pairs: the last one is smaller."""
    arguments = ("train", tiny, "--run", "run", "farm.chunk=3")
    said = command("mpirun", "-n", 4, "python", "-m", "epg", *arguments, folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    assert said.out.count("done: ") == 1 and "on 3 workers" in said.out
    assert came_to_the_same(tmp_path / "run", finished, tensors)
    (tmp_path / "run" / "DONE").read_text()
