"""`epg evaluate`: fresh agents raised with saved losses and with baselines, on held-out MDPs."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from epg import tasks
from epg.artifact import Artifact, load
from epg.config import Config, Lifetime, validate
from epg.errors import UserError
from epg.files import write_durably
from epg.lifetime import Lived, ppo_of
from epg.losses.mixture import Mixture
from epg.losses.temporal_conv import TemporalConvLoss
from epg.metatest.plot import plot_curves
from epg.metatest.protocol import raise_agents
from epg.metatest.statistics import Interval, bootstrap, interquartile_mean
from epg.seeds import Purpose
from epg.tasks.base import Task
from epg.tasks.mixture import Padded
from epg.tuned import tuned_ppo

BASELINES = ("ppo", "random")


@dataclass(frozen=True)
class Score:
    """One method on one task."""

    method: str
    about: str
    """settings that tell it apart"""
    lived: Lived
    steps_per_update: int
    worst: float = 0.0
    """what a lifetime that failed counts as: the worst return of any method here"""

    @property
    def mean(self) -> Interval:
        return bootstrap(self.returns)

    @property
    def iqm(self) -> Interval:
        return bootstrap(self.returns, interquartile_mean)

    @property
    def returns(self) -> np.ndarray:
        """[lifetimes] final returns, those that failed as the worst."""
        finals = self.lived.final_return
        return np.where(np.isfinite(finals), finals, self.worst)

    @property
    def failures(self) -> int:
        return int((~np.isfinite(self.lived.final_return)).sum())

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        curve = self.lived.episode_returns
        return {
            "method": self.method,
            "about": self.about,
            "final_return": {"mean": self.mean.plain(), "iqm": self.iqm.plain()},
            "failures": self.failures,
            "returns": self.returns.tolist(),
            "environment_steps_per_lifetime": curve.shape[1] * self.steps_per_update,
        }


@dataclass(frozen=True)
class Evaluation:
    """All methods on one task, on the same held-out MDPs."""

    task: str
    seed: int
    updates: int
    scores: tuple[Score, ...]
    out: Path

    def table(self) -> str:
        """For people."""
        first = self.scores[0]
        steps, n = self.updates * first.steps_per_update, len(first.returns)
        lines = [
            f"{self.task}: final return after {steps:,} environment steps, {n} held-out "
            f"lifetimes, 95 % bootstrap intervals over lifetimes",
            f"{'method':<24} {'mean':>24} {'IQM':>24}  settings",
        ]
        for score in self.scores:
            failed = f"; {score.failures} failed" if score.failures else ""
            lines.append(
                f"{score.method:<24} {score.mean!s:>24} {score.iqm!s:>24}  {score.about}{failed}"
            )
        lines.append(f"picture: {self.out / (tasks.file_name(self.task) + '.png')}")
        return "\n".join(lines)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "task": self.task,
            "seed": self.seed,
            "updates": self.updates,
            "scores": [score.plain() for score in self.scores],
        }


def evaluate(
    losses: str | Path | Sequence[str | Path],
    task: str | dict[str, Any],
    lifetimes: int = 32,
    updates: int | None = None,
    hidden: Sequence[int] | None = None,
    baselines: Sequence[str] = ("ppo",),
    alpha: float | None = None,
    seed: int = 0,
    out: str | Path = "evaluation",
) -> Evaluation:
    """Raise agents with every loss and baseline; write `TASK.json` and `TASK.png` into `out`.

    losses: files, or one of them, made for this task or, with zeros for padding, for a larger one;
    task: a name, or {"name": …, parameter: …}; updates: U, as in the first loss's training if None;
    hidden: the agents' layers, likewise; alpha: weight of PPO beside the losses, as at the end of
    their training if None. Every method has the same MDPs, chance and environment steps.
    Raises `UserError` for what a user can mend.
    """
    paths = [losses] if isinstance(losses, str | Path) else list(losses)
    _check_numbers(lifetimes, updates, hidden, alpha, seed)
    the_task, fitted, artifacts, configs = check(paths, task, hidden, baselines, out)
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror}") from None
    torch.set_num_threads(configs[0].threads)
    changes: dict[str, Any] = {"updates": updates or configs[0].lifetime.updates}
    if hidden is not None:
        changes["hidden"] = tuple(hidden)
    names = _names(paths)
    scores = []
    for name, fit, artifact, config in zip(names, fitted, artifacts, configs, strict=True):
        life = config.lifetime.but(**changes)
        weight = artifact.alpha if alpha is None else alpha
        about = f"α {weight:g}, {_settings(life)}"
        if fit is not the_task:
            about += f", padded to {fit.observation_size} observations, {fit.action_size} actions"
        lived = _raise_with_loss(fit, artifact, config, life, weight, lifetimes, seed)
        scores.append(Score(name, about, lived, life.steps_per_update))
    reference = configs[0].lifetime.but(**changes)
    for name in baselines:
        scores.append(_raise_baseline(name, the_task, reference, lifetimes, seed))
    finals = np.concatenate([score.lived.final_return for score in scores])
    worst = float(np.nanmin(finals)) if np.isfinite(finals).any() else 0.0
    scores = [replace(score, worst=worst) for score in scores]
    result = Evaluation(the_task.name, seed, changes["updates"], tuple(scores), Path(out))
    _write(result)
    return result


def check(
    paths: Sequence[str | Path],
    task: str | dict[str, Any],
    hidden: Sequence[int] | None,
    baselines: Sequence[str],
    out: str | Path,
) -> tuple[Task, list[Task], list[Artifact], list[Config]]:
    """The task, and as each loss sees it; the losses and their configurations."""
    unknown = [name for name in baselines if name not in BASELINES]
    if unknown:
        raise UserError(f"baseline {unknown[0]!r} is unknown; allowed: {', '.join(BASELINES)}")
    if isinstance(task, list):
        raise UserError(f"task: found {task}, allowed: NAME or {{name: NAME, …}}, one at a time")
    the_task = tasks.make(task)
    if not paths:
        raise UserError("losses: found none, expected at least one")
    artifacts = [load(path) for path in paths]
    # Whatever a loss was trained on is not needed here, nor may be at hand.
    configs = [
        validate(a.config | {"task": task}, str(p)) for a, p in zip(artifacts, paths, strict=True)
    ]
    fitted = []
    for path, artifact, config in zip(paths, artifacts, configs, strict=True):
        fitted.append(fit(str(path), artifact, the_task, hidden))
        ours, first = (c.lifetime.steps_per_update for c in (config, configs[0]))
        if ours != first:
            raise UserError(
                f"{path}: updates every {ours} steps, {paths[0]} every {first}; "
                "evaluate them apart, at equal steps"
            )
    if Path(out).exists() and not Path(out).is_dir():
        raise UserError(f"{out}: a file, expected a folder or none")
    return the_task, fitted, artifacts, configs


def _check_numbers(
    lifetimes: int, updates: int | None, hidden: Sequence[int] | None, alpha: float | None,
    seed: int,
) -> None:  # fmt: skip
    for name, found, fits, allowed in (
        ("lifetimes", lifetimes, lifetimes >= 1, "at least 1"),
        ("updates", updates, updates is None or updates >= 1, "at least 1"),
        ("hidden", hidden, hidden is None or (hidden and min(hidden) >= 1), "sizes as (64, 64)"),
        ("alpha", alpha, alpha is None or 0 <= alpha <= 1, "0 to 1"),
        ("seed", seed, seed >= 0, "at least 0"),
    ):
        if not fits:
            raise UserError(f"{name}: found {found}, allowed: {allowed}")


def fit(path: str, artifact: Artifact, task: Task, hidden: Sequence[int] | None) -> Task:
    """The task, padded where the loss is made for a larger one; refused if it is too small."""
    body = artifact.genome.architecture.body
    for what, found, needed, fits in (
        ("observation size", body.observation_size, task.observation_size, operator.ge),
        ("action size", body.action_size, task.action_size, operator.ge),
        ("discrete actions", body.discrete, task.discrete, operator.eq),
    ):
        if not fits(found, needed):
            padding = "; zeros can pad a task to a larger loss only" if fits is operator.ge else ""
            raise UserError(
                f"{path}: does not fit task {task.name}: its {what} is {found}, the task's "
                f"{needed}{padding}"
            )
    if artifact.genome.with_policy and hidden is not None and tuple(hidden) != body.hidden:
        raise UserError(
            f"{path}: holds an evolved initial policy with layers {_join(body.hidden)}; "
            f"--hidden {_join(hidden)} does not fit it"
        )
    sizes = (body.observation_size, body.action_size)
    return task if sizes == (task.observation_size, task.action_size) else Padded(task, *sizes)


def _raise_with_loss(
    task: Task, artifact: Artifact, config: Config, life: Lifetime, alpha: float,
    lifetimes: int, seed: int,
) -> Lived:  # fmt: skip
    phi, policy = artifact.genome.split(artifact.phi.unsqueeze(0))
    ppo = ppo_of(life, config.reference)

    def loss(count: int) -> Mixture:
        learned = TemporalConvLoss(
            artifact.genome.architecture, phi.expand(count, -1), life.buffer, config.reference
        )
        return Mixture([(1 - alpha, learned), (alpha, ppo)])

    return raise_agents(
        task, loss, life, lifetimes, seed, Purpose.EVALUATION,
        policy[0] if policy is not None else None, config.reference,
    )  # fmt: skip


def _raise_baseline(name: str, task: Task, life: Lifetime, lifetimes: int, seed: int) -> Score:
    if name == "random":
        lived = raise_agents(task, lambda _: None, life, lifetimes, seed, Purpose.EVALUATION)
        return Score(name, "agents as they are born", lived, life.steps_per_update)
    tuned, exact = tuned_ppo(task.name, life)
    about = _settings(tuned)
    if not exact:
        about += " (not tuned for this task and budget: epg tune)"
    lived = raise_agents(task, lambda _: ppo_of(tuned), tuned, lifetimes, seed, Purpose.EVALUATION)
    return Score(name, about, lived, life.steps_per_update)


def _write(result: Evaluation) -> None:
    text = json.dumps(result.plain(), indent=1) + "\n"
    name = tasks.file_name(result.task)
    write_durably(result.out / f"{name}.json", text.encode())
    curves = {s.method: s.lived.episode_returns for s in result.scores}
    plot_curves(result.out / f"{name}.png", result.task, curves, result.scores[0].steps_per_update)


def _names(paths: Sequence[str | Path]) -> list[str]:
    """What to call the losses: as much of their paths as tells them apart."""
    if len(paths) == 1:
        return ["learned loss"]
    whole = [Path(path).resolve().with_suffix("") for path in paths]
    shared = os.path.commonpath([path.parent for path in whole])
    return [str(path.relative_to(shared)) for path in whole]


def _settings(life: Lifetime) -> str:
    return f"lr {life.learning_rate:g}, minibatch {life.minibatch}, passes {life.passes}"


def _join(sizes: Sequence[int]) -> str:
    return ",".join(str(size) for size in sizes)
