"""Evaluations and tunings that are killed, and several at once: the same files, byte for byte."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from patience import Patience

from accidents.site import HERE
from accidents.test_every_write import OPERATIONS, STOP, WATCHED

pytestmark = pytest.mark.xdist_group("evaluations")  # one process makes what all of them need

Said = Any
"""What a process said: code, out, err."""
Run = Callable[..., Said]
Contents = Callable[[Path], dict[str, bytes]]
Check = Callable[["Place", object], None]
CONFIG = """\
task: trouble:Trouble
agent: {hidden: [4]}
lifetime: {updates: 1, steps_per_update: 32, final_episodes: 1}
"""
KINDS = {
    "evaluate": (
        "evaluate", "--task", "trouble:Trouble", "--methods", "reinforce,random",
        "--lifetimes", "4", "--updates", "2", "--out", "kept",
    ),
    "tune": (
        "tune", "config.yaml", "--methods", "reinforce", "--lifetimes", "2",
        "--out", "kept/tuned.yaml",
    ),
}  # fmt: skip
TIMED = ("journal.jsonl", "log/rank-0.log", "log/rank-1.log", "log/rank-2.log")
PATH = f"import sys; sys.path.insert(0, {HERE!r})\n"
COUNT = """
import atexit
def count(operate, *arguments, **more):
    return operate(*arguments, **more)
for name in {names}:
    watch(name, count)
