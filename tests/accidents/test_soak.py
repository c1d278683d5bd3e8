"""Long: accidents at random moments, ten times each, and twenty in a row in one run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from accidents.site import Process, Site, check_same, children, ranks_below
from accidents.test_trouble import MANY, SAID, invalid_from_the_start, trouble

pytestmark = pytest.mark.soak
KILLS = ("worker", "worker's runner", "master", "mpirun", "front")
TOLD = ("SIGINT", "SIGTERM", "SIGUSR1")
SLOW = {"TROUBLE_SECONDS": "0.05"}
LONGEST_SECONDS = 9.0
"""Of an undisturbed run, its start included."""


def happen(accident: str, site: Site, front: Process) -> None:
    """Let an accident happen, as soon as there is who it can happen to."""
    if accident in TOLD:
        front.tell(signal.Signals[accident])
        return
    while front.popen.poll() is None:
        pid = victim(accident, front.pid)
        if pid is not None:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            return
        time.sleep(0.02)


def victim(kind: str, front: int) -> int | None:
    """Its process id; None if it is not there."""
    if kind == "front":
        return front
    mpirun = children(front)
    if kind == "mpirun" or not mpirun:
        return mpirun[0] if mpirun else None
    wanted = "0" if kind == "master" else "1"
    found = [pid for pid in ranks_below(front) if rank(pid) == wanted]
    if kind == "worker's runner" and found:
        found = children(found[0])
    return found[0] if found else None


def rank(pid: int) -> str:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((e[9:].decode() for e in environment if e.startswith(b"PMI_RANK=")), "")


def bring_to_an_end(site: Site, front: Process) -> None:
    """Whatever ended it, the same command goes on."""
    code = front.end()
    for _ in range(3):
        if code == 0:
            break
        assert code in (75, 130, 143, -9, -10, -15, -2), (code, front.said)
        front = site.start("--ranks", "3")
        code = front.end()
    assert code == 0, front.said


@pytest.mark.parametrize("time_", range(10))
@pytest.mark.parametrize("accident", [*KILLS, *TOLD])
def test_at_a_random_moment(site: Site, undisturbed: Path, accident: str, time_: int) -> None:
    rng = np.random.default_rng([time_, *accident.encode()])
    front = site.start("--ranks", "3", trouble=SLOW)
    time.sleep(rng.uniform(0.2, LONGEST_SECONDS))
    happen(accident, site, front)
    bring_to_an_end(site, front)
    check_same(site.run, undisturbed)


@pytest.mark.parametrize("who", ["worker", "worker's runner", "master"])
def test_a_frozen_process(site: Site, undisturbed: Path, who: str) -> None:
    """It is there and gives no sign of life, as on a node that has lost its disk."""
    front = site.start("--ranks", "3", trouble=SLOW)
    site.wait_for(lambda: site.units() > 2)
    frozen = victim(who, front.pid)
    assert frozen is not None
    os.kill(frozen, signal.SIGSTOP)
    assert front.end(330) == 0, front.said
    said = {
        "worker": "gave no sign of life 20 s after its deadline",
        "worker's runner": "took longer than",
        "master": "no sign of life for 24",
    }
    assert said[who] in front.said
    check_same(site.run, undisturbed)


@pytest.mark.parametrize("time_", range(10))
def test_trouble_in_random_pairs(
    site: Site, tmp_path_factory: pytest.TempPathFactory, time_: int
) -> None:
    """All kinds at once, each in a pair of its own: first once; then always, and NaN with them."""
    pairs = [int(p) for p in np.random.default_rng(time_).choice(60, len(SAID) + 1, replace=False)]
    *pairs, nan = pairs
    kinds = dict(zip(pairs, SAID, strict=True))
    quiet = Site(tmp_path_factory.mktemp("quiet"))
    assert quiet.start(*MANY).end() == 0
    process = site.start(
        *MANY, "--ranks", "3", trouble=trouble(kinds, TROUBLE_ONCE=str(site.folder))
    )
    assert process.end() == 0, process.said
    check_same(site.run, quiet.run)
    always = Site(tmp_path_factory.mktemp("always"))
    broken = trouble(kinds | {nan: "nan"})
    process = always.start(*MANY, "--ranks", "3", trouble=broken)
    assert process.end() == 0, process.said
    without = Site(tmp_path_factory.mktemp("without"))
    invalid_from_the_start(without, pairs, trouble({nan: "nan"}))
    check_same(always.run, without.run)


def test_twenty_in_a_row_in_one_run(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = np.random.default_rng(20)
    longer = "steps=8"
    quiet = Site(tmp_path_factory.mktemp("quiet"))
    assert quiet.start(longer).end() == 0
    front = site.start(longer, "--ranks", "3", trouble=SLOW)
    for _ in range(20):
        time.sleep(rng.uniform(0.2, LONGEST_SECONDS))
        accident = str(rng.choice([*KILLS, *TOLD]))
        assert not (site.run / "DONE").exists(), "it was too short"
        happen(accident, site, front)
        if accident == "front" or accident in TOLD:
            front.end()
            front = site.start(longer, "--ranks", "3", trouble=SLOW)
    assert front.end() == 0, front.said
    check_same(site.run, quiet.run)
