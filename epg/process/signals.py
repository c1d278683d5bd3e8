"""What signals ask of a process, and a limit on the time that a piece of work may take.

SIGTERM ends it at once. SIGUSR1 asks it to finish what takes no longer than its grace, to drop the
rest, and to end with what it has.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from epg.errors import SaveRequested, Terminated

PR_SET_PDEATHSIG = 1
USUAL_GRACE = 20.0
LONGEST_SECONDS = 1e9
"""A timer takes no infinity."""
ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_grace = [USUAL_GRACE]
"""Seconds."""
_asked: list[float] = []
"""When SIGUSR1 came first."""
_ending: list[int] = []
"""The signal that ends this process."""
_left: dict[int, Any] = {}
"""Handlers that are to be heard again."""


class OverdueError(Exception):
    """Work took longer than it may."""


def install_end_handlers() -> None:
    """From now on SIGTERM raises `Terminated`, and SIGINT as ever KeyboardInterrupt, but once.

    Launchers and schedulers may send several, and the orderly end is not to be disturbed.
    """
    signal.signal(signal.SIGTERM, _end)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end)


def default_handlers() -> None:
    """Let signals end this process as they would any other, until `restore_handlers`.

    A rank that ends by a signal takes the job along. If it ended in an orderly way before MPI is
    up, the others would wait for it there for ever.
    """
    for number in ENDS:
        handler = signal.getsignal(number)
        if handler is not signal.SIG_IGN:
            _left[number] = handler
            signal.signal(number, signal.SIG_DFL)


def restore_handlers() -> None:
    """Undo `default_handlers`, if it was called."""
    while _left:
        signal.signal(*_left.popitem())


def forget_requests() -> None:
    """In a fork: what was asked of the parent is not its matter."""
    _asked.clear()


def install_save_handler() -> None:
    """From now on SIGUSR1 asks to save and to end."""
    signal.signal(signal.SIGUSR1, _note)


def set_grace(seconds: float) -> None:
    """What is at work when SIGUSR1 comes may take so long."""
    _grace[0] = seconds


def asked_to_save() -> bool:
    """Whether SIGUSR1 came: begin nothing new."""
    return bool(_asked)


def grace_is_over() -> bool:
    """Whether SIGUSR1 came so long ago that what still runs is to be dropped."""
    return bool(_asked) and time.monotonic() - _asked[0] > _grace[0]


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `OverdueError` in the body after so long, or `SaveRequested` when the grace is over.

    Python hears signals in its main thread alone; elsewhere there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop_work(number: int, frame: object) -> None:
        if asked_to_save():
            raise SaveRequested
        raise OverdueError(f"took longer than {seconds:.3g} s")

    before = signal.signal(signal.SIGALRM, stop_work)
    signal.setitimer(signal.ITIMER_REAL, min(seconds, LONGEST_SECONDS))
    try:
        if asked_to_save():
            raise SaveRequested
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _end(number: int, frame: object) -> None:
    if _ending:
        return
    _ending.append(number)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _note(number: int, frame: object) -> None:
    _asked.append(time.monotonic())
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    if left > _grace[0]:
        signal.setitimer(signal.ITIMER_REAL, _grace[0])


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Have the kernel end this process by a signal when its parent is gone (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it went in the meantime
        os.kill(os.getpid(), number)
