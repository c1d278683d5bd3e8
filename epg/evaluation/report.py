"""`epg report`: one page about a run, that needs nothing but itself, and its pictures."""

from __future__ import annotations

import base64
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from epg import tasks
from epg.config import Config, refuse_own
from epg.errors import RunError, UserError
from epg.evaluation.evaluate import OVER, PROTOCOL, Evaluation, carry_out, read_protocol
from epg.evaluation.gradients import GradientReport, inspect
from epg.evaluation.plot import plot_fitness, plot_panels
from epg.evaluation.protocol import SavedFiles, plan
from epg.methods.base import Method
from epg.process.launcher import launched_size
from epg.registry import find
from epg.runs.directory import read_config
from epg.runs.files import read_object, write_durably
from epg.runs.metrics import columns_of, read_rows
from epg.version import __version__

PAGE, PICTURES = "report.html", "report"
TEMPLATE = "report.html.j2"
LIBRARIES = ("torch", "numpy", "mujoco", "gymnasium", "evotorch", "scipy")
WATCHED = 16
"""Lifetimes in which the loss's gradients are looked at."""


@dataclass(frozen=True)
class Run:
    """A run as it stands on disk."""

    path: Path
    config: Config
    method: type[Method]
    state: dict[str, Any]
    final: float
    """validation of the newest φ, after the last generation; NaN before"""
    metrics: dict[str, np.ndarray]
    """a column each, [generations]; NaN where not measured"""

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    def cost(self) -> dict[str, str]:
        """What the evolution took, for people."""
        last = {name: column[-1] for name, column in self.metrics.items()}
        hours, total = last["core_seconds"] / 3600, self.config.steps
        return {
            "generations": f"{len(self.metrics['generation'])} of {total}",
            "environment steps of training": f"{last['environment_steps']:,.0f}",
            "environment steps of validation": f"{last['validation_steps']:,.0f}",
            "core-hours of lifetimes": f"{hours:.3g}",
        }


def report(
    run: str | Path,
    lifetimes: int = 32,
    methods: tuple[str, ...] = ("ppo", "random"),
    trust: bool = False,
) -> Path:
    """Write RUN/report.html and its pictures to RUN/report; the page.

    The table and learning curves are those of RUN/evaluation. If there is none of the run's best
    loss, it is evaluated, with so many lifetimes beside these methods, on the tasks of its
    training. trust: as of `epg.load`.
    Raises `UserError` for what a user can mend.
    """
    if launched_size() > 1:
        raise UserError(
            "a report is made by one process; evaluate on several ranks before, with "
            f"epg evaluate {run}/best.safetensors … --out {run}/evaluation"
        )
    found = read_run(Path(run), trust)
    evaluation = None
    anatomies: list[GradientReport] = []
    if found.best.exists():
        loss = SavedFiles([found.best], trust)  # once: a run under way may replace it
        evaluation = _evaluate(found, loss, lifetimes, methods, trust)
        if found.method.dissect is not Method.dissect:
            anatomies = [inspect(loss, spec, WATCHED) for spec in tasks.parts_of(found.config.task)]
    pictures = _pictures(found, evaluation, anatomies)
    folder, page = found.path / PICTURES, found.path / PAGE
    try:
        folder.mkdir(exist_ok=True)
        for name, image in pictures.items():
            write_durably(folder / f"{name}.png", image)
        write_durably(page, _render(found, evaluation, anatomies, pictures).encode())
    except OSError as error:
        raise RunError(f"{error.filename}: {error.strerror}") from None
    return page


def read_run(path: Path, trust: bool = False) -> Run:
    """Raises `UserError` for what is no run, or one that has not lived a generation."""
    if not (path / "config.yaml").exists():
        raise UserError(f"{path}: no run directory (it has no config.yaml)")
    config = read_config(path, trust)
    method = find("method", config.method.name)
    try:
        rows, _ = read_rows(path / "metrics.csv")
        metrics = {
            name: np.array([float(row.get(name) or "nan") for row in rows])
            for name in columns_of(method.metrics)
        }
    except (OSError, ValueError) as error:
        raise UserError(f"{path / 'metrics.csv'}: cannot be read ({error})") from None
    if not rows:
        raise UserError(f"{path}: not a generation is done yet")
    final = read_object(path / "DONE").get("validation")
    state = read_object(path / "state.json")
    return Run(path, config, method, state, float("nan") if final is None else final, metrics)


def _evaluate(
    run: Run, files: SavedFiles, lifetimes: int, methods: tuple[str, ...], trust: bool
) -> Evaluation | None:
    """The evaluation of the best loss that is there, finished if it was not, or a new one."""
    protocol = plan(files, tasks.parts_of(run.config.task), methods=methods, lifetimes=lifetimes)
    names = ("evaluation", f"evaluation-{files.saved[0].step}")
    for out in (run.path / name for name in names):
        if not out.exists():
            return carry_out(protocol, files, out)
        if (out / PROTOCOL).exists():
            known = read_protocol(out)
            refuse_own([known.tasks, known.methods], str(out / PROTOCOL), trust)
            if known.losses == protocol.losses:
                return carry_out(known, files, out)
    raise UserError(
        f"{run.path}: {' and '.join(names)} hold something else than an evaluation of {run.best}; "
        "move one away"
    )


def _pictures(
    run: Run, evaluation: Evaluation | None, anatomies: list[GradientReport]
) -> dict[str, bytes]:
    """PNGs by name."""
    found = {
        "fitness": plot_fitness(run.metrics, run.final),
        "health": plot_panels(run.metrics, run.method.panels),
    }
    for name, image in evaluation.pictures().items() if evaluation else ():
        found[f"curves-{name}"] = image
    for anatomy in anatomies:
        found[f"anatomy-{tasks.file_name(anatomy.task)}"] = anatomy.picture()
    return found


def _render(
    run: Run,
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
    return environment.get_template(TEMPLATE).render(
        run=run,
        name=run.path.resolve().name,
        task=tasks.label(run.config.task),
        evaluation=evaluation,
        saved=evaluation.files.saved[0] if evaluation else None,
        over=OVER,
        anatomies=anatomies,
        pictures={name: base64.b64encode(image).decode() for name, image in pictures.items()},
        versions={"epg": __version__, "Python": platform.python_version()}
        | {name: version(name) for name in LIBRARIES},
    )
