"""What a run is: all groups of settings together, read from YAML, overridable as `key.sub=value`.

Each group stands beside the code that reads it. `docs/configuration.md` is generated from them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from epg import tasks
from epg.agents.policy_gradient import LearnerSettings
from epg.agents.spec import AgentSettings
from epg.errors import UserError
from epg.lifetime import LifetimeSettings
from epg.process.shipped import find
from epg.registry import is_own
from epg.settings import Count, Named, Settings, choose, explain, parse_yaml, shown
from epg.upgrade import upgrade, upgrade_override

Threads = Annotated[int, Field(gt=0, le=4096)]
NEWER = (
    ("learner", "clip", 0.2), ("learner", "entropy", 0.01), ("learner", "meta_rate", 1e-2),
    ("method", "fade", None),
)  # fmt: skip
"""Settings that came later, with what was done before: runs of that time can be gone on with."""
CHOSEN = {"method": "epg", "loss": "temporal_conv", "optimizer": "adam", "shaping": "pair"}
"""What is chosen by its name, and what an override finds there if nothing is said."""


class Setup(Settings):
    """How an agent is built, lives and learns: what the inner loop needs besides a task."""

    agent: AgentSettings = Field(AgentSettings(), description="")
    lifetime: LifetimeSettings = Field(LifetimeSettings(), description="")
    learner: LearnerSettings = Field(LearnerSettings(), description="")

    @model_validator(mode="after")
    def _fit_together(self) -> Setup:
        steps, learner = self.lifetime.steps_per_update, self.learner
        if steps % learner.minibatch:
            raise ValueError(
                f"learner.minibatch ({learner.minibatch}) must divide lifetime.steps_per_update "
                f"({steps})"
            )
        if steps > learner.buffer:
            raise ValueError(
                f"learner.buffer ({learner.buffer}) must hold the newest "
                f"lifetime.steps_per_update ({steps}) steps"
            )
        return self

    def change(self, **changes: Any) -> Setup:
        """The same with some settings changed, whichever group they are in, and checked again.

        No two groups have a key in common. Raises `UserError`.
        """
        data = {
            name: group | {key: value for key, value in changes.items() if key in group}
            for name, group in self.model_dump().items()
        }
        known = {key for group in data.values() for key in group}
        if unknown := changes.keys() - known:
            raise UserError(f"unknown settings {sorted(unknown)}; allowed: {sorted(known)}")
        try:
            return Setup.model_validate(data)
        except ValidationError as error:
            raise UserError(explain(error, Setup)) from None

    def get(self, key: str) -> Any:
        """A setting, whichever group it is in."""
        for group in (self.agent, self.lifetime, self.learner):
            if key in type(group).model_fields:
                return getattr(group, key)
        raise KeyError(key)


class Validation(Settings):
    """Fresh agents, on MDPs that stay the same; by them `best.safetensors` is the best."""

    every: Count = Field(10, description="steps of the outer loop between two validations")
    lifetimes: Count = Field(32, description="K, lifetimes in a validation")


class Farm(Settings):
    """How the work is cut, and how long it may take."""

    chunk: Count = Field(
        16, description="members of a unit of work: pairs that live together as one batch"
    )
    deadline: PositiveFloat = Field(
        10.0, description="a unit is given up after so many times the median unit's seconds"
    )
    least_deadline: PositiveFloat = Field(
        300.0, description="seconds after which it is given up at the earliest"
    )
    grace: PositiveFloat = Field(
        20.0, description="seconds that units at work may take when SIGUSR1 asks the run to end"
    )


class Log(Settings):
    """What is written besides what is learned."""

    checkpoints: Count = Field(3, description="newest checkpoints that are kept")
    stages: Count | None = Field(
        None,
        description="steps of the outer loop between two files in stages/, which keep what was "
        "learned by then; null: none are kept",
    )
    tensorboard: bool | None = Field(
        None,
        description="TensorBoard events of the metrics; if left out, where epg[tensorboard] is "
        "installed",
    )


class Config(Settings):
    """A run."""

    seed: NonNegativeInt = Field(0, le=2**63 - 1, description="of all randomness")
    task: tasks.Spec = Field(
        description="the task distribution; `epg tasks` lists them: NAME, "
        "{name: NAME, parameter: number or [low, high]}, or a list of these, a mixture"
    )
    device: str = Field(
        "cpu",
        description="torch device of the agents: cpu; cuda, the GPUs of a node for its workers in "
        "turn; cuda:1, the second GPU for all",
    )
    threads: Threads = Field(1, description="torch threads of each process")
    steps: Count = Field(
        100,
        description="of the outer loop: generations of an evolution; more may be added later",
    )
    method: SerializeAsAny[Named] = Field(
        "epg",
        validate_default=True,
        description="what is learned and how; `epg methods` lists them: NAME, module:Class, or "
        "{name: NAME, key: value, …}",
    )
    agent: AgentSettings = Field(AgentSettings(), description="")
    lifetime: LifetimeSettings = Field(LifetimeSettings(), description="")
    learner: LearnerSettings = Field(LearnerSettings(), description="")
    validation: Validation = Field(Validation(), description="")
    farm: Farm = Field(Farm(), description="")
    log: Log = Field(Log(), description="")
    start_from: str | None = Field(
        None, description="sha256 of the file that the run starts from; set by --from"
    )

    @field_validator("task", mode="before")
    @classmethod
    def _known(cls, spec: tasks.Spec) -> tasks.Spec:
        tasks.make(spec)
        return spec

    @field_validator("method", mode="before")
    @classmethod
    def _chosen(cls, given: Any) -> Named:
        return choose("method", given)

    @field_validator("device")
    @classmethod
    def _cpu_or_cuda(cls, device: str) -> str:
        if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", device):
            raise ValueError(f"must be cpu, cuda or cuda:N, found {device!r}")
        return device

    @model_validator(mode="after")
    def _fit_together(self) -> Config:
        _ = self.setup
        return self

    @property
    def setup(self) -> Setup:
        """How its agents are built, live and learn."""
        return Setup(agent=self.agent, lifetime=self.lifetime, learner=self.learner)

    def with_setup(self, setup: Setup) -> Config:
        """The same with other agents."""
        return self.model_copy(update=dict(setup))

    def hash(self) -> str:
        """Of what changes the result, and of nothing else."""
        what = self.model_dump(mode="json", exclude={"validation", "log", "steps"})
        del what["farm"]
        for group, key, usual in NEWER:
            if what[group].get(key, usual) == usual:
                what[group].pop(key, None)
        if self.device != "cpu":  # only there is it known that units of any size give the same
            what["farm"] = {"chunk": self.farm.chunk}
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def own_names(data: Any) -> Iterator[str]:
    """The classes of a user's own that plain data names, whichever setting they are for."""
    if isinstance(data, str) and is_own(data):
        yield data
    below = data.values() if isinstance(data, Mapping) else data
    if isinstance(below, Iterable) and not isinstance(below, str):
        for part in below:
            yield from own_names(part)


