"""A hard stop after every operation of the save path, and a disk that is full at every write."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from accidents.site import check_same

Run = Callable[..., object]
CONFIG = """\
task: point-goal
steps: 2
method: {name: epg, pairs: 2}
agent: {hidden: [4], memory: 2}
lifetime: {updates: 1, steps_per_update: 32, final_episodes: 1}
learner: {buffer: 32, minibatch: 32, passes: 1}
validation: {every: 10, lifetimes: 1}
farm: {chunk: 1}
log: {checkpoints: 1}
"""
EPG = ("train", "config.yaml", "--run", "run")
OPERATIONS = ("write", "fsync", "replace", "rename", "link", "unlink", "mkdir")
WATCHED = """\
import errno, os, signal
operations = []
def watch(name, then):
    operate = getattr(os, name)
    def watched(*arguments, **more):
        operations.append(name)
        return then(operate, *arguments, **more)
    setattr(os, name, watched)
"""
COUNT = (
    WATCHED
    + """\
write, notes = os.write, os.open("operations", os.O_CREAT | os.O_WRONLY)
def count(operate, *arguments, **more):
    write(notes, (operations[-1] + " ").encode())
    return operate(*arguments, **more)
for name in {names}:
    watch(name, count)
"""
)
STOP = (
    WATCHED
    + """\
def stop(operate, *arguments, **more):
    try:
        return operate(*arguments, **more)
    finally:
        if len(operations) == {last}:
            os.kill(os.getpid(), signal.SIGKILL)
for name in {names}:
    watch(name, stop)
"""
)
FULL = (
    WATCHED
    + """\
def fill(operate, descriptor, data):
    if len(operations) < {last}:
        return operate(descriptor, data)
    if len(operations) > {last}:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return operate(descriptor, data[: len(data) // 2])
watch("write", fill)
"""
)
"""The write in question is cut in half, and nothing can be written afterwards."""


@pytest.fixture(scope="session")
def twin(epg: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed run; beside it a file that names all its operations."""
    folder = tmp_path_factory.mktemp("twin")
    (folder / "config.yaml").write_text(CONFIG)
    said = epg(*EPG, folder=folder, before=COUNT.format(names=OPERATIONS))
    assert said.code == 0, said
    return folder / "run"


def operations(twin: Path) -> list[str]:
    return (twin.parent / "operations").read_text().split()


def start_again(epg: Run, folder: Path, twin: Path, place: str) -> None:
    """Without accidents now, it comes to the same; then make room for the next accident."""
    said = epg(*EPG, folder=folder)
    assert (said.code, said.err) == (0, ""), (place, said)
    check_same(folder / "run", twin)
    shutil.rmtree(folder / "run")


@pytest.mark.parametrize("part", range(4))
def test_a_hard_stop_after_every_write_fsync_and_rename(
    epg: Run, twin: Path, tmp_path: Path, part: int
) -> None:
    names = operations(twin)
    assert len(names) > 100 and set(names) > {"write", "fsync", "replace"}
    (tmp_path / "config.yaml").write_text(CONFIG)
    for last in range(1 + part, len(names) + 1, 4):
        place = f"after operation {last}, {names[last - 1]}"
        before = STOP.format(names=OPERATIONS, last=last)
        said = epg(*EPG, folder=tmp_path, before=before)
        assert said.code == -signal.SIGKILL, (place, said)
        start_again(epg, tmp_path, twin, place)


@pytest.mark.parametrize("part", range(2))
def test_a_full_disk_at_every_write(epg: Run, twin: Path, tmp_path: Path, part: int) -> None:
    """One line that names a file and says why; and with room again the run goes on."""
    writes = operations(twin).count("write")
    assert writes > 20
    (tmp_path / "config.yaml").write_text(CONFIG)
    for last in range(1 + part, writes + 1, 2):
        said = epg(*EPG, folder=tmp_path, before=FULL.format(last=last))
        if last == writes and said.code == 0:
            continue  # nothing was written after the half, which is a file of its own
        assert said.code == 1 and said.err.count("\n") == 1, (last, said)
        assert said.err.startswith("epg: run/") and "No space left on device" in said.err
        start_again(epg, tmp_path, twin, f"full at write {last}")
