"""What a run is: typed settings, read from YAML and overridable as `key.sub=value`.

Every default stands here. `docs/configuration.md` is generated from the descriptions below.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from epg import tasks
from epg.errors import UserError
from epg.losses.temporal_conv import SHORTEST_BUFFER

Fraction = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """A group of settings: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def yaml(self) -> str:
        """Complete and resolved."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


class Schedule(Settings):
    """A number that moves in a straight line over generations and then stays."""

    start: NonNegativeFloat = Field(description="value in generation 0")
    end: NonNegativeFloat = Field(description="value from generation `generations` on")
    generations: PositiveInt = Field(description="generations from start to end")

    @model_validator(mode="before")
    @classmethod
    def _accept_a_number(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"start": value, "end": value, "generations": 1}
        return value

    def at(self, generation: int) -> float:
        """The value in a generation."""
        if generation >= self.generations:
            return self.end
        return self.start + (self.end - self.start) * generation / self.generations


def constant(value: float) -> Schedule:
    """A schedule that never moves."""
    return Schedule(start=value, end=value, generations=1)


class Lifetime(Settings):
    """The inner loop: how an agent lives and learns."""

    updates: PositiveInt = Field(128, description="U, updates of the policy in a lifetime")
    steps_per_update: PositiveInt = Field(
        64, description="M, environment steps between two updates"
    )
    buffer: PositiveInt = Field(
        512, ge=SHORTEST_BUFFER, description="N, newest transitions that the loss sees"
    )
    minibatch: PositiveInt = Field(32, description="B, steps in a minibatch; divides M")
    passes: PositiveInt = Field(1, description="passes over the newest M steps in an update")
    learning_rate: PositiveFloat = Field(1e-3, le=1e30, description="the agent's Adam")
    hidden: tuple[Annotated[int, Field(gt=0, le=10_000)], ...] = Field(
        (64, 64), strict=False, min_length=1,
        description="units in the layers of policy and value net",
    )  # fmt: skip
    activation: Literal["tanh", "relu"] = Field("tanh", description="between those layers")
    memory: PositiveInt = Field(32, description="units of memory")
    train_memory: bool = Field(True, description="whether updates move the memory")
    final_episodes: PositiveInt = Field(
        3, description="episodes of the trained policy whose mean return is the fitness"
    )
    discount: Fraction = Field(0.99, description="PPO's γ")
    gae_lambda: Fraction = Field(0.95, description="PPO's λ")

    @model_validator(mode="after")
    def _fit_together(self) -> Lifetime:
        if self.steps_per_update % self.minibatch:
            raise ValueError(
                f"steps_per_update ({self.steps_per_update}) must be a multiple of "
                f"minibatch ({self.minibatch})"
            )
        if self.steps_per_update > self.buffer:
            raise ValueError(
                f"buffer ({self.buffer}) must hold the newest steps_per_update "
                f"({self.steps_per_update}) steps"
            )
        return self

    def but(self, **changes: Any) -> Lifetime:
        """The same with some settings changed, and checked again."""
        return Lifetime.model_validate(self.model_dump() | changes)

    @property
    def steps(self) -> int:
        """Environment steps of a lifetime, its final episodes not counted."""
        return self.updates * self.steps_per_update


class Evolution(Settings):
    """The outer loop: how the loss moves."""

    generations: PositiveInt = Field(100, description="ES steps; more may be added later")
    pairs: PositiveInt = Field(32, description="antithetic pairs in a generation")
    mdps_per_pair: PositiveInt = Field(1, description="MDPs on which each pair is judged")
    task_draw: Literal["generation", "pair"] = Field(
        "pair", description="whether all pairs of a generation see the same MDPs, or each its own"
    )
    shaping: Literal["pair", "centered_rank"] = Field(
        "pair",
        description="how fitness becomes weight: sign and rank of the difference within each "
        "pair, or the rank among all (needs task_draw: generation)",
    )
    start: Literal["random", "residual"] = Field(
        "random",
        description="φ at first: all random, or with an output layer of 0 (a residual over PPO)",
    )
    evolve_policy_init: bool = Field(
        False, description="evolve the policy's initial parameters together with the loss"
    )
    sigma: Schedule = Field(constant(0.05), description="σ, standard deviation of perturbations")
    optimizer: Literal["adam", "clipup"] = Field("adam", description="what moves φ")
    learning_rate: Schedule = Field(constant(0.02), description="of the optimizer")
    beta1: Fraction = Field(0.0, description="Adam's β1", lt=1)
    beta2: Fraction = Field(0.999, description="Adam's β2", lt=1)
    momentum: Fraction = Field(0.9, description="ClipUp's momentum")
    max_speed: PositiveFloat | None = Field(
        None, description="ClipUp's largest step; twice the learning rate if left out"
    )
    weight_decay: NonNegativeFloat = Field(
        0.0, description="L2 coefficient for a gradient in units of ε, as in the EPG paper"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Evolution:
        if self.shaping == "centered_rank" and self.task_draw != "generation":
            raise ValueError("shaping centered_rank needs task_draw generation, found pair")
        if self.sigma.start <= 0 or self.sigma.end <= 0:
            raise ValueError("sigma must be above 0 at all times")
        return self


class Validation(Settings):
    """Lifetimes of φ itself, on MDPs that stay the same; `best.safetensors` is the best of them."""

    every: PositiveInt = Field(10, description="generations between two validations")
    lifetimes: PositiveInt = Field(32, description="K, lifetimes in a validation")


class Farm(Settings):
    """How the work is cut, and how long it may take."""

    chunk: PositiveInt = Field(16, description="pairs that live together as one batch")
    deadline: PositiveFloat = Field(
        10.0, description="a chunk is given up after so many times the median chunk's seconds"
    )
    least_deadline: PositiveFloat = Field(
        300.0, description="seconds after which it is given up at the earliest"
    )


class Log(Settings):
    """What is written besides the loss."""

    checkpoints: PositiveInt = Field(3, description="newest checkpoints that are kept")


class Config(Settings):
    """A run."""

    seed: NonNegativeInt = Field(0, description="of all randomness")
    task: tasks.Spec = Field(
        description="the task distribution; `epg tasks` lists them: NAME, "
        "{name: NAME, parameter: number or [low, high]}, or a list of these, a mixture"
    )
    device: str = Field(
        "cpu",
        description="torch device of the agents: cpu; cuda, the GPUs of a node for its workers in "
        "turn; cuda:1, the second GPU for all",
    )
    threads: PositiveInt = Field(1, description="torch threads of each process")
    reference: bool = Field(
        False, description="behave as the released EPG code does, defects included"
    )
    alpha: Schedule = Field(
        constant(0.0),
        description="α, the weight of PPO beside the learned loss's 1 − α, over generations",
    )
    lifetime: Lifetime = Field(Lifetime(), description="")
    evolution: Evolution = Field(Evolution(), description="")
    validation: Validation = Field(Validation(), description="")
    farm: Farm = Field(Farm(), description="")
    log: Log = Field(Log(), description="")
    start_from: str | None = Field(
        None, description="sha256 of the loss that φ starts from; set by --from"
    )

    @field_validator("task", mode="before")
    @classmethod
    def _known(cls, spec: tasks.Spec) -> tasks.Spec:
        tasks.make(spec)
        return spec

    @field_validator("device")
    @classmethod
    def _cpu_or_cuda(cls, device: str) -> str:
        if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", device):
            raise ValueError(f"must be cpu, cuda or cuda:N, found {device!r}")
        return device

    @field_validator("alpha")
    @classmethod
    def _at_most_one(cls, alpha: Schedule) -> Schedule:
        if max(alpha.start, alpha.end) > 1:
            raise ValueError(f"must lie in [0, 1], found {max(alpha.start, alpha.end)}")
        return alpha

    @property
    def final_alpha(self) -> float:
        """α after the last generation: what the evolved loss is made for and validated with."""
        return self.alpha.at(self.evolution.generations)

    def hash(self) -> str:
        """Of what changes φ, and of nothing else."""
        what = self.model_dump(mode="json", exclude={"validation", "log"})
        del what["farm"]
        if self.device != "cpu":  # only there is it known that chunks of any size give the same
            what["farm"] = {"chunk": self.farm.chunk}
        del what["evolution"]["generations"]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


class _Loader(yaml.SafeLoader):
    """YAML in which `1e-3` is a number and a duplicate key an error."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|\.[0-9_]+(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise UserError(f"line {key_node.start_mark.line + 1}: key {key!r} is not a name")
        if key in seen:
            raise UserError(f"line {key_node.start_mark.line + 1}: key {key!r} stands there twice")
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def parse_yaml(text: str) -> Any:
    """Data from YAML text; `UserError` in one line where it is broken."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{line}broken YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"broken YAML: {str(error).splitlines()[0]}") from None


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML file, with `key.sub=value` overrides.

    Raises `UserError` naming the file, the key, what was found and what is allowed.
    """
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
    for override in overrides:
        _override(data, override)
    return validate(data, f"{path} with the command line" if overrides else str(path))


