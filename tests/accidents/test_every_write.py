"""A hard stop after every operation of the save path, and a disk that is full at every write.

`make test` takes one of each kind, that is of each operation on each sort of file, but no `fsync`,
which is to a stopped process as the write before; `make soak` takes all.
"""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from accidents.site import check_same

pytestmark = pytest.mark.xdist_group("every-write")  # one process makes what all of them need

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
def count(operate, where, *arguments, **more):
    file = os.readlink(f"/proc/self/fd/{{where}}") if isinstance(where, int) else str(where)
    write(notes, f"{{operations[-1]}} {{os.path.basename(file)}}\\n".encode())
    return operate(where, *arguments, **more)
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
    """The undisturbed run; beside it a file that names all its operations and their files."""
    folder = tmp_path_factory.mktemp("twin")
    (folder / "config.yaml").write_text(CONFIG)
    said = epg(*EPG, folder=folder, before=COUNT.format(names=OPERATIONS))
    assert said.code == 0, said
    return folder / "run"


def kinds(twin: Path) -> list[str]:
    """Of each operation: what is done, to which sort of file. A number in its name is none."""
    lines = (twin.parent / "operations").read_text().splitlines()
    return [re.sub(r"[0-9a-f]{16,}|[0-9]+", "N", line) for line in lines]


def one_of_each(of: list[str]) -> list[int]:
    """A place for each kind, counted from 1: in the middle of those that it has."""
    places = {kind: [i for i, k in enumerate(of, start=1) if k == kind] for kind in of}
    return sorted(found[len(found) // 2] for found in places.values())


def start_again(epg: Run, folder: Path, twin: Path, place: str) -> None:
    """Without accidents now, it comes to the same; then make room for the next accident."""
    said = epg(*EPG, folder=folder)
    assert (said.code, said.err) == (0, ""), (place, said)
    check_same(folder / "run", twin)
    shutil.rmtree(folder / "run")


def stop_after(epg: Run, twin: Path, folder: Path, places: Iterable[int]) -> None:
    """A hard stop after each of these operations, and a start that comes to the same."""
    names = kinds(twin)
    (folder / "config.yaml").write_text(CONFIG)
    for last in places:
        place = f"after operation {last}, {names[last - 1]}"
        before = STOP.format(names=OPERATIONS, last=last)
        said = epg(*EPG, folder=folder, before=before)
        assert said.code == -signal.SIGKILL, (place, said)
        start_again(epg, folder, twin, place)


def fill_at(epg: Run, twin: Path, folder: Path, places: Iterable[int]) -> None:
    """One line that names a file and says why; and with room again the run goes on."""
    writes = sum(kind.startswith("write ") for kind in kinds(twin))
    (folder / "config.yaml").write_text(CONFIG)
    for last in places:
        said = epg(*EPG, folder=folder, before=FULL.format(last=last))
        if last == writes and said.code == 0:
            continue  # nothing was written after the half, which is a file of its own
        assert said.code == 1 and said.err.count("\n") == 1, (last, said)
        assert said.err.startswith("epg: run/") and "No space left on device" in said.err
        start_again(epg, folder, twin, f"full at write {last}")


def test_there_are_many_operations_of_many_kinds(twin: Path) -> None:
    of = kinds(twin)
    assert len(of) > 100 and 40 < len(set(of)) < len(of) / 2
    assert {kind.split()[0] for kind in of} > {"write", "fsync", "replace"}
    for file in ("journal.jsonl", "metrics.csv", "state.json", "N.safetensors", "N.json", "DONE"):
        assert any(file in kind for kind in of), file


@pytest.mark.parametrize("part", range(2))
def test_a_hard_stop_after_one_operation_of_each_kind(
    epg: Run, twin: Path, tmp_path: Path, part: int
) -> None:
    of = kinds(twin)
    places = [place for place in one_of_each(of) if not of[place - 1].startswith("fsync")]
    assert len(places) > 25
    stop_after(epg, twin, tmp_path, places[part::2])


@pytest.mark.soak
@pytest.mark.parametrize("part", range(4))
def test_a_hard_stop_after_every_write_fsync_and_rename(
    epg: Run, twin: Path, tmp_path: Path, part: int
) -> None:
    stop_after(epg, twin, tmp_path, range(1 + part, len(kinds(twin)) + 1, 4))


def test_a_full_disk_at_one_write_of_each_kind(epg: Run, twin: Path, tmp_path: Path) -> None:
    fill_at(epg, twin, tmp_path, one_of_each([k for k in kinds(twin) if k.startswith("write ")]))


@pytest.mark.soak
@pytest.mark.parametrize("part", range(2))
def test_a_full_disk_at_every_write(epg: Run, twin: Path, tmp_path: Path, part: int) -> None:
    writes = sum(kind.startswith("write ") for kind in kinds(twin))
    assert writes > 20
    fill_at(epg, twin, tmp_path, range(1 + part, writes + 1, 2))
