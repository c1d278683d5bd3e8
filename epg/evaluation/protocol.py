"""What an evaluation is: all that decides its numbers, checked before anything is lived."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from epg import tasks
from epg.agents.policy_gradient import RateSchedule
from epg.agents.spec import Units
from epg.config import Setup, Threads, refuse_own
from epg.errors import UserError
from epg.evaluation.policies import OF_POLICIES, PRETRAINED, known_policy, load_policy
from epg.evaluation.tuned import TUNED, tuned
from epg.methods.base import make_algorithm
from epg.methods.saved import Saved, load
from epg.process.shipped import find
from epg.registry import METHODS
from epg.settings import Count, Fraction, Settings, explain

ASKED = ("lifetimes", "updates", "hidden", "activation", "learning_rate", "alpha", "seed")
"""What `plan` may be asked for besides files, tasks and methods."""
UNTRAINED, BLIND = OF_FILES = ("untrained", "blind")
"""Methods that stand for another side of each saved file: what its training began with, and the
same agents without reward."""
ALIKE = ("steps_per_update", "final_episodes")
"""Settings of lifetimes in which files that are judged together must agree."""


class LossFile(Settings):
    """A saved file by what is in it."""

    name: str
    """what to call it"""
    sha256: str


class Tuned(Settings):
    """What an algorithm runs with on a task."""

    learning_rate: PositiveFloat
    minibatch: PositiveInt
    passes: PositiveInt
    steps_per_update: PositiveInt | None = None
    """M; as all others have it if None"""
    discount: Fraction | None = None
    gae_lambda: Fraction | None = None
    clip: PositiveFloat | None = None
    entropy: NonNegativeFloat | None = None
    meta_rate: PositiveFloat | None = None
    schedule: RateSchedule | None = None
    """these, too, as configured if None"""
    exact: bool
    """whether they were tuned for just this task, budget and agent"""
    source: str = ""
    """how they were found, for people"""


class Protocol(Settings):
    """An evaluation. What is None is as in the training of the file at hand."""

    losses: tuple[LossFile, ...]
    tasks: tuple[str | dict[str, Any], ...]
    methods: tuple[str, ...]
    lifetimes: Count
    updates: Count
    hidden: Units | None
    activation: Literal["tanh", "relu"] | None
    learning_rate: PositiveFloat | None
    alpha: Fraction | None
    seed: NonNegativeInt
    threads: Threads
    tuned: dict[str, dict[str, Tuned]]
    """by task and method"""
    policies: dict[str, str] = Field({})
    """by task the sha256 of the policy that never learns, where one takes part"""

    @property
    def device(self) -> str:
        return "cpu"

    def hash(self) -> str:
        """Of all of it."""
        return hashlib.sha256(self.yaml().encode()).hexdigest()[:16]

    def numbers(self) -> dict[str, Any]:
        """All that decides its numbers, as plain data."""
        plain: dict[str, Any] = self.model_dump(mode="json")
        for of_task in plain["tuned"].values():
            for settings in of_task.values():
                del settings["source"]
        return plain

    def changes(self) -> dict[str, Any]:
        """What agents are like other than in the training of a file."""
        asked = {"updates": self.updates, "hidden": self.hidden, "activation": self.activation}
        return {name: value for name, value in asked.items() if value is not None}


class SavedFiles:
    """Saved files that are judged together; there may be none."""

    def __init__(self, paths: Sequence[str | Path], trust: bool = False) -> None:
        """trust: as of `epg.load`.

        Raises `UserError` for what is no such file, or cannot be judged beside the first.
        """
        self.paths = [str(path) for path in paths]
        self.names = _names(paths)
        self.saved: list[Saved] = []
        self.digests: list[str] = []
        for path in self.paths:
            saved, digest = _load_whole(path, trust)
            self.saved.append(saved)
            self.digests.append(digest)
            for name in ALIKE:
                ours, first = (getattr(s.config.lifetime, name) for s in (saved, self.saved[0]))
                if ours != first:
                    raise UserError(
                        f"{path}: lifetime.{name} is {ours}, that of {self.paths[0]} {first}; "
                        "evaluate them apart"
                    )

    @property
    def setup(self) -> Setup:
        """How agents live and learn where no file says it: as in the first one's training."""
        return self.saved[0].config.setup if self.saved else Setup()

    @property
    def threads(self) -> int:
        return self.saved[0].config.threads if self.saved else 1

    def tasks(self, trust: bool = False) -> list[str | dict[str, Any]]:
        """Those of the first file's training; none without a file. Raises `UserError`."""
        spec = self.saved[0].task if self.saved else None
        refuse_own(spec, self.paths[0] if self.paths else "", trust)
        return tasks.parts_of(spec) if spec else []

    def families(self) -> dict[str, list[str]]:
        """Names of files that differ by the seed of their training alone; each seed once."""
        found: dict[str, dict[int, str]] = {}
        for name, saved in zip(self.names, self.saved, strict=True):
            settings = saved.config.model_dump(mode="json", exclude={"seed"})
            members = found.setdefault(repr((saved.task, settings)), {})
            members.setdefault(saved.config.seed, name)
        several = [list(members.values()) for members in found.values() if len(members) > 1]
        labels = [_family(names) for names in several]
        return {
            label if labels.count(label) == 1 else f"{label} ({', '.join(names)})": names
            for label, names in zip(labels, several, strict=True)
        }