def refuse_own(data: Any, where: str, trust: bool | Collection[str]) -> None:
    """Raise `UserError` if what a file says names classes that may not be imported.

    trust: whether all may, or the names of those that may.
    """
    own = sorted({*own_names(data)} - {*(trust if not isinstance(trust, bool) else ())})
    if own and trust is not True:
        raise UserError(
            f"{where}: names code of its maker's own ({', '.join(own)}), which would run; if you "
            "trust it: --trust, or epg.load(path, trust=True)"
        )


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML file, with `key.sub=value` overrides.

    path: or the name of one that comes with epg. Raises `UserError` naming the file, the key, what
    was found and what is allowed.
    """
    data = upgrade(read(find("configuration", path)), str(path))
    parsed = [_parse_override(text) for text in overrides]
    for key, value in sorted(parsed, key=lambda pair: pair[0].count(".")):  # groups before keys
        _override(data, key, value)
    return validate(data, f"{path} with the command line" if overrides else str(path))


def read(path: str | Path) -> dict[str, Any]:
    """The keys and values in a YAML file, of whichever layout. Raises `UserError`."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UserError(f"{path}: {reason}") from None
    try:
        data = parse_yaml(text)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if data is None:
        raise UserError(f"{path}: empty; it must at least say `task: NAME`")
    if not isinstance(data, dict):
        raise UserError(f"{path}: found {type(data).__name__}, expected keys and values")
    return data


def validate(data: Mapping[str, Any], where: str) -> Config:
    """A configuration from plain data, of any layout; `where` is named in errors."""
    upgraded = upgrade(data, where)
    try:
        return Config.model_validate(upgraded)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error, Config)}") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _parse_override(override: str) -> tuple[str, Any]:
    """The present key, and the value, of key.sub=value."""
    name, equals, value = override.partition("=")
    if not equals or not name:
        raise UserError(f"override {shown(override)}: expected key.sub=value")
    try:
        parsed = parse_yaml(value)
    except UserError as error:
        raise UserError(f"override {shown(override)}: {error}") from None
    return upgrade_override(name), parsed


def _override(data: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    place = data
    for parent in parents:
        below = place.setdefault(parent, CHOSEN.get(parent, {}))
        if isinstance(below, str) and parent in CHOSEN:
            below = place[parent] = {"name": below}
        elif not isinstance(below, dict):
            below = place[parent] = {}
        place = below
    place[last] = value
