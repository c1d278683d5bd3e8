"""A runner in a process of its own: whatever a unit does there ends that process alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

from epg.farm.gpu import use_only
from epg.farm.work import Failure, Outcome, Runner, Shared, Unit
from epg.process.signals import ENDS, die_with_parent, forget_requests

OWN_FAULTS = {-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL, -signal.SIGABRT,
              -signal.SIGSYS, -signal.SIGTRAP}  # fmt: skip
"""Exit codes of a process that no other has killed; those from 0 on are such, too."""


class KilledError(Exception):
    """The runner's process was killed from outside: that says nothing of its unit."""


class IsolatedRunner:
    """Runs units in a fork of this process, which is forked anew after it died.

    To be made before MPI is initialised and before torch has started threads. A fork that comes
    later, after an accident, never touches MPI.
    """

    def __init__(self, runner: Runner, log: Callable[[], None]) -> None:
        """log: opens the log in the new process, once there is work for it."""
        self._runner = runner
        self._log = log
        self.gpu: str | None = None
        """what the process is to use, known when MPI is up"""
        self._shared: Shared | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self._runner, self._log, os.getpid())
        )
        self._process.start()
        theirs.close()
        self._told: Shared | None = None

    def begin(self, newer: Shared | None, unit: Unit) -> None:
        """Set it to work on a unit, with what its step shares unless it has that already."""
        self._shared, self._unit = newer or self._shared, unit
        known = self._told is self._shared
        with suppress(BrokenPipeError):  # `outcome` finds out why
            self._pipe.send((None if known else self._shared, unit, self.gpu))
        self._told = self._shared

    def outcome(self, seconds: float) -> Outcome | None:
        """What became of the unit; None if it still runs after so many seconds more.

        Raises `KilledError` if someone else has killed the process.
        """
        if not self._pipe.poll(seconds):
            return None
        try:
            outcome: Outcome = self._pipe.recv()
        except (EOFError, OSError):  # it died, maybe in the middle of a word
            return self._died()
        return outcome

    def give_up(self, why: str) -> Failure:
        """Drop the unit."""
        self.stop()
        self._start()
        return Failure(self._unit, why)

    def stop(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _died(self) -> Failure:
        self._process.join()
        code = self._process.exitcode or 0
        if code < 0 and code not in OWN_FAULTS:
            raise KilledError(f"{signal.Signals(-code).name} ended {self._unit}")
        return self.give_up(
            f"its process ended with exit code {code}"
            if code >= 0
            else f"its process died of {signal.Signals(-code).name}"
        )


def _serve(pipe: Connection, runner: Runner, open_log: Callable[[], None], parent: int) -> None:
    """Run units until the other end closes."""
    die_with_parent(parent)
    for number in ENDS:  # they concern the master
        signal.signal(number, signal.SIG_IGN)
    forget_requests()
    known: Shared | None = None
    begun = False
    while True:
        try:
            newer, unit, gpu = pipe.recv()
        except EOFError:
            return
        if not begun:
            begun = True
            open_log()
            if gpu is not None:
                use_only(gpu)
        known = newer or known
        pipe.send(runner.attempt(known, unit))