def _load_whole(path: str, trust: bool) -> tuple[Saved, str]:
    """A file and its sha256, of the same moment: a run may be replacing it."""
    file = find("loss", path)
    while True:
        before = _digest(file)
        saved = load(file, trust)
        if _digest(file) == before:
            return saved, before


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def plan(
    files: SavedFiles,
    specs: Sequence[str | dict[str, Any]],
    *,
    methods: Sequence[str] | None = (),
    **asked: Any,
) -> Protocol:
    """The protocol of an evaluation of some files and methods on some tasks.

    methods: the usual ones if None; asked: fields of `Protocol`, of those in ASKED. Raises
    `UserError` for what cannot be evaluated.
    """
    if not specs:
        raise UserError("task: found none, expected at least one")
    if not files.saved and methods is not None and not methods:
        raise UserError("methods: found none, expected a saved file or a method at least")
    if unknown := sorted(asked.keys() - set(ASKED)):
        raise UserError(f"{unknown[0]}: unknown; allowed: {', '.join(ASKED)}")
    for name in () if files.saved else ("alpha", "learning_rate"):
        if asked.get(name) is not None:
            raise UserError(f"{name}: found {asked[name]}, but no saved file whose it could be")
    for name in OF_FILES:
        if name in (methods or ()) and not files.saved:
            raise UserError(f"method {name}: is another side of a saved file; none is named")
    for spec in specs:
        if isinstance(spec, list):
            raise UserError(
                f"task: found {spec}, allowed: NAME or {{name: NAME, …}}, one at a time"
            )
    made = [tasks.make(spec) for spec in specs]
    labels = [task.name for task in made]
    if methods is None:
        methods = usual_methods(files, labels)
    for what, names in (("task", labels), ("method", list(methods))):
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{what} {name}: found twice")
    for name in methods:
        if name in OF_FILES or name in OF_POLICIES:
            continue
        algorithm = make_algorithm(name)
        for task in made:
            algorithm.check(task)
    _check_fit(files, made)
    settings: dict[str, Any] = {
        "losses": tuple(
            LossFile(name=name, sha256=digest)
            for name, digest in zip(files.names, files.digests, strict=True)
        ),
        "tasks": tuple(specs),
        "methods": tuple(methods),
        "hidden": None, "activation": None, "learning_rate": None, "alpha": None, "seed": 0,
        "threads": files.threads,
        "tuned": {},
        "policies": {
            label: load_policy(label)[1]
            for label in labels
            if any(name in OF_POLICIES for name in methods)
        },
        **asked,
    }  # fmt: skip
    if settings.get("updates") is None:
        settings["updates"] = files.setup.lifetime.updates
    if settings["hidden"] is not None:
        settings["hidden"] = tuple(settings["hidden"])
    try:
        protocol = Protocol.model_validate(settings)
    except ValidationError as error:
        raise UserError(explain(error, Protocol)) from None
    for path, saved in zip(files.paths, files.saved, strict=True):
        _check_agent(path, saved, protocol)
    setup = files.setup.change(**protocol.changes())
    found = {
        label: {
            name: tuned_for(source, label, setup)
            for name in methods
            if (source := tuned_source(name)) is not None
        }
        for label in labels
    }
    return protocol.model_copy(update={"tuned": found})


