"""`epg report`: one page about a run, that needs nothing but itself, and its pictures."""

from __future__ import annotations

import base64
import csv
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

import epg
from epg import tasks
from epg.config import Config
from epg.errors import RunError, UserError
from epg.files import read_object, write_durably
from epg.launch import launched_size
from epg.metatest.anatomy import Anatomy, inspect
from epg.metatest.evaluate import OVER, PROTOCOL, Evaluation, carry_out, read_protocol
from epg.metatest.plot import plot_fitness, plot_health
from epg.metatest.protocol import Losses, plan
from epg.run import METRICS, read_config

PAGE, PICTURES = "report.html", "report"
TEMPLATE = "report.html.j2"
LIBRARIES = ("torch", "numpy", "mujoco", "gymnasium", "evotorch", "rliable")
WATCHED = 16
"""Lifetimes in which the loss's gradients are looked at."""


@dataclass(frozen=True)
class Run:
    """A run as it stands on disk."""

    path: Path
    config: Config
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
        hours, total = last["core_seconds"] / 3600, self.config.evolution.generations
        return {
            "generations": f"{len(self.metrics['generation'])} of {total}",
            "environment steps of training": f"{last['environment_steps']:,.0f}",
            "environment steps of validation": f"{last['validation_steps']:,.0f}",
            "core-hours of lifetimes": f"{hours:.3g}",
        }


def report(
    run: str | Path, lifetimes: int = 32, baselines: tuple[str, ...] = ("ppo", "random")
) -> Path:
    """Write RUN/report.html and its pictures to RUN/report; the page.

    The table and learning curves are those of RUN/evaluation. If there is none of the run's best
    loss, it is evaluated, with so many lifetimes and these baselines, on the tasks of its training.
    Raises `UserError` for what a user can mend.
    """
    if launched_size() > 1:
        raise UserError(
            "a report is made by one process; evaluate on several ranks before, with "
            f"epg evaluate {run}/best.safetensors … --out {run}/evaluation"
        )
    found = read_run(Path(run))
    evaluation = None
    anatomies: list[Anatomy] = []
    if found.best.exists():
        loss = Losses([found.best])  # once: a run under way may replace it
        evaluation = _evaluate(found, loss, lifetimes, baselines)
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


def read_run(path: Path) -> Run:
    """Raises `UserError` for what is no run, or one that has not lived a generation."""
    if not (path / "config.yaml").exists():
        raise UserError(f"{path}: no run directory (it has no config.yaml)")
    config = read_config(path)
    try:
        with open(path / "metrics.csv", newline="") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
        metrics = {
            name: np.array([float(row.get(name) or "nan") for row in rows]) for name in METRICS
        }
    except (OSError, ValueError) as error:
        raise UserError(f"{path / 'metrics.csv'}: cannot be read ({error})") from None
    if not rows:
        raise UserError(f"{path}: not a generation is done yet")
    final = read_object(path / "DONE").get("validation")
    state = read_object(path / "state.json")
    return Run(path, config, state, float("nan") if final is None else final, metrics)


def _evaluate(
    run: Run, loss: Losses, lifetimes: int, baselines: tuple[str, ...]
) -> Evaluation | None:
    """The evaluation of the best loss that is there, finished if it was not, or a new one."""
    protocol = plan(
        loss, tasks.parts_of(run.config.task), lifetimes=lifetimes, updates=None,
        hidden=None, activation=None, learning_rate=None, alpha=None, baselines=baselines, seed=0,
    )  # fmt: skip
    names = ("evaluation", f"evaluation-{loss.artifacts[0].generation}")
    for out in (run.path / name for name in names):
        if not out.exists():
            return carry_out(protocol, loss, out)
        if (out / PROTOCOL).exists():
            known = read_protocol(out)
            if known.losses == protocol.losses:
                return carry_out(known, loss, out)
    raise UserError(
        f"{run.path}: {' and '.join(names)} hold something else than an evaluation of {run.best}; "
        "move one away"
    )


def _pictures(
    run: Run, evaluation: Evaluation | None, anatomies: list[Anatomy]
) -> dict[str, bytes]:
    """PNGs by name."""
    found = {"fitness": plot_fitness(run.metrics, run.final), "health": plot_health(run.metrics)}
    for name, image in evaluation.pictures().items() if evaluation else ():
        found[f"curves-{name}"] = image
    for anatomy in anatomies:
        found[f"anatomy-{tasks.file_name(anatomy.task)}"] = anatomy.picture()
    return found


def _render(
    run: Run, evaluation: Evaluation | None, anatomies: list[Anatomy], pictures: Mapping[str, bytes]
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("epg.metatest", "."),
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
        artifact=evaluation.losses.artifacts[0] if evaluation else None,
        over=OVER,
        anatomies=anatomies,
        pictures={name: base64.b64encode(image).decode() for name, image in pictures.items()},
        versions={"epg": epg.__version__, "Python": platform.python_version()}
        | {name: version(name) for name in LIBRARIES},
    )
