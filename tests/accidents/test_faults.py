"""A call to the system that fails, injected by strace: EIO or ENOSPC at the calls of the save path.

`make test` takes two, `make soak` all that write, and one of each kind of those that read.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from patience import Patience

from accidents import test_every_write as every

Run = Callable[..., object]
twin = every.twin
WRITING = ("openat", "write", "fsync", "rename", "link", "unlink", "mkdir", "close")
READING = ("read", "getdents64", "newfstatat", "lseek")
FULL = ("write", "fsync", "rename", "link", "mkdir", "close")
"""Calls that a full disk, or a full quota on a network's disk, lets fail."""
CHANGING = ("write", "fsync", "rename", "link", "unlink", "mkdir")
TRACED = """\
import ctypes, os, pathlib, subprocess, uuid
uuid.uuid4 = lambda: uuid.UUID(int=1)  # part of the name of the lock's own file
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER: whoever asks
files = ["config.yaml", "state.json", "metrics.csv", "journal.jsonl", "DONE"]
files += ["best.safetensors", "loss.safetensors"]
files += [f"checkpoint/0000000{{n}}.{{kind}}" for n in (1, 2) for kind in ("json", "safetensors")]
names = [".", "checkpoint", "log", "log/rank-0.log", "lock", f".lock.{{uuid.uuid4().hex}}", *files]
names += [str(pathlib.Path(f).with_name(f".{{pathlib.Path(f).name}}.{{os.getpid()}}.new"))
          for f in files]
paths = [str(p) for n in names for p in (pathlib.Path("run", n), pathlib.Path("run", n).absolute())]
options = [word for path in paths for word in ("-P", path)]
command = ["strace", "-y", "-o", "trace", *options, "-e", "trace={calls}", *{more}]
tracer = subprocess.Popen([*command, "-p", str(os.getpid())], stderr=subprocess.PIPE)
for line in tracer.stderr:
    if line.endswith(b" attached\\n"):
        break
"""


@pytest.fixture(scope="session", autouse=True)
def strace() -> None:
    """There is one, and it may trace."""
    if shutil.which("strace") is None:
        if os.environ.get("EPG_TESTS_NEED_STRACE"):
            pytest.fail("strace is missing")
        pytest.skip("strace is missing")
    said = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True)
    if said.returncode:
        pytest.skip(f"strace may not trace here: {said.stderr.strip()}")


def trace(folder: Path) -> list[str]:
    """The calls of a process that has ended."""
    patience = Patience(folder)
    while "+++ exited with" not in (text := (folder / "trace").read_text(errors="replace")):
        patience.ask(text[-500:])
        time.sleep(0.02)
    return text.splitlines()


@pytest.fixture(scope="session")
def calls(epg: Run, twin: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Of an undisturbed run: each call, and what for, without what differs between runs."""
    folder = tmp_path_factory.mktemp("calls")
    (folder / "config.yaml").write_text(every.CONFIG)
    before = TRACED.format(calls=",".join(WRITING + READING), more=[])
    said = epg(*every.EPG, folder=folder, before=before)
    assert (said.code, said.err) == (0, "")
    found = []
    for line in trace(folder):
        call = re.match(r"(\w+)\((.*)", line)
        if call:
            [file] = re.findall(r"\brun(?:/[\w./-]+)?(?=[\">])", call[2])[:1]
            found.append((call[1], re.sub(r"[0-9a-f]{16,}|[0-9]+", "N", file)))
    return found


def fail_at(
    epg: Run, twin: Path, folder: Path, error: str, places: Iterable[tuple[str, int | str]]
) -> None:
    """The n-th such call fails: the run ends with one line or goes on, and what is left resumes.

    n+: all such calls from then on.
    """
    (folder / "config.yaml").write_text(every.CONFIG)
    for call, n in places:
        place = f"{error} at {call} {n}"
        more = ["-e", f"inject={call}:error={error}:when={n}"]
        said = epg(*every.EPG, folder=folder, before=TRACED.format(calls=call, more=more))
        hit = [line for line in trace(folder) if line.endswith("(INJECTED)")]
        assert (len(hit) == 1 or (hit and "+" in place)) and error in hit[0], (place, hit, said)
        assert said.code in (0, 1, 2), (place, hit, said)
        assert said.err.count("\n") == (said.code != 0), (place, hit, said)
        assert "standard output" not in said.err, (place, hit, said)
        every.start_again(epg, folder, twin, f"{place}: {hit}, {said}")


def numbered(calls: list[tuple[str, str]]) -> list[tuple[str, str, int]]:
    """With which of its name each is, counted from 1."""
    seen: dict[str, int] = {}
    found = []
    for call, file in calls:
        seen[call] = seen.get(call, 0) + 1
        found.append((call, file, seen[call]))
    return found


def all_of(calls: list[tuple[str, str]], names: Iterable[str]) -> list[tuple[str, int | str]]:
    return [(call, n) for call, _, n in numbered(calls) if call in names]


def one_of_each(calls: list[tuple[str, str]], names: Iterable[str]) -> list[tuple[str, int | str]]:
    """For each call on each sort of file the one in the middle."""
    kinds: dict[tuple[str, str], list[int]] = {}
    for call, file, n in numbered(calls):
        if call in names:
            kinds.setdefault((call, file), []).append(n)
    return [(call, of[len(of) // 2]) for (call, _), of in kinds.items()]


def test_two_calls_of_a_save_fail(
    epg: Run, twin: Path, calls: list[tuple[str, str]], tmp_path: Path
) -> None:
    assert {call for call, _ in calls} == {*WRITING, *READING}
    places: dict[tuple[str, str], list[int]] = {}
    for call, file, n in numbered(calls):
        places.setdefault((call, file), []).append(n)
    first, *_ = places["fsync", "run/journal.jsonl"]
    *_, last = places["rename", "run/checkpoint/.N.json.N.new"]
    fail_at(epg, twin, tmp_path, "EIO", [("fsync", first)])
    fail_at(epg, twin, tmp_path, "ENOSPC", [("rename", last)])


@pytest.mark.soak
@pytest.mark.parametrize("part", range(4))
def test_every_call_that_writes_fails(
    epg: Run, twin: Path, calls: list[tuple[str, str]], tmp_path: Path, part: int
) -> None:
    places = all_of(calls, WRITING)
    assert len(places) > 100
    fail_at(epg, twin, tmp_path, "EIO", places[part::4])


@pytest.mark.soak
def test_one_of_each_kind_of_call_that_reads_fails(
    epg: Run, twin: Path, calls: list[tuple[str, str]], tmp_path: Path
) -> None:
    fail_at(epg, twin, tmp_path, "EIO", one_of_each(calls, READING))


@pytest.mark.soak
def test_a_full_disk_at_one_call_of_each_kind(
    epg: Run, twin: Path, calls: list[tuple[str, str]], tmp_path: Path
) -> None:
    fail_at(epg, twin, tmp_path, "ENOSPC", one_of_each(calls, FULL))


@pytest.mark.soak
@pytest.mark.parametrize("first", [2, 4, 7, 11, 16])
def test_a_file_system_that_becomes_read_only(
    epg: Run, twin: Path, tmp_path: Path, first: int
) -> None:
    """As the kernel makes one after errors of a disk: each call to change it, from the n-th on."""
    fail_at(epg, twin, tmp_path, "EROFS", [(",".join(CHANGING), f"{first}+")])
