"""`epg evaluate`: ways of learning, learned or hand-made, side by side on held-out MDPs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from epg import tasks
from epg.errors import INTERRUPTIONS, UserError
from epg.evaluation import transfer
from epg.evaluation.entries import entries_of
from epg.evaluation.entry import Entry, EntryResult, EntryRunner, check_entries
from epg.evaluation.plot import Curve, colors_of, plot_courses, plot_curves
from epg.evaluation.protocol import Protocol, SavedFiles, plan
from epg.evaluation.scores import (
    Families,
    Row,
    Score,
    TaskScores,
    course_of,
    csv_of,
    normalised,
    rows_of,
    scores_of,
    table_of,
)
from epg.evaluation.tables import wrap
from epg.evaluation.verdict import answers
from epg.farm import Farm
from epg.farm.run import run_on_ranks
from epg.farm.worker import failing_together
from epg.methods.frozen_rule import saved_eta
from epg.methods.saved import Saved
from epg.process.log import open_log
from epg.runs.files import as_mistakes, foreseen, read_bytes, remove_unfinished, write_durably
from epg.runs.journal import Journal
from epg.runs.lock import Lock
from epg.seeds import Purpose
from epg.settings import parse_yaml
from epg.upgrade import upgrade_protocol

PROTOCOL, JOURNAL = "protocol.yaml", "journal.jsonl"
OVER = (
    "Intervals: 95 %, stratified bootstrap. Over lifetimes they speak of these losses; rows over "
    "evolution seeds, each seed one number, of the method that evolved them. A tie counts half in "
    "P(> ppo)."
)


@dataclass(frozen=True)
class Evaluation:
    """All methods on all tasks."""

    protocol: Protocol
    tasks: tuple[TaskScores, ...]
    files: SavedFiles
    out: Path

    @property
    def trained_on(self) -> dict[str, str]:
        """By loss, and by family of losses."""
        found = {
            name: " + ".join(saved.tasks)
            for name, saved in zip(self.files.names, self.files.saved, strict=True)
        }
        return found | {
            family: found[members[0]] for family, members in self.files.families().items()
        }

    @property
    def steps(self) -> int:
        """Environment steps of all lifetimes, final episodes included."""
        return sum(score.result.steps for task in self.tasks for score in task.scores)

    @property
    def core_hours(self) -> float:
        return sum(s.result.core_seconds for task in self.tasks for s in task.scores) / 3600

    @cached_property
    def overall(self) -> list[Row]:
        """Over all tasks, normalised: random 0, PPO 1; empty where that cannot be."""
        samples = normalised(self.tasks) if len(self.tasks) > 1 else {}
        return rows_of(samples, self.tasks[0].families) if samples else []

    def table(self, published: bool = False) -> str:
        """For people; `published`: MetaGenRL's table 1 beside ours."""
        parts = [self._task_text(task) for task in self.tasks]
        if len(self.tasks) > 1:
            parts.append("\n".join(self._overall_lines()))
        if len(self.tasks) > 1 or published:
            parts.append("\n".join(transfer.table(self.tasks, self.trained_on, published)))
        return "\n\n".join([*parts, "\n".join([*wrap(OVER), f"written to {self.out}"])])

    def _task_text(self, task: TaskScores) -> str:
        """Its table, and what was asked of each file."""
        said = answers(task.samples(), self.files.names)
        return "\n".join([task.table(), *(line for answer in said for line in wrap(answer))])

    def _overall_lines(self) -> list[str]:
        if not self.overall:
            return wrap(
                "no scores over all tasks: they need the methods random and ppo, and a ppo "
                "above random on every task"
            )
        head = "all tasks, each on its own scale: random 0, ppo 1"
        if not all(found["ppo"].exact for found in self.protocol.tuned.values()):
            head += " (which is not tuned for all of them)"
        return [*wrap(head), "", *table_of(self.overall)]

    def pictures(self) -> dict[str, bytes]:
        """Learning curves on each task, as PNGs by file name; a method has one colour in all."""
        family = {name: f for f, names in self.files.families().items() for name in names}
        learned = dict.fromkeys(family.get(name, name) for name in self.files.names)
        colors = colors_of(list(learned))
        found = {}
        for task in self.tasks:
            together: dict[str, list[Score]] = {}
            for score in task.scores:
                name = score.entry.method
                together.setdefault(family.get(name, name), []).append(score)
            curves = [
                Curve(name, colors(name), tuple(score.result.episode_returns for score in scores),
                      sum(score.failures for score in scores))
                for name, scores in together.items()
            ]  # fmt: skip
            found[tasks.file_name(task.task)] = plot_curves(task.task, curves, task.steps)
            courses = {
                score.entry.method: score.result.course
                for score in task.scores
                if score.result.course
            }
            if courses:
                name = f"{tasks.file_name(task.task)}-course"
                found[name] = plot_courses(task.task, courses, colors, task.steps)
        return found

    def tuned_rules(self) -> dict[str, Saved]:
        """What methods tuned within the lives on each task, by file name."""
        specs = {tasks.make(spec).name: spec for spec in self.protocol.tasks}
        made = {
            f"{tasks.file_name(task.task)}-{score.entry.method}": saved_eta(
                score.entry.method, score.entry.task, specs[task.task], score.entry.setup,
                self.protocol.seed, score.result.kept,
            )
            for task in self.tasks
            for score in task.scores
            if score.result.kept
        }  # fmt: skip
        return {name: saved for name, saved in made.items() if saved is not None}

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
    losses: str | Path | Sequence[str | Path] = (),
    task: str | dict[str, Any] | list[str | dict[str, Any]] = "",
    *,
    methods: Sequence[str] | None = None,
    lifetimes: int = 32,
    out: str | Path = "evaluation",
    trust: bool = False,
    **asked: Any,
) -> Evaluation | None:
    """Every saved file and method on every task. The same call again goes on where it stopped.

    In one process, or, where mpirun or srun started several, as their master or worker; None on
    workers. Into `out`: evaluation.json, returns.csv and a picture a task; of methods that tune
    themselves course.csv, a picture of it, and what they came to as a file that can be evaluated.
    losses: saved files, one or none, made for these tasks or, with zeros for padding, for larger
    ones; task: one or a list, each by itself, that of the first file's training if empty; methods:
    as `epg methods` lists them, untrained, blind, fixed-policy or pretrained, the usual ones if
    None; trust: as of `epg.load`; asked: updates, U, as in the first file's training if None;
    hidden, activation: of the agents, learning_rate: of those that learn by a file, alpha: weight
    of PPO beside it, all as in its training if None; seed: of the held-out MDPs and all else, 0.
    Every way of learning has the same MDPs, chance and environment steps. Raises `UserError` for
    what a user can mend.
    """
    paths = [losses] if isinstance(losses, str | Path) else list(losses)
    files = SavedFiles(paths, trust)
    specs = tasks.parts_of(task) if task else files.tasks(trust)
    if methods is None and (Path(out) / PROTOCOL).is_file():  # as it was begun
        methods = read_protocol(Path(out)).methods
    protocol = plan(files, specs, methods=methods, lifetimes=lifetimes, **asked)
    return carry_out(protocol, files, Path(out))


