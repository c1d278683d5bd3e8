"""Starts that meet, and starts with other numbers of ranks."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from accidents.site import Site, check_same
from epg.errors import RunError, UserError
from epg.process.machine import boot_id
from epg.runs.lock import STALE_SECONDS, Lock

SLOW = {"TROUBLE_SECONDS": "0.05"}


def test_of_two_starts_at_once_one_is_refused(site: Site, undisturbed: Path) -> None:
    slow = {"TROUBLE_SECONDS": "0.15"}  # longer than between two heartbeats
    first, second = site.start(trouble=slow), site.start(trouble=slow)
    codes = {first.end(): first, second.end(): second}
    assert set(codes) == {0, 2}
    waits, refused = codes[2].said.splitlines()
    assert "is its holder alive?" in waits and "is at work here" in refused
    check_same(site.run, undisturbed)


@pytest.mark.soak
def test_a_start_during_a_supervised_run_is_refused(site: Site, undisturbed: Path) -> None:
    slow = {"TROUBLE_SECONDS": "0.8"}  # longer than a start and two heartbeats
    first = site.start("--ranks", "3", "farm.least_deadline=60", trouble=slow)
    site.wait_for(lambda: site.units() > 0)
    second = site.start("--ranks", "2")
    assert second.end() == 2 and "is at work here" in second.said
    assert "again in" not in second.said
    assert first.end() == 0, first.said
    check_same(site.run, undisturbed)


def test_the_number_of_ranks_changes_at_every_relaunch(site: Site, undisturbed: Path) -> None:
    for ranks in (3, 1):
        killed = site.start(launcher=("mpirun", "-n", str(ranks)), trouble=SLOW)
        lived = site.generations(), site.units()
        site.wait_for(lambda was=lived: (site.generations(), site.units()) > was)  # type: ignore[misc]
        killed.tell(signal.SIGKILL)
        killed.end()
    more_ranks_than_units = site.start("farm.chunk=10", launcher=("mpirun", "-n", "3"))
    assert more_ranks_than_units.end() == 0, more_ranks_than_units.said
    check_same(site.run, undisturbed)


# The lock


def holder(path: Path, seconds_ago: float, **changes: object) -> None:
    """A lock that someone holds, whose last sign of life is so old."""
    us = Lock(path)._me | {"token": "theirs"} | changes
    path.write_text(json.dumps(us))
    then = time.time() - seconds_ago
    os.utime(path, (then, then))


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def took(path: Path) -> bool:
    with Lock(path) as lock:
        lock.check()
        held = json.loads(path.read_text())["host"] == socket.gethostname()
    return held and not path.exists() and not list(path.parent.iterdir())


def test_a_dead_process_of_this_machine_is_relieved_at_once(tmp_path: Path, dead_pid: int) -> None:
    holder(tmp_path / "lock", 0, pid=dead_pid)
    assert took(tmp_path / "lock")


def test_so_is_one_of_an_earlier_boot(tmp_path: Path) -> None:
    holder(tmp_path / "lock", 0, boot=boot_id()[::-1], pid=1)
    assert took(tmp_path / "lock")


def test_so_is_an_earlier_start_of_the_same_slurm_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    holder(tmp_path / "lock", 0, host="elsewhere", start=0)
    assert took(tmp_path / "lock")


def test_so_is_one_on_another_machine_without_a_heartbeat(tmp_path: Path) -> None:
    holder(tmp_path / "lock", STALE_SECONDS + 1, host="elsewhere")
    assert took(tmp_path / "lock")


@pytest.mark.parametrize("changes", [{"host": "elsewhere"}, {}, {"job": "17"}])
def test_one_with_a_heartbeat_is_not(tmp_path: Path, changes: dict[str, object]) -> None:
    path = tmp_path / "lock"
    holder(path, 60, **changes)
    beating = subprocess.Popen(["sh", "-c", f"sleep 1; touch {path}"])
    with pytest.raises(UserError, match=r"process \d+ on .* is at work here"), Lock(path):
        pass
    beating.wait()
    assert json.loads(path.read_text())["token"] == "theirs"


def test_who_lost_the_lock_stops(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with Lock(path) as lock:
        holder(path, 0)
        with pytest.raises(RunError, match="another start has taken this run over"):
            lock.check()
    assert json.loads(path.read_text())["token"] == "theirs"


def test_a_lock_that_says_nothing_is_watched_for_a_heartbeat(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("")
    then = time.time() - STALE_SECONDS + 1
    os.utime(path, (then, then))
    begun = time.monotonic()
    assert took(path) and time.monotonic() - begun > 0.5


def test_a_lock_from_the_future_is_taken_once_it_was_watched_long_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time says nothing: what counts is that it did not change, by the waiter's own clock."""
    monkeypatch.setattr("epg.runs.lock.STALE_SECONDS", 1.0)
    path = tmp_path / "lock"
    holder(path, -3600, host="elsewhere")
    assert path.stat().st_mtime > time.time() + 3000
    assert took(path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"[1]"])
def test_a_lock_that_is_none_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr("epg.runs.lock.STALE_SECONDS", 1.0)
    path = tmp_path / "lock"
    path.write_bytes(content)
    assert took(path)


def test_a_lock_that_links_to_nothing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="a link to nothing"), Lock(path):
        pass


def test_a_run_directory_that_is_gone_is_not_begun_anew(site: Site) -> None:
    process = site.start("--ranks", "2", "steps=1000", trouble=SLOW)
    site.wait_for(lambda: site.generations() >= 2)
    time.sleep(2)  # two looks of the supervisor
    site.run.rename(site.folder / "elsewhere")
    assert process.end() == 1
    assert not (site.run / "config.yaml").exists() and "is gone" in process.said, process.said
