"""A task that makes trouble in chosen units, so that accidents come from where users' come from.

It is point-goal until the environment says otherwise. TROUBLE={"4": "raise"} raises an exception in
the lifetimes of pair 4 of generation 0 of a run with seed 0, "1:4" in those of generation 1,
whenever they are lived; with TROUBLE_ONCE=FOLDER, which takes notes, the first time only.
TROUBLE_SECONDS makes every batch of lifetimes take that much longer.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from epg.seeds import LifetimeSeed, Purpose, Stream
from epg.tasks.base import Batch, Mdp
from epg.tasks.point_goal import PointGoal


def fail() -> None:
    raise ZeroDivisionError("trouble")


def wait() -> None:
    """For whoever watches the run, and lets it go on by the file `go`; not for ever."""
    end = time.monotonic() + 3600
    while not Path("go").exists() and time.monotonic() < end:
        time.sleep(0.02)


KINDS: dict[str, Callable[[], object]] = {
    "raise": fail,
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "exit": lambda: sys.exit(0),
    "hard exit": lambda: os._exit(0),
    "wait": wait,
    "sleep": lambda: time.sleep(3600),
    "sleep deaf": lambda: (signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM}),
                           time.sleep(3600)),
    "be killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "eat": lambda: bytearray(2**30),
    "nan": lambda: None,
}  # fmt: skip


class Trouble(PointGoal):
    name = "trouble"
    summary = "point-goal with trouble"

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        time.sleep(float(os.environ.get("TROUBLE_SECONDS", "0")))
        for mdp in mdps:
            pair = self._chosen(mdp)
            if pair is not None and is_due(pair):
                KINDS[chosen()[pair]]()
        return super().batch(mdps, rngs, device, restart)

    def score(self, mdps: Sequence[Mdp], returns: np.ndarray) -> np.ndarray:
        nan = [chosen().get(self._chosen(mdp) or "") == "nan" for mdp in mdps]
        return np.where(nan, np.nan, super().score(mdps, returns))

    def _chosen(self, mdp: Mdp) -> str | None:
        """The pair whose MDP it is, if that is one that makes trouble."""
        for pair in chosen():
            generation, _, number = pair.rpartition(":")
            seed = LifetimeSeed(0, Purpose.TRAINING, int(generation or 0), int(number))
            if dict(mdp) == dict(self.draw(seed.rng(Stream.MDP))):
                return pair
        return None


def chosen() -> dict[str, str]:
    """What each pair does."""
    kinds: dict[str, str] = json.loads(os.environ.get("TROUBLE", "{}"))
    return kinds


def is_due(pair: str) -> bool:
    """Whether it does so again."""
    if "TROUBLE_ONCE" not in os.environ:
        return True
    try:
        Path(os.environ["TROUBLE_ONCE"], f"pair-{pair}").open("x").close()
    except FileExistsError:
        return False
    return True