def carry_out(protocol: Protocol, files: SavedFiles, out: Path) -> Evaluation | None:
    """An evaluation that was planned, or what is missing of it; None on workers."""
    refuse_others(out, protocol)
    entries = list(entries_of(protocol, files))
    check_entries(entries, protocol.lifetimes)
    runner = EntryRunner(protocol, entries, protocol.seed, Purpose.EVALUATION)
    results: list[Evaluation] = []

    def main(farm: Farm) -> None:
        results.append(_master(farm, out, runner, protocol, files))

    run_on_ranks(runner, out / "log", main)
    return results[0] if results else None


@as_mistakes()
def refuse_others(out: Path, protocol: Protocol) -> None:
    """Raise `UserError` if a folder holds something else than this evaluation."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file, expected a folder or none")
    files = [file for file in out.iterdir() if file.name != "lock"] if out.exists() else []
    if not any(not file.name.startswith(".") for file in files):
        return
    if not (out / PROTOCOL).exists():
        raise UserError(f"{out}: holds other files and no {PROTOCOL}; name a new --out")
    theirs, ours = read_protocol(out).numbers(), protocol.numbers()
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
        data = upgrade_protocol(parse_yaml(read_bytes(path).decode()))
        return Protocol.model_validate_json(json.dumps(data))
    except (TypeError, ValueError, OSError, UserError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be read ({reason})") from None


def _master(
    farm: Farm, out: Path, runner: EntryRunner, protocol: Protocol, files: SavedFiles
) -> Evaluation:
    """The master's part."""
    try:
        with Lock(out / "lock") as lock:
            refuse_others(out, protocol)  # who came first may have made it theirs
            remove_unfinished(out)
            former = _former_hash(out)
            if former is None:  # first, as without it no folder is known again
                write_durably(out / PROTOCOL, protocol.yaml().encode())
            journal = Journal(out / JOURNAL, protocol.hash(), {}, former)
            journal.read(0)  # which now belongs to the protocol as it is written today
            if former not in (None, protocol.hash()):
                write_durably(out / PROTOCOL, protocol.yaml().encode())
            open_log(out / "log", 0)
            results = runner.collect(farm, protocol.lifetimes, journal, lock)
            lived = [(runner.entries[i], result) for i, result in enumerate(results)]
            result = Evaluation(protocol, _by_task(lived, files.families()), files, out)
            _write(result)
            return result
    except INTERRUPTIONS:
        print(f"{out}: what is finished is saved; the same command goes on", flush=True)
        raise
    except OSError as error:
        if not error.filename:
            raise
        raise foreseen(error) from None


def _former_hash(out: Path) -> str | None:
    """The hash of the protocol that stands in a folder, by the text that it has there."""
    path = out / PROTOCOL
    return hashlib.sha256(read_bytes(path)).hexdigest()[:16] if path.exists() else None


def _by_task(
    lived: Sequence[tuple[Entry, EntryResult]], families: Families
) -> tuple[TaskScores, ...]:
    return tuple(
        TaskScores(name, scores_of([pair for pair in lived if pair[0].task.name == name]), families)
        for name in dict.fromkeys(entry.task.name for entry, _ in lived)
    )


def _write(result: Evaluation) -> None:
    text = json.dumps(result.plain(), indent=1, ensure_ascii=False) + "\n"
    write_durably(result.out / "evaluation.json", text.encode())
    write_durably(result.out / "returns.csv", csv_of(result.tasks).encode())
    if any(score.result.course for task in result.tasks for score in task.scores):
        write_durably(result.out / "course.csv", course_of(result.tasks).encode())
    for name, saved in result.tuned_rules().items():
        saved.save(result.out / f"{name}.safetensors")
    for name, image in result.pictures().items():
        write_durably(result.out / f"{name}.png", image)