def usual_methods(files: SavedFiles, labels: Sequence[str]) -> tuple[str, ...]:
    """What is put beside saved files if nothing is said: what they must be better than, and what
    tells why they are."""
    sighted = [saved for saved in files.saved if not saved.blindable]
    blind = (BLIND,) if files.saved and not sighted else ()
    known = files.saved and all(known_policy(label) for label in labels)
    return ("ppo", "random", *blind, *(OF_POLICIES if known else ()))


def tuned_source(method: str) -> str | None:
    """Whose tuned settings a method has; None of one whose settings are not searched."""
    if method == PRETRAINED:
        return "ppo"
    if method in OF_FILES or method in OF_POLICIES:
        return None
    return make_algorithm(method).tuned_as


def tuned_for(method: str, task: str, setup: Setup) -> Tuned:
    """The settings that a method runs with on a task; method: whose winners it takes."""
    found = tuned(method, task, setup)
    always = ("learning_rate", "minibatch", "passes")
    values = {
        key: value
        for key in TUNED
        if (value := found.setup.get(key)) != setup.get(key) or key in always
    }
    return Tuned(**values, exact=found.exact, source=found.source)


def remark(settings: Tuned) -> str:
    """How settings were found, in a comparison."""
    found = f"; {settings.source}" if settings.source else ""
    return found if settings.exact else f"{found}; not tuned for this task and budget: epg tune"


def _check_fit(files: SavedFiles, made: Sequence[tasks.Task]) -> None:
    """Raise `UserError` for a file that fits no task, and a task that no file fits."""
    why = [[saved.misfit(task) for task in made] for saved in files.saved]
    for path, each in zip(files.paths, why, strict=True):
        if all(each):
            raise UserError(f"{path}: does not fit {each[0]}")
    for on_task in zip(*why, strict=True):
        if all(on_task):
            raise UserError(f"{files.paths[0]}: does not fit {on_task[0]}")


def _check_agent(path: str, saved: Saved, protocol: Protocol) -> None:
    """An evolved initial policy is of one agent."""
    ours = (saved.config.agent.hidden, saved.config.agent.activation)
    theirs = (
        ours[0] if protocol.hidden is None else protocol.hidden, protocol.activation or ours[1]
    )  # fmt: skip
    policy = any(name.startswith("policy.") for name in saved.params)
    if policy and ours != theirs:
        raise UserError(
            f"{path}: holds an evolved initial policy with {ours[1]} layers {_join(ours[0])}; "
            f"{theirs[1]} layers {_join(theirs[0])} do not fit it"
        )


def _names(paths: Sequence[str | Path]) -> list[str]:
    """What to call the losses: as much of their paths as tells them apart."""
    if not paths:
        return []
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
        if name in (*METHODS, *OF_FILES, *OF_POLICIES):
            raise UserError(f"{path}: called {name!r}, as a method is; rename it")
    return names


def _family(names: list[str]) -> str:
    folder = os.path.commonpath([Path("/", name).parent for name in names]).strip("/")
    return f"{len(names)} seeds" + (f" of {folder}" if folder else "")


def _join(sizes: Sequence[int]) -> str:
    return ",".join(str(size) for size in sizes)
