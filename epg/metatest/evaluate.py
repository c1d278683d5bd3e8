"""`epg evaluate`: fresh agents raised with saved losses and with baselines, on held-out MDPs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from epg import tasks
from epg.config import parse_yaml
from epg.errors import INTERRUPTIONS, RunError, UserError
from epg.farm import Farm
from epg.farm.journal import Journal
from epg.farm.roles import take_part
from epg.farm.worker import failing_together
from epg.files import remove_unfinished, write_durably
from epg.lock import Lock
from epg.log import open_log
from epg.metatest import transfer
from epg.metatest.methods import subjects_of
from epg.metatest.plot import plot_curves
from epg.metatest.protocol import Losses, Protocol, plan
from epg.metatest.scores import (
    Families,
    Row,
    TaskScores,
    csv_of,
    normalised,
    rows_of,
    scores_of,
    table_of,
)
from epg.metatest.subjects import Lives, Subject, SubjectRaiser, raise_all
from epg.seeds import Purpose

PROTOCOL, JOURNAL = "protocol.yaml", "journal.jsonl"
OVER = (
    "Intervals: 95 %, stratified bootstrap. Over lifetimes they speak of these losses; rows over "
    "evolution seeds,\neach seed one number, of the method that evolved them. A tie counts half in "
    "P(> ppo)."
)


@dataclass(frozen=True)
class Evaluation:
    """All methods on all tasks."""

    protocol: Protocol
    tasks: tuple[TaskScores, ...]
    losses: Losses
    out: Path

    @property
    def trained_on(self) -> dict[str, str]:
        """By loss, and by family of losses."""
        found = {
            name: " + ".join(artifact.tasks)
            for name, artifact in zip(self.losses.names, self.losses.artifacts, strict=True)
        }
        return found | {
            family: found[members[0]] for family, members in self.losses.families().items()
        }

    @property
    def steps(self) -> int:
        """Environment steps of all lifetimes, final episodes included."""
        return sum(score.lives.steps for task in self.tasks for score in task.scores)

    @property
    def core_hours(self) -> float:
        return sum(s.lives.seconds for task in self.tasks for s in task.scores) / 3600

    @cached_property
    def overall(self) -> list[Row]:
        """Over all tasks, normalised: random 0, PPO 1; empty where that cannot be."""
        samples = normalised(self.tasks) if len(self.tasks) > 1 else {}
        return rows_of(samples, self.tasks[0].families) if samples else []

    def table(self, published: bool = False) -> str:
        """For people; `published`: MetaGenRL's table 1 beside ours."""
        parts = [task.table() for task in self.tasks]
        if len(self.tasks) > 1:
            parts.append("\n".join(self._overall_lines()))
        if len(self.tasks) > 1 or published:
            parts.append("\n".join(transfer.table(self.tasks, self.trained_on, published)))
        return "\n\n".join([*parts, f"{OVER}\nwritten to {self.out}"])

    def _overall_lines(self) -> list[str]:
        if not self.overall:
            return [
                "no scores over all tasks: they need the baselines random and ppo, and a ppo "
                "above random on every task"
            ]
        head = "all tasks, each on its own scale: random 0, ppo 1"
        if not all(found["ppo"].exact for found in self.protocol.tuned.values()):
            head += " (which is not tuned for all of them)"
        return [head, *table_of(self.overall)]

    def pictures(self) -> dict[str, bytes]:
        """Learning curves on each task, as PNGs by file name; a method has one colour in all."""
        methods = dict.fromkeys(s.subject.method for task in self.tasks for s in task.scores)
        colors = {name: f"C{i}" for i, name in enumerate(methods)}
        found = {}
        for task in self.tasks:
            curves, shown = {}, {}
            for score in task.scores:
                failed = f" ({score.failures} failed)" if score.failures else ""
                label = score.subject.method + failed
                curves[label] = score.lives.episode_returns
                shown[label] = colors[score.subject.method]
            steps = task.scores[0].subject.life.steps_per_update
            found[tasks.file_name(task.task)] = plot_curves(task.task, curves, steps, shown)
        return found

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "protocol": self.protocol.model_dump(mode="json"),
            "tasks": [task.plain() for task in self.tasks],
            "overall": [row.plain() for row in self.overall],
            "trained_on": self.trained_on,
        }


