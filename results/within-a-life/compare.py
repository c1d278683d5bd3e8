"""Methods that tune themselves beside their plain ones, each with as many settings tried.

    python results/within-a-life/compare.py catch          # one experiment; all if none is named

Two rounds of twelve settings of each method, on eight lives of tuning each, then the best one on
held-out lives, the same for all. Into chosen.json, with which the lives of tuning are spared the
next time, compare.csv, a row a life, and pictures. Shape letters: n lives.
"""

from __future__ import annotations

import csv
import itertools
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from epg import tasks
from epg.config import Setup
from epg.evaluation.bootstrap import LIFETIMES, improvement, summarise
from epg.evaluation.plot import Curve, colors_of, plot_courses, plot_curves
from epg.lifetime import LifetimeResult, areas_of, live
from epg.methods.base import make_algorithm
from epg.seeds import LifetimeSeeds, Purpose
from epg.tasks.base import draw_mdps

HERE = Path(__file__).parent
TUNING_LIVES, LIVES = 8, 32
COLORS = colors_of([])
FIRST = {"learning_rate": (1e-3, 3e-3, 1e-2), "entropy": (0.003, 0.01, 0.03, 0.1)}
PLAIN = {"discount": (0.9, 0.95, 0.98, 0.995), "gae_lambda": (0.8, 0.9, 1.0)}
TUNING = {"meta_rate": (1e-3, 3e-3, 3e-2, 0.1), "gae_lambda": (0.9, 0.95, 1.0)}
"""Of the second round, around the best of the first."""


@dataclass(frozen=True)
class Experiment:
    """A task, a plain method and those that tune it."""

    task: Any
    methods: tuple[str, ...]
    """the plain one first"""
    updates: int
    steps_per_update: int
    area: bool
    """whether the area under the learning curve counts, for the task changes in a life; else the
    final return"""
    lives: int = LIVES

    def setup(self, chosen: Mapping[str, float]) -> Setup:
        return Setup().change(
            updates=self.updates, steps_per_update=self.steps_per_update, hidden=(64, 64),
            buffer=self.steps_per_update, minibatch=self.steps_per_update, **chosen,
        )  # fmt: skip

    def lived(
        self, method: str, chosen: Mapping[str, float], purpose: Purpose, lives: int, step: int = 0
    ) -> LifetimeResult:
        """n lives of a method with some settings."""
        task, setup = tasks.make(self.task), self.setup(chosen)
        seeds = LifetimeSeeds.of(0, purpose, 0, lives, step=step)
        agents = make_algorithm(method).agents(task, setup, seeds)
        return live(task, draw_mdps(task, seeds), agents, seeds, setup.lifetime)

    def worth(self, result: LifetimeResult) -> np.ndarray:
        """[n]; a life that failed is worth the worst."""
        worth = areas_of(result.episode_returns) if self.area else result.final_return
        broken = ~np.isfinite(result.final_return) | ~np.isfinite(worth)
        worst = float(np.min(worth[~broken])) if not broken.all() else -np.inf
        return np.where(broken, worst, worth)


EXPERIMENTS = {
    "gamma": Experiment("catch", ("a2c", "xu-discount", "xu"), 512, 16, True),
    "catch": Experiment("catch", ("vtrace", "stac-return", "stac", "stacx"), 512, 16, False),
    "drift": Experiment("drifting-walk", ("a2c", "xu", "frodo"), 1024, 16, True),
    "colours": Experiment(
        {"name": "two-colours", "flip": 4096}, ("a2c", "meta-entropy", "bmg"), 1024, 16, True
    ),
    "delayed": Experiment(
        {"name": "cart-pole", "delayed": 20}, ("a2c", "lirpg"), 512, 32, False
    ),
}  # fmt: skip


def tuned(name: str, method: str) -> tuple[dict[str, float], int]:
    """The best of two rounds of settings, and how many were tried."""
    file, experiment = HERE / "chosen.json", EXPERIMENTS[name]
    known = json.loads(file.read_text()) if file.exists() else {}
    if method in known.get(name, {}):
        chosen, tried = known[name][method]
        return chosen, tried
    second = TUNING if make_algorithm(method).tunes else PLAIN  # type: ignore[attr-defined]
    best: tuple[float, dict[str, float]] = (-np.inf, {})
    tried = 0
    for names in (FIRST, second):
        around = best[1]
        for values in itertools.product(*names.values()):
            chosen = {**around, **dict(zip(names, values, strict=True))}
            result = experiment.lived(method, chosen, Purpose.TUNING, TUNING_LIVES)
            found = float(experiment.worth(result).mean())
            tried += 1
            if found > best[0]:
                best = (found, chosen)
    known.setdefault(name, {})[method] = (best[1], tried)
    file.write_text(json.dumps(known, indent=1) + "\n")
    return best[1], tried


def run(name: str) -> list[tuple[Any, ...]]:
    """Rows of compare.csv; what they come to in words, and in pictures."""
    experiment, rows, worths, curves, courses = EXPERIMENTS[name], [], {}, [], {}
    steps = experiment.updates * experiment.steps_per_update
    what = "area" if experiment.area else "final return"
    print(f"{name}: {tasks.label(experiment.task)}, {steps:,} steps a life, {what}", flush=True)
    for method in experiment.methods:
        begun = time.process_time()
        chosen, tried = tuned(name, method)
        result = experiment.lived(method, chosen, Purpose.EVALUATION, experiment.lives)
        worths[method] = experiment.worth(result)
        mean = summarise(worths[method][:, None], LIFETIMES).mean
        plain = worths[experiment.methods[0]]
        above = improvement(worths[method][:, None], plain[:, None])
        settings = ", ".join(f"{key} {value:g}" for key, value in chosen.items())
        print(
            f"  {method}: {mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}], P(> plain) "
            f"{above.value:.2f} [{above.low:.2f}, {above.high:.2f}]; n {experiment.lives}; "
            f"{settings}; best of {tried}; {time.process_time() - begun:.0f} s of CPU",
            flush=True,
        )
        failed = int((~np.isfinite(result.final_return)).sum())
        curves.append(Curve(method, COLORS(method), (result.episode_returns,), failed))
        if result.course:
            courses[method] = result.course
        rows += [(name, method, life, f"{x:.5f}") for life, x in enumerate(worths[method])]
    title = tasks.label(experiment.task)
    (HERE / f"{name}.png").write_bytes(plot_curves(title, curves, steps))
    (HERE / f"{name}-course.png").write_bytes(plot_courses(title, courses, COLORS, steps))
    return rows


def main(names: list[str]) -> None:
    file = HERE / "compare.csv"
    kept = []
    if file.exists():
        kept = [tuple(row) for row in csv.reader(file.open())][1:]
    for name in names:
        kept = [row for row in kept if row[0] != name] + run(name)
        with file.open("w") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerows([("experiment", "method", "life", "worth"), *kept])


if __name__ == "__main__":
    main(sys.argv[1:] or list(EXPERIMENTS))