def validate(data: Mapping[str, Any], where: str) -> Config:
    """A configuration from plain data; `where` is named in errors."""
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error)}") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _override(data: dict[str, Any], override: str) -> None:
    name, equals, value = override.partition("=")
    if not equals or not name:
        raise UserError(f"override {override!r}: expected key.sub=value")
    *parents, last = name.split(".")
    place = data
    for parent in parents:
        below = place.setdefault(parent, {})
        if not isinstance(below, dict):
            below = place[parent] = {}
        place = below
    try:
        place[last] = parse_yaml(value)
    except UserError as error:
        raise UserError(f"override {override!r}: {error}") from None


def explain(error: ValidationError) -> str:
    """One of pydantic's complaints, as one line: of a misspelt key rather than of a missing one."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    place = [str(part) for part in first["loc"]]
    key = ".".join(place)
    found = first["input"]
    if first["type"] == "extra_forbidden":
        allowed = _keys_at(place[:-1])
        near = difflib.get_close_matches(place[-1], allowed, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"unknown key {key!r}; {hint}allowed here: {', '.join(allowed)}"
    if first["type"] == "missing":
        return f"key {key!r} is missing"
    message = first["msg"]
    message = message.removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if first["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}: {message}, found {_short(found)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _keys_at(place: Sequence[str]) -> list[str]:
    group: type[Settings] = Config
    for name in place:
        annotation = group.model_fields[name].annotation
        assert isinstance(annotation, type)
        group = annotation
    return list(group.model_fields)