@failing_together()
def evaluate(
    losses: str | Path | Sequence[str | Path],
    task: str | dict[str, Any] | list[str | dict[str, Any]],
    *,
    lifetimes: int = 32,
    updates: int | None = None,
    hidden: Sequence[int] | None = None,
    activation: str | None = None,
    learning_rate: float | None = None,
    alpha: float | None = None,
    baselines: Sequence[str] = ("ppo", "random"),
    seed: int = 0,
    out: str | Path = "evaluation",
) -> Evaluation | None:
    """Raise agents with every loss and baseline. The same call again goes on where it stopped.

    In one process, or, where mpirun or srun started several, as their master or worker; None on
    workers. Into `out`: evaluation.json, returns.csv and a picture a task.
    losses: files, or one, made for these tasks or, with zeros for padding, for larger ones; task:
    one or a list, each by itself; updates: U, as in the first loss's training if None; hidden,
    activation: of the agents, learning_rate: of those with a loss, alpha: weight of PPO beside the
    losses, all as in their training if None. Every method has the same MDPs, chance and
    environment steps. Raises `UserError` for what a user can mend.
    """
    paths = [losses] if isinstance(losses, str | Path) else list(losses)
    found = Losses(paths)
    protocol = plan(
        found, tasks.parts_of(task), lifetimes=lifetimes, updates=updates, hidden=hidden,
        activation=activation, learning_rate=learning_rate, alpha=alpha, baselines=baselines,
        seed=seed,
    )  # fmt: skip
    return carry_out(protocol, found, Path(out))


def carry_out(protocol: Protocol, losses: Losses, out: Path) -> Evaluation | None:
    """An evaluation that was planned, or what is missing of it; None on workers."""
    refuse_others(out, protocol)
    subjects = list(subjects_of(protocol, losses))
    results: list[Evaluation] = []
    take_part(
        SubjectRaiser(protocol, subjects),
        out / "log",
        lambda farm: results.append(_lead(farm, out, protocol, losses, subjects)),
    )
    return results[0] if results else None


def refuse_others(out: Path, protocol: Protocol) -> None:
    """Raise `UserError` if a folder holds something else than this evaluation."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file, expected a folder or none")
    files = [file for file in out.iterdir() if file.name != "lock"] if out.exists() else []
    if not any(not file.name.startswith(".") for file in files):
        return
    if not (out / PROTOCOL).exists():
        raise UserError(f"{out}: holds other files and no {PROTOCOL}; name a new --out")
    theirs, ours = (p.model_dump(mode="json") for p in (read_protocol(out), protocol))
    for name, here in ours.items():
        if theirs[name] != here:
            raise UserError(
                f"{out}: holds another evaluation ({name}: there {theirs[name]}, here {here}); "
                "name a new --out"
            )


def read_protocol(out: Path) -> Protocol:
    """What is evaluated in a folder."""
    path = out / PROTOCOL
    try:
        return Protocol.model_validate_json(json.dumps(parse_yaml(path.read_text())))
    except (OSError, UnicodeDecodeError, UserError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be read ({reason})") from None


def _lead(
    farm: Farm, out: Path, protocol: Protocol, losses: Losses, subjects: Sequence[Subject]
) -> Evaluation:
    """The master's part."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with Lock(out / "lock") as lock:
            refuse_others(out, protocol)  # who came first may have made it theirs
            remove_unfinished(out)
            write_durably(out / PROTOCOL, protocol.yaml().encode())
            open_log(out / "log", 0)
            lives = raise_all(
                farm, subjects, protocol.lifetimes, Purpose.EVALUATION,
                Journal(out / JOURNAL, protocol.hash(), {}), lock,
            )  # fmt: skip
            lived = list(zip(subjects, lives, strict=True))
            result = Evaluation(protocol, _by_task(lived, losses.families()), losses, out)
            _write(result)
            return result
    except INTERRUPTIONS:
        print(f"{out}: what is finished is saved; the same command goes on", flush=True)
        raise
    except OSError as error:
        if not error.filename:
            raise
        raise RunError(f"{error.filename}: {error.strerror}") from None


def _by_task(lived: Sequence[tuple[Subject, Lives]], families: Families) -> tuple[TaskScores, ...]:
    return tuple(
        TaskScores(name, scores_of([pair for pair in lived if pair[0].task == name]), families)
        for name in dict.fromkeys(subject.task for subject, _ in lived)
    )


def _write(result: Evaluation) -> None:
    text = json.dumps(result.plain(), indent=1, ensure_ascii=False) + "\n"
    write_durably(result.out / "evaluation.json", text.encode())
    write_durably(result.out / "returns.csv", csv_of(result.tasks).encode())
    for name, image in result.pictures().items():
        write_durably(result.out / f"{name}.png", image)
