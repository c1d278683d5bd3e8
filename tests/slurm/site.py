"""A login node of the cluster that the tests start."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import patience
from accidents.site import HERE

REQUEUE_SECONDS = 3
"""A job that starts anew before SLURM has buried its last start fails at once."""
CONFIG = """\
task: trouble:Trouble
steps: 3
method: {name: epg, pairs: 10}
agent: {hidden: [8], memory: 4}
lifetime: {updates: 2, steps_per_update: 32, final_episodes: 1}
learner: {buffer: 64, minibatch: 16}
validation: {every: 2, lifetimes: 4}
farm: {chunk: 1, least_deadline: 10.0}
"""


class Login:
    """A login node: a folder with a configuration, and commands that are typed there."""

    def __init__(self, folder: Path, epg: Callable[..., Any]) -> None:
        """epg: the fixture of that name."""
        self.folder = folder
        self._epg = epg
        self.run = folder / "runs" / "one"
        (folder / "config.yaml").write_text(CONFIG)
        self.jobs: list[str] = []

    def type(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command, with the environment's own Python."""
        return patience.run(command, self.folder, **self._environment())

    def epg(self, *arguments: str, **environment: str) -> Any:
        """`epg ARGUMENT…`: what it says."""
        return self._epg(
            *arguments, folder=self.folder, before=f"sys.path.insert(0, {HERE!r})",
            environment=os.environ | self._environment() | environment,
        )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "PYTHONPATH": HERE}

    def submit(self, *more: str, **environment: str) -> str:
        """`epg submit config.yaml --run runs/one …` with 2 ranks; the job's number."""
        said = self.epg(
            "submit", "config.yaml", "--run", "runs/one", "--tasks", "2", *more, **environment
        )
        assert said.code == 0, said
        return self.note(re.search(r"job (\d+)", said.out)[1])  # type: ignore[index]

    def status(self) -> dict[str, Any]:
        """Of the run, by `epg status`."""
        said = self.epg("status", "runs/one", "--json")
        [row] = json.loads(said.out.splitlines()[-1])["runs"]
        return dict(row)

    def note(self, job: str) -> str:
        """Remember a job, so that it ends with the test."""
        self.jobs.append(job)
        return job

    def told(self, job: str) -> str:
        """All that SLURM tells of a job; empty once it has forgotten."""
        return self.type("scontrol", "show", "job", "--oneliner", job).stdout

    def state(self, job: str) -> str:
        """Of all tasks of a job."""
        return " ".join(re.findall(r"JobState=(\w+)", self.told(job)))

    def wait_for(self, what: Callable[[], object], job: str = "") -> None:
        """Until it is so."""
        waiting = patience.Patience(self.folder)
        while not what():
            waiting.ask(job and self.told(job), self.said())
            time.sleep(0.1)

    def wait_for_end(self, job: str, state: str = "COMPLETED") -> None:
        """Of a job, all of its tasks."""
        over = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
        self.wait_for(lambda: set(self.state(job).split()) <= over, job)
        assert set(self.state(job).split()) == {state}, self.said()

    def see_through(self, job: str) -> None:
        """To its end; a requeued job, which would wait for two minutes, is told not to."""
        over = "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"
        while (state := self.state(job)) not in over:
            if state == "PENDING":
                time.sleep(REQUEUE_SECONDS)
                self.type("scontrol", "update", f"JobId={job}", "StartTime=now")
            self.wait_for(lambda was=state: self.state(job) != was, job)  # type: ignore[misc]
        assert state == "COMPLETED", (self.told(job), self.said())

    def said(self) -> str:
        """What all jobs have said."""
        return "\n".join(f"{p}:\n{p.read_text()}" for p in self.folder.rglob("*.out"))

    def read_state(self, run: Path | None = None) -> dict[str, object]:
        """state.json, empty if there is none yet."""
        try:
            state: dict[str, object] = json.loads(((run or self.run) / "state.json").read_text())
        except FileNotFoundError:
            return {}
        return state

    def units(self) -> int:
        """Lines of the journal but its header."""
        journal = self.run / "journal.jsonl"
        return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0

    def master(self) -> int:
        """The process id of the master in its newest start."""
        log = (self.run / "log" / "rank-0.log").read_text()
        return int(re.findall(r", pid (\d+)", log)[-1])

    def close(self) -> None:
        for job in self.jobs:
            subprocess.run(["scancel", "--full", "--signal=KILL", job], capture_output=True)
            subprocess.run(["scancel", job], capture_output=True)
