"""What an evaluation is: all that decides its numbers, checked before anything is lived."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from epg import tasks
from epg.artifact import Artifact, load
from epg.config import Config, Fraction, Lifetime, Settings, explain, validate
from epg.errors import UserError
from epg.metatest.baselines import BASELINES, TUNABLE, check
from epg.tuned import TUNED, tuned

ALIKE = ("steps_per_update", "final_episodes")
"""Settings of lifetimes in which losses that are judged together must agree."""


class LossFile(Settings):
    """A loss by what is in it."""

    name: str
    """what to call it"""
    sha256: str


class Tuned(Settings):
    """What a baseline runs with on a task."""

    learning_rate: PositiveFloat
    minibatch: PositiveInt
    passes: PositiveInt
    exact: bool
    """whether they were tuned for just this task, budget and agent"""


class Protocol(Settings):
    """An evaluation. What is None is as in the training of the loss at hand."""

    losses: tuple[LossFile, ...]
    tasks: tuple[str | dict[str, Any], ...]
    baselines: tuple[str, ...]
    lifetimes: PositiveInt
    updates: PositiveInt
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None
    activation: Literal["tanh", "relu"] | None
    learning_rate: PositiveFloat | None
    alpha: Fraction | None
    seed: NonNegativeInt
    threads: PositiveInt
    tuned: dict[str, dict[str, Tuned]]
    """by task and baseline"""

    @property
    def device(self) -> str:
        return "cpu"

    def hash(self) -> str:
        """Of all of it."""
        return hashlib.sha256(self.yaml().encode()).hexdigest()[:16]

    def changes(self) -> dict[str, Any]:
        """What agents are like other than in the training of a loss."""
        asked = {"updates": self.updates, "hidden": self.hidden, "activation": self.activation}
        return {name: value for name, value in asked.items() if value is not None}


class Losses:
    """Saved losses, with the configurations that they were trained with."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        """Raises `UserError` for what is no loss, or cannot be judged beside the first."""
        if not paths:
            raise UserError("losses: found none, expected at least one")
        self.paths = [str(path) for path in paths]
        self.names = _names(paths)
        self.artifacts: list[Artifact] = []
        self.digests: list[str] = []
        self.configs: list[Config] = []
        for path in self.paths:
            artifact, digest = _load_whole(path)
            self.artifacts.append(artifact)
            self.digests.append(digest)
            # Whatever it was trained on is not needed here, nor may be at hand.
            self.configs.append(validate(artifact.config | {"task": "point-goal"}, path))
            for name in ALIKE:
                ours, first = (
                    getattr(c.lifetime, name) for c in (self.configs[-1], self.configs[0])
                )
                if ours != first:
                    raise UserError(
                        f"{path}: lifetime.{name} is {ours}, that of {self.paths[0]} {first}; "
                        "evaluate them apart"
                    )

    def families(self) -> dict[str, list[str]]:
        """Names of losses that differ by their evolution seed alone; each seed once."""
        found: dict[str, dict[int, str]] = {}
        for name, artifact, config in zip(self.names, self.artifacts, self.configs, strict=True):
            settings = config.model_dump(mode="json", exclude={"seed"})
            members = found.setdefault(repr((artifact.config["task"], settings)), {})
            members.setdefault(config.seed, name)
        several = [list(members.values()) for members in found.values() if len(members) > 1]
        labels = [_family(names) for names in several]
        return {
            label if labels.count(label) == 1 else f"{label} ({', '.join(names)})": names
            for label, names in zip(labels, several, strict=True)
        }


def _load_whole(path: str) -> tuple[Artifact, str]:
    """A loss and its file's sha256, of the same moment: a run may be replacing the file."""
    while True:
        before = _digest(path)
        artifact = load(path)
        if _digest(path) == before:
            return artifact, before


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else ""