atexit.register(lambda: open("operations", "w").write(str(len(operations))))
"""
KILL = """
import os, threading
timer = threading.Timer({seconds}, lambda: os.kill(os.getpid(), 9))
timer.daemon = True
timer.start()
"""


class Place:
    """A folder where an evaluation or a tuning is started again and again."""

    def __init__(self, epg: Run, kind: str, folder: Path) -> None:
        self.epg, self.kind, self.folder = epg, kind, folder
        (folder / "config.yaml").write_text(CONFIG)
        self.environment = {"EPG_CACHE": str(folder / "cache")}

    def start(self, *more: str, before: str = "", **environment: str) -> Said:
        return self.epg(
            *KINDS[self.kind], *more, folder=self.folder, before=PATH + before,
            environment=self.environment | environment,
        )  # fmt: skip

    def background(self, *more: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "epg", *KINDS[self.kind], *more], cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": HERE} | self.environment | environment,
        )  # fmt: skip

    def clear(self) -> None:
        for name in ("kept", "cache"):
            shutil.rmtree(self.folder / name, ignore_errors=True)


@pytest.fixture(scope="session", params=KINDS)
def twin(
    request: pytest.FixtureRequest, epg: Run, tmp_path_factory: pytest.TempPathFactory
) -> Place:
    """Undisturbed; beside it the number of its operations."""
    place = Place(epg, request.param, tmp_path_factory.mktemp(request.param))
    said = place.start(before=WATCHED.format() + COUNT.format(names=OPERATIONS))
    assert (said.code, said.err) == (0, ""), said
    return place


@pytest.fixture
def place(twin: Place, epg: Run, tmp_path: Path) -> Place:
    return Place(epg, twin.kind, tmp_path)


@pytest.fixture
def check(twin: Place, contents: Contents) -> Check:
    """Fails unless all files are those of the twin, and nothing else is left."""

    def look(place: Place) -> dict[str, bytes]:
        found = contents(place.folder / "kept")
        assert place.kind == "evaluate" or not list((place.folder / "cache").iterdir())
        return {name: data for name, data in found.items() if name not in TIMED}

    def check(place: Place, why: object) -> None:
        ours, theirs = look(place), look(twin)
        assert ours.keys() == theirs.keys(), why
        assert not [name for name in ours if ours[name] != theirs[name]], why

    return check


def operations(twin: Place) -> int:
    return int((twin.folder / "operations").read_text())


def stop_after(place: Place, check: Check, places: list[int]) -> None:
    """A hard stop after each of these operations, and a start that comes to the same."""
    for last in places:
        said = place.start(before=STOP.format(names=OPERATIONS, last=last))
        assert said.code == -signal.SIGKILL, (last, said)
        said = place.start()
        assert (said.code, said.err) == (0, ""), (last, said)
        check(place, (last, said))
        place.clear()


def test_a_hard_stop(twin: Place, place: Place, check: Check) -> None:
    """In the middle, and after the last but one operation."""
    assert operations(twin) > 20
    stop_after(place, check, [operations(twin) // 2, operations(twin) - 1])


@pytest.mark.soak
@pytest.mark.parametrize("part", range(2))
def test_a_hard_stop_after_every_operation(
    twin: Place, place: Place, check: Check, part: int
) -> None:
    stop_after(place, check, list(range(1 + part, operations(twin) + 1, 2)))


@pytest.mark.soak
@pytest.mark.parametrize("time_", range(10))
def test_kills_at_random_moments(twin: Place, place: Place, check: Check, time_: int) -> None:
    """Again and again, until a start is quicker than its kill."""
    rng = np.random.default_rng([time_, *twin.kind.encode()])
    for kill in range(6):
        seconds = rng.uniform(0.05, 2.0) if kill < 5 else 1000
        said = place.start(before=KILL.format(seconds=seconds), TROUBLE_SECONDS="0.1")
        assert said.code in (0, -signal.SIGKILL), said
        if said.code == 0:
            break
    check(place, said)


@pytest.mark.soak
@pytest.mark.parametrize("time_", range(3))
def test_killed_ranks_at_random_moments(
    twin: Place, place: Place, check: Check, time_: int
) -> None:
    rng = np.random.default_rng([time_, 1, *twin.kind.encode()])
    first = place.background("--ranks", "3", TROUBLE_SECONDS="0.1")
    try:
        first.wait(rng.uniform(1, 8))
    except subprocess.TimeoutExpired:
        first.kill()
    first.communicate()
    again = place.background("--ranks", "3")
    out, err = again.communicate()
    assert again.returncode == 0, (out, err)
    check(place, (out, err))


@pytest.mark.soak
def test_ctrl_c_of_ranks_is_told_below_the_launchers_words(place: Place, check: Check) -> None:
    told = place.background("--ranks", "3", TROUBLE_SECONDS="0.5")
    patience = Patience(place.folder)
    while not list(place.folder.rglob("journal.jsonl")):
        assert told.poll() is None, told.communicate()
        patience.ask()
        time.sleep(0.1)
    told.send_signal(signal.SIGINT)
    out, err = told.communicate()
    assert told.returncode == 130, (out, err)
    last = err.splitlines()[-1]
    assert last == "epg: told to end (SIGINT); that is all mpirun's words above are about"
    said = place.start()
    assert said.code == 0, said
    check(place, said)


@pytest.mark.parametrize("slow", ["0", pytest.param("0.5", marks=pytest.mark.soak)])
def test_two_at_once(twin: Place, place: Place, check: Check, slow: str) -> None:
    """One is refused, or comes after the other; what they leave is one's."""
    with ThreadPoolExecutor() as pool:
        said = list(pool.map(lambda _: place.start(TROUBLE_SECONDS=slow), range(2)))
    assert sorted(each.code for each in said) in ([0, 0], [0, 2]), said
    for each in said:
        assert (each.err == "") if each.code == 0 else ("is at work here" in each.err), said
    check(place, said)


def test_two_tunings_of_different_things_share_one_file(
    epg: Run, tmp_path: Path, contents: Contents
) -> None:
    """At once into one cache: the winners of both are there."""
    place = Place(epg, "tune", tmp_path)
    with ThreadPoolExecutor() as pool:
        budgets = [f"lifetime.updates={updates}" for updates in (1, 2, 3)]
        said = list(pool.map(lambda budget: place.start(budget), budgets))
    assert [(each.code, each.err) for each in said] == [(0, "")] * 3, said
    kept = yaml.safe_load((tmp_path / "kept" / "tuned.yaml").read_text())["trouble:Trouble"]
    steps = [entry["updates"] * entry["steps_per_update"] for entry in kept]
    assert sorted(steps) == [32, 64, 96], kept
    assert not list((tmp_path / "cache").iterdir())
