"""A run that accidents happen to, and what must be true afterwards."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from patience import Patience
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CONFIG = """\
task: trouble:Trouble
steps: 2
method: {name: epg, pairs: 10}
agent: {hidden: [8], memory: 4}
lifetime: {updates: 2, steps_per_update: 32, final_episodes: 1}
learner: {buffer: 64, minibatch: 16}
validation: {every: 2, lifetimes: 4}
farm: {chunk: 1, least_deadline: 1.0}
"""
EPG = ("python", "-m", "epg", "train", "config.yaml", "--run", "run")
TIMED = ("core_seconds", "steps_per_second")
HERE = str(Path(__file__).parent)


@dataclass
class Process:
    """`epg train config.yaml --run run …` in a folder, with what it says in a file."""

    popen: subprocess.Popen[bytes]
    file: Path

    @property
    def said(self) -> str:
        return self.file.read_text()

    @property
    def pid(self) -> int:
        return self.popen.pid

    def tell(self, number: int) -> None:
        self.popen.send_signal(number)

    def end(self) -> int:
        """Its exit code; negative if a signal ended it."""
        patience = Patience(self.file.parent)
        while True:
            try:
                return self.popen.wait(1)
            except subprocess.TimeoutExpired:
                patience.ask(self.said)


class Site:
    """A folder where one run is started again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = folder / "run"
        (folder / "config.yaml").write_text(CONFIG)
        self._running: list[Process] = []

    def start(
        self, *more: str, launcher: Sequence[str] = (), trouble: dict[str, str] | None = None
    ) -> Process:
        """Start it in the background."""
        return self.command(*launcher, *EPG, *more, environment=trouble)

    def command(self, *command: str, environment: dict[str, str] | None = None) -> Process:
        """Start any command in the background, with the environment's own Python and mpirun."""
        file = self.folder / f"said-{len(self._running)}"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with open(file, "wb") as out:
            popen = subprocess.Popen(
                command, cwd=self.folder, stdout=out, stderr=out, start_new_session=True,
                env=os.environ | {"PATH": path, "PYTHONPATH": HERE} | (environment or {}),
            )  # fmt: skip
        self._running.append(Process(popen, file))
        return self._running[-1]

    def go(self) -> None:
        """Let units go on that wait for it."""
        (self.folder / "go").touch()

    def wait_for(self, what: Callable[[], bool]) -> None:
        """Until it is so."""
        patience = Patience(self.folder)
        while not what():
            said = self._running[-1].said
            patience.ask(said)
            assert self._running[-1].popen.poll() is None, said
            time.sleep(0.02)

    def units(self) -> int:
        """Lines in the journal, its header not counted."""
        journal = self.run / "journal.jsonl"
        return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0

    def generations(self) -> int:
        return len(rows(self.run))

    def pid(self, rank: int, which: int = 0) -> int:
        """Of a rank in the newest start; `which` 1 is the process that runs its units."""
        log = (self.run / "log" / f"rank-{rank}.log").read_text().splitlines()
        pids = [int(line.split("pid ")[1].split()[0]) for line in log if ", pid " in line]
        return pids[-2:][which] if rank else pids[-1]

    def state(self) -> dict[str, object]:
        state: dict[str, object] = json.loads((self.run / "state.json").read_text())
        return state

    def close(self) -> None:
        """End what still runs."""
        for process in self._running:
            if process.popen.poll() is None:  # the front takes mpirun and its ranks along
                process.tell(signal.SIGTERM)
                process.end()


def children(pid: int) -> list[int]:
    """Of a process; none if it is gone."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def ranks_below(front: int) -> list[int]:
    """The ranks that a front's mpirun has started so far."""
    return [rank for run in children(front) for proxy in children(run) for rank in children(proxy)]


def rows(run: Path) -> list[dict[str, str]]:
    """Of metrics.csv, without what the clock says."""
    if not (run / "metrics.csv").exists():
        return []
    with open(run / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMED} for row in csv.DictReader(file)]


def check_same(run: Path, twin: Path) -> None:
    """Fails unless a run has come to what its undisturbed twin has, and shows it once."""
    for name in ("loss.safetensors", "best.safetensors"):
        ours, theirs = load_file(run / name), load_file(twin / name)
        assert {k: v.numpy().tobytes() for k, v in ours.items()} == {
            k: v.numpy().tobytes() for k, v in theirs.items()
        }, name
    assert rows(run) == rows(twin)
    assert (run / "DONE").read_text() == (twin / "DONE").read_text()
    assert not [path for path in run.rglob("*") if path.name.endswith(".new")]
    events = EventAccumulator(str(run)).Reload()
    shown = Counter(point.step for point in events.Scalars("fitness_mean"))
    assert shown == Counter(int(row["generation"]) for row in rows(twin))
