"""Processes that are killed or told to end, under a real mpirun."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from patience import Patience

from accidents.site import EPG, HERE, Process, Site, check_same, children, ranks_below

HELD = {"TROUBLE": '{"1:4": "wait"}'}
"""The run waits in the middle of its second generation, so that there is time for accidents."""
PATIENT = "farm.least_deadline=3600"
"""Whoever waits is not given up."""


def is_held(site: Site) -> bool:
    """Whether a run with one worker has come as far as that."""
    return site.generations() == 1 and site.units() > 3


VICTIMS: dict[str, Callable[[Site, Process], int]] = {
    "worker": lambda site, front: site.pid(rank=1),
    "worker's runner": lambda site, front: site.pid(rank=1, which=1),
    "master": lambda site, front: site.pid(rank=0),
    "mpirun": lambda site, front: children(front.pid)[0],
}


IN_SOAK = [
    pytest.param(name, marks=pytest.mark.soak) for name in ("master", "worker's runner", "mpirun")
]


@pytest.mark.parametrize("victim", ["worker", *IN_SOAK])
def test_whoever_is_killed_the_run_goes_on_by_itself(
    site: Site, undisturbed: Path, victim: str
) -> None:
    front = site.start("--ranks", "2", PATIENT, trouble=HELD)
    site.wait_for(lambda: is_held(site))
    os.kill(VICTIMS[victim](site, front), signal.SIGKILL)
    site.go()
    assert front.end() == 0, front.said
    assert front.said.count("again in") == 1, front.said
    assert "failed" not in front.said and "Traceback" not in front.said
    assert ("want of memory" in front.said) == (victim == "worker's runner")
    assert not (site.run / "lock").exists()
    check_same(site.run, undisturbed)


@pytest.mark.soak
def test_crashes_without_a_finished_unit_are_given_up(site: Site) -> None:
    always = {"TROUBLE": '{"0": "be killed"}'}
    front = site.start("--ranks", "2", "--max-relaunches", "0", trouble=always)
    assert front.end() == 1
    assert "crashed 1 times in a row without finishing a chunk; giving up" in front.said
    assert site.start().end() == 0  # nothing is lost


def imports(pid: int) -> bool:
    """Whether a process has come as far as the imports of the package, or beyond."""
    try:
        return "numpy" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_told_to_end_while_it_starts(site: Site, name: str) -> None:
    """Some ranks import still, others may wait for them in MPI: none is left behind."""
    front = site.start("--ranks", "3")
    site.wait_for(lambda: sum(map(imports, ranks_below(front.pid))) == 3)
    front.tell(signal.Signals[name])
    assert front.end() == {"SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 75}[name], front.said
    assert "Traceback" not in front.said and "again in" not in front.said
    assert f"told to end ({name}) while its ranks started" in front.said.splitlines()[-1]


@pytest.mark.soak
def test_told_to_end_many_times(site: Site, undisturbed: Path) -> None:
    """As schedulers do that tell every process."""
    process = site.start(PATIENT, trouble=HELD)
    site.wait_for(lambda: is_held(site))
    for _ in range(20):
        process.tell(signal.SIGTERM)
        process.tell(signal.SIGINT)
        time.sleep(0.003)
    site.go()
    ended = process.end()  # by a signal, if one came after all was done
    assert ended in (130, 143, -signal.SIGTERM), process.said
    assert "Traceback" not in process.said
    assert site.state()["state"] == "saved" and not (site.run / "lock").exists()
    assert site.start().end() == 0
    check_same(site.run, undisturbed)


@pytest.mark.soak  # it waits between its launches
def test_a_launcher_that_cannot_start_the_run_is_given_up(site: Site) -> None:
    (site.folder / "mpi4py.py").write_text("raise SystemExit(77)")
    path = {"PYTHONPATH": f"{site.folder}{os.pathsep}{HERE}"}
    front = site.start("--ranks", "2", trouble=path)
    assert front.end() == 1
    assert "no launch comes as far as the run; `epg doctor` may know why" in front.said
    assert not site.run.exists()


@pytest.mark.soak
def test_a_launcher_that_is_slow_to_end_is_waited_for(site: Site, undisturbed: Path) -> None:
    """As on a loaded machine, where the ranks' ends take long."""
    script = site.folder / "slow-mpirun"
    script.write_text('mpirun "$@"\ncode=$?\nsleep 20\nexit $code\n')
    front = site.start("--ranks", "2", "--launcher", f"sh {script}")
    assert front.end() == 0, front.said
    assert "killing it" not in front.said
    check_same(site.run, undisturbed)