def plan(
    losses: Losses,
    specs: Sequence[str | dict[str, Any]],
    *,
    lifetimes: int,
    updates: int | None,
    hidden: Sequence[int] | None,
    activation: str | None,
    learning_rate: float | None,
    alpha: float | None,
    baselines: Sequence[str],
    seed: int,
) -> Protocol:
    """Raises `UserError` for what cannot be evaluated."""
    if not specs:
        raise UserError("task: found none, expected at least one")
    for spec in specs:
        if isinstance(spec, list):
            raise UserError(
                f"task: found {spec}, allowed: NAME or {{name: NAME, …}}, one at a time"
            )
    made = [tasks.make(spec) for spec in specs]
    for name in baselines:
        for task in made:
            check(name, task)
    labels = [task.name for task in made]
    for what, names in (("task", labels), ("baseline", list(baselines))):
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{what} {name}: found twice")
    why = [[misfit(artifact, task) for task in made] for artifact in losses.artifacts]
    for path, each in zip(losses.paths, why, strict=True):
        if all(each):
            raise UserError(f"{path}: does not fit {each[0]}")
    for on_task in zip(*why, strict=True):
        if all(on_task):
            raise UserError(f"{losses.paths[0]}: does not fit {on_task[0]}")
    for path, artifact in zip(losses.paths, losses.artifacts, strict=True):
        _check_body(path, artifact, hidden, activation)
    first = losses.configs[0]
    settings: dict[str, Any] = {
        "losses": tuple(
            LossFile(name=name, sha256=digest)
            for name, digest in zip(losses.names, losses.digests, strict=True)
        ),
        "tasks": tuple(specs),
        "baselines": tuple(baselines),
        "lifetimes": lifetimes,
        "updates": first.lifetime.updates if updates is None else updates,
        "hidden": None if hidden is None else tuple(hidden),
        "activation": activation,
        "learning_rate": learning_rate,
        "alpha": alpha,
        "seed": seed,
        "threads": first.threads,
        "tuned": {},
    }
    try:
        protocol = Protocol.model_validate(settings)
    except ValidationError as error:
        raise UserError(explain(error)) from None
    reference = first.lifetime.but(**protocol.changes())
    found = {
        label: {name: _tuned(name, label, reference) for name in baselines if name in TUNABLE}
        for label in labels
    }
    return protocol.model_copy(update={"tuned": found})


def _tuned(name: str, task: str, life: Lifetime) -> Tuned:
    known, exact = tuned(TUNABLE[name], task, life)
    setting = {key: getattr(known, key) for key in TUNED}
    return Tuned(**setting, exact=exact)


def misfit(artifact: Artifact, task: tasks.Task) -> str:
    """Why a loss does not fit a task; empty if it does, padded with zeros or not."""
    body = artifact.genome.architecture.body
    if body.discrete != task.discrete:
        kinds = ("discrete" if d else "continuous" for d in (task.discrete, body.discrete))
        return "task {}: its actions are {}, the loss is made for {} ones".format(task.name, *kinds)
    if body.observation_size >= task.observation_size and body.action_size >= task.action_size:
        return ""
    return (
        f"task {task.name}: it has {task.observation_size} observations and {task.action_size} "
        f"actions, the loss is made for {body.observation_size} and {body.action_size}; zeros can "
        "pad tasks up to that size, not a loss"
    )


def _check_body(
    path: str, artifact: Artifact, hidden: Sequence[int] | None, activation: str | None
) -> None:
    """An evolved initial policy is of one body."""
    life = artifact.config["lifetime"]
    ours = (artifact.genome.architecture.body.hidden, life.get("activation", "tanh"))
    theirs = (ours[0] if hidden is None else tuple(hidden), activation or ours[1])
    if artifact.genome.with_policy and ours != theirs:
        raise UserError(
            f"{path}: holds an evolved initial policy with {ours[1]} layers {_join(ours[0])}; "
            f"{theirs[1]} layers {_join(theirs[0])} do not fit it"
        )


def _names(paths: Sequence[str | Path]) -> list[str]:
    """What to call the losses: as much of their paths as tells them apart."""
    if len(paths) == 1:
        return ["learned loss"]
    whole = [Path(path).resolve().with_suffix("") for path in paths]
    if len({path.name for path in whole}) == 1:  # runs/a/best, runs/b/best
        whole = [path.parent for path in whole]
    shared = os.path.commonpath([path.parent for path in whole])
    names = [str(path.relative_to(shared)) for path in whole]
    for path, name in zip(paths, names, strict=True):
        if names.count(name) > 1:
            raise UserError(f"{path}: found twice")
        if name in BASELINES:
            raise UserError(f"{path}: called {name!r}, as a baseline is; rename it")
    return names


def _family(names: list[str]) -> str:
    folder = os.path.commonpath([Path("/", name).parent for name in names]).strip("/")
    return f"{len(names)} seeds" + (f" of {folder}" if folder else "")


def _join(sizes: Sequence[int]) -> str:
    return ",".join(str(size) for size in sizes)
