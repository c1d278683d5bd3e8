"""`epg report`: a page about a run, or several seeds of it, that needs nothing but itself."""

from __future__ import annotations

import base64
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import jinja2

from epg import tasks
from epg.config import Config, refuse_own
from epg.errors import UserError
from epg.evaluation.course import CONFIG, Run, read_run
from epg.evaluation.evaluate import OVER, PROTOCOL, Evaluation, carry_out, read_protocol
from epg.evaluation.gradients import GradientReport, inspect
from epg.evaluation.plot import plot_fitness, plot_panels
from epg.evaluation.protocol import SavedFiles, plan
from epg.evaluation.scores import REFERENCE, columns_of, remarks
from epg.evaluation.verdict import answers, verdict
from epg.methods.base import Method
from epg.process.launcher import launched_size
from epg.runs.files import foreseen, write_durably
from epg.version import __version__

PAGE, PICTURES = "report.html", "report"
TEMPLATE = "report.html.j2"
LIBRARIES = ("torch", "numpy", "mujoco", "gymnasium", "evotorch", "scipy")
WATCHED = 16
"""Lifetimes in which the loss's gradients are looked at."""


@dataclass(frozen=True)
class Subject:
    """What a page is about: a run, or runs that differ by their seed alone."""

    path: Path
    runs: tuple[Run, ...]

    @property
    def config(self) -> Config:
        """The first one's, of which the others differ by the seed."""
        return self.runs[0].config

    @property
    def method(self) -> type[Method]:
        return self.runs[0].method

    @property
    def losses(self) -> list[Path]:
        """The best of each run that has one."""
        return [run.best for run in self.runs if run.best.exists()]


def report(
    run: str | Path,
    lifetimes: int = 32,
    methods: Sequence[str] | None = None,
    trust: bool = False,
) -> Path:
    """Write RUN/report.html and its pictures to RUN/report; the page.

    run: a run directory, or a folder of several that differ by their seed alone. The table and
    learning curves are those of RUN/evaluation. If there is none of the best losses, they are
    evaluated, with so many lifetimes beside these methods, the usual ones if None, on the tasks of
    their training. trust: as of `epg.load`. Raises `UserError` for what a user can mend.
    """
    if launched_size() > 1:
        raise UserError(
            "a report is made by one process; evaluate on several ranks before, with "
            f"epg evaluate {run}/best.safetensors … --out {run}/evaluation"
        )
    found = read_subject(Path(run), trust)
    evaluation = None
    anatomies: list[GradientReport] = []
    if found.losses:
        files = SavedFiles(found.losses, trust)  # once: a run under way may replace it
        evaluation = _evaluate(found, files, lifetimes, methods, trust)
        if len(found.runs) == 1 and found.method.dissect is not Method.dissect:
            specs = tasks.parts_of(found.config.task)
            made = files.saved[0].method(tasks.make(specs[0]))
            if made.dissect(files.saved[0].params, 1) is not None:
                anatomies = [inspect(files, spec, WATCHED) for spec in specs]
    pictures = _pictures(found, evaluation, anatomies)
    folder, page = found.path / PICTURES, found.path / PAGE
    try:
        folder.mkdir(exist_ok=True)
        for name, image in pictures.items():
            write_durably(folder / f"{name}.png", image)
        write_durably(page, _render(found, evaluation, anatomies, pictures).encode())
    except OSError as error:
        raise foreseen(error) from None
    return page


def read_subject(path: Path, trust: bool = False) -> Subject:
    """A run, or the runs of a folder. Raises `UserError` for runs that differ by more than seed."""
    below = [] if (path / CONFIG).is_file() else sorted(path.glob(f"*/{CONFIG}"))
    runs = [read_run(file.parent, trust) for file in below] or [read_run(path, trust)]
    first, *others = runs
    for other in others:
        if other.config.replace(seed=first.config.seed) != first.config:
            raise UserError(
                f"{path}: {first.path.name} and {other.path.name} differ by more than their seed; "
                "name one of them"
            )
    return Subject(path, tuple(runs))


def _evaluate(
    subject: Subject, files: SavedFiles, lifetimes: int, methods: Sequence[str] | None, trust: bool
) -> Evaluation | None:
    """The evaluation of the best losses that is there, finished if it was not, or a new one."""
    parts = tasks.parts_of(subject.config.task)
    protocol = plan(files, parts, methods=methods, lifetimes=lifetimes)
    names = ("evaluation", f"evaluation-{sum(saved.step for saved in files.saved)}")
    for out in (subject.path / name for name in names):
        if not out.exists():
            return carry_out(protocol, files, out)
        if (out / PROTOCOL).exists():
            known = read_protocol(out)
            refuse_own([known.tasks, known.methods], str(out / PROTOCOL), trust)
            if known.losses == protocol.losses:
                return carry_out(known, files, out)
    raise UserError(
        f"{subject.path}: {' and '.join(names)} hold something else than an evaluation of "
        f"{' and '.join(files.paths)}; move one away"
    )


def _pictures(
    subject: Subject, evaluation: Evaluation | None, anatomies: list[GradientReport]
) -> dict[str, bytes]:
    """PNGs by name."""
    metrics = [run.metrics for run in subject.runs]
    courses = [(run.metrics, run.final) for run in subject.runs]
    found = {"fitness": plot_fitness(courses, _level_of_ppo(subject.config, evaluation))}
    if subject.method.panels:
        found["health"] = plot_panels(metrics, subject.method.panels)
    for name, image in evaluation.pictures().items() if evaluation else ():
        found[f"curves-{name}"] = image
    for anatomy in anatomies:
        found[f"anatomy-{tasks.file_name(anatomy.task)}"] = anatomy.picture()
    return found


def _level_of_ppo(config: Config, evaluation: Evaluation | None) -> float | None:
    """What the fitness of agents with PPO would be; None if that is not known."""
    if isinstance(config.task, list):  # on a scale, if it has one, on which PPO is 1
        scaled = all(isinstance(part, dict) and "scale" in part for part in config.task)
        return 1.0 if scaled else None
    if evaluation is None or evaluation.protocol.updates != config.lifetime.updates:
        return None
    for task in evaluation.tasks:
        if task.task == tasks.make(config.task).name and REFERENCE in task.samples():
            return float(task.samples()[REFERENCE].finals.mean())
    return None


def _render(
    subject: Subject,
    evaluation: Evaluation | None,
    anatomies: list[GradientReport],
    pictures: Mapping[str, bytes],
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("epg.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["file_name"] = tasks.file_name
    environment.globals |= {"columns_of": columns_of, "remarks": remarks}
    return environment.get_template(TEMPLATE).render(
        subject=subject,
        name=subject.path.resolve().name,
        task=tasks.label(subject.config.task),
        verdicts=[
            line
            for task in evaluation.tasks
            for line in (
                verdict(task, evaluation.files.names, evaluation.protocol),
                *answers(task.samples(), evaluation.files.names),
            )
        ]
        if evaluation
        else [],
        evaluation=evaluation,
        over=OVER,
        anatomies=anatomies,
        pictures={name: base64.b64encode(image).decode() for name, image in pictures.items()},
        versions={"epg": __version__, "Python": platform.python_version()}
        | {name: version(name) for name in LIBRARIES},
    )