def test_kill_of_the_front_ends_all_and_the_same_command_goes_on(
    site: Site, undisturbed: Path
) -> None:
    front = site.start("--ranks", "2", PATIENT, trouble=HELD)
    site.wait_for(lambda: is_held(site))
    pids = [site.pid(0), site.pid(1), site.pid(1, 1), children(front.pid)[0]]
    front.tell(signal.SIGKILL)
    front.end()
    patience = Patience(site.folder)
    while any(is_running(pid) for pid in pids):
        patience.ask(pids)
        time.sleep(0.05)
    again = site.start()
    assert again.end() == 0, again.said
    check_same(site.run, undisturbed)


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.soak  # SIGUSR1 on ranks in the test below, the others in one process in test_train.py
@pytest.mark.parametrize(
    ("name", "code", "launcher"),
    [
        ("SIGINT", 130, ()),
        ("SIGTERM", 143, ()),
        ("SIGUSR1", 75, ()),
        ("SIGUSR1", None, ("mpirun", "-n", "3")),
    ],
)
def test_told_to_end_it_is_saved_and_goes_on(
    site: Site, undisturbed: Path, name: str, code: int | None, launcher: tuple[str, ...]
) -> None:
    """By hand, too, where the launcher makes of the exit code what it likes."""
    ranks = () if launcher else ("--ranks", "2")
    process = site.start(*ranks, PATIENT, launcher=launcher, trouble=HELD)
    site.wait_for(lambda: is_held(site))
    process.tell(signal.Signals[name])
    site.go()
    ended = process.end()
    assert code in (ended, None), process.said
    assert "Traceback" not in process.said and "again in" not in process.said
    assert site.state()["state"] == "saved"
    assert site.state()["why"] in (name, "SIGTERM")  # which Open MPI makes of SIGINT
    assert not (site.run / "lock").exists()
    again = site.start()
    assert again.end() == 0, again.said
    check_same(site.run, undisturbed)


def test_usr1_drops_what_needs_longer_than_the_grace_and_finishes_the_rest(
    site: Site, undisturbed: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Under mpirun and in one process, at the same time."""
    alone = Site(tmp_path_factory.mktemp("alone"))
    patient = (PATIENT, "farm.grace=8")  # only the grace can end it
    started = {}
    for place, ranks, done in ((alone, (), 1), (site, ("--ranks", "3"), 5)):
        slow = {"TROUBLE_ONCE": str(place.folder), "TROUBLE_SECONDS": "0.1"}
        started[place] = place.start(*ranks, *patient, trouble={"TROUBLE": '{"1": "sleep"}'} | slow)
        place.wait_for(
            lambda place=place, done=done: (
                (place.folder / "pair-1").exists() and place.units() >= done
            )
        )
    for process in started.values():
        process.tell(signal.SIGUSR1)
    for place, process in started.items():
        assert process.end() == 75, process.said
        assert "Traceback" not in process.said and "again in" not in process.said
        assert (place.state()["state"], place.state()["why"]) == ("saved", "SIGUSR1")
        assert not (place.run / "lock").exists()
    assert alone.units() == 1
    assert site.units() == 6  # the other worker finished what it was at, and began nothing new
    again = site.start(*patient)
    assert again.end() == 0 and "failed" not in again.said, again.said
    check_same(site.run, undisturbed)


def test_an_unforeseen_exception_on_a_rank_ends_the_job(site: Site) -> None:
    """Of the worker itself, not of a lifetime: the others would wait for it for ever."""
    (site.folder / "bad.py").write_text(
        "from epg import cli\n"
        "from epg.farm import isolated\n"
        "from epg.process.launcher import launched_rank\n"
        "begin = isolated.IsolatedRunner.begin\n"
        "def fail(self, newer, unit):\n"
        "    if launched_rank() == 2 and unit.first > 3:\n"
        "        raise LookupError('on rank 2')\n"
        "    begin(self, newer, unit)\n"
        "isolated.IsolatedRunner.begin = fail\n"
        "cli.main()\n"
    )
    process = site.command(
        "mpirun", "-n", "3", "python", "bad.py", "train", "config.yaml", "--run", "run"
    )
    assert process.end() not in (0, 2)
    assert "LookupError: on rank 2" in process.said
    assert "LookupError: on rank 2" in (site.run / "log" / "rank-2.log").read_text()


def test_a_rank_that_fails_before_mpi_is_up_is_named(site: Site) -> None:
    """As on a node where the configuration's file is not there."""
    bad = (*EPG[:4], "gone.yaml")
    process = site.command("mpirun", "-n", "2", *EPG, ":", "-n", "1", *bad)
    process.end()
    assert "epg: rank 2: gone.yaml: no such configuration file; " in process.said
    assert "Traceback" not in process.said and not site.run.exists()
    process = site.command("mpirun", "-n", "1", *bad, ":", "-n", "1", *EPG)
    process.end()
    assert "epg: gone.yaml: no such configuration file; " in process.said
    assert "Traceback" not in process.said and not site.run.exists()


def test_ranks_that_are_not_alike_are_refused(site: Site) -> None:
    process = site.command("mpirun", "-n", "1", *EPG, ":", "-n", "1", *EPG, "seed=1")
    process.end()
    assert "found seed: 1, the master has seed: 0" in process.said
    older = (
        "from epg import version; version.__version__ = '0.0.1'; from epg.cli import main; main()"
    )
    other = ("python", "-c", older, *EPG[3:])
    process = site.command("mpirun", "-n", "1", *EPG, ":", "-n", "1", *other)
    process.end()
    assert "found epg 0.0.1, the master has" in process.said
    assert not site.run.exists()


def test_ranks_on_other_processors_are_recorded_and_warned_of(site: Site) -> None:
    elsewhere = (
        "from epg.farm import rank; rank.cpu_model = lambda: 'Another CPU'\n"
        "from epg.cli import main; main()"
    )
    other = ("python", "-c", elsewhere, *EPG[3:])
    process = site.command("mpirun", "-n", "1", *EPG, ":", "-n", "1", *other)
    assert process.end() == 0
    assert "ranks on different processors" in process.said and "Another CPU" in process.said
    log = (site.run / "log" / "rank-0.log").read_text()
    assert ": Another CPU" in log and "rank 1 is on" in log
