"""Typed settings: keys with types, defaults and descriptions, and the YAML they come in."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    ValidationError,
    model_validator,
)

from epg.errors import UserError
from epg.registry import BASES, KEYS, find

Count = Annotated[int, Field(gt=0, le=10_000_000)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """A group of settings: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def yaml(self) -> str:
        """Complete and resolved."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def replace(self, **changes: Any) -> Self:
        """The same with some settings changed, and checked again."""
        return type(self).model_validate(self.model_dump() | changes)


class Schedule(Settings):
    """A number that moves in a straight line over generations and then stays."""

    start: NonNegativeFloat = Field(description="value in generation 0")
    end: NonNegativeFloat = Field(description="value from generation `generations` on")
    generations: Count = Field(description="generations from start to end")

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


class Named(Settings):
    """Settings of something that is chosen by its name: a method, a loss, an optimizer, …"""

    name: str = Field(description="one of this package's own, or module:Class")


def choose(kind: str, given: Any) -> Named:
    """The settings of what is chosen, of its class's own type `Settings`.

    kind: method, loss, optimizer or shaping; given: NAME, or {name: NAME, key: value, …}.
    Raises `UserError` for an unknown name, and for keys that the class does not know.
    """
    if isinstance(given, Named):
        return given
    whole = {"name": given} if isinstance(given, str) else given
    if not (isinstance(whole, dict) and isinstance(whole.get("name"), str)):
        raise UserError(
            f"{KEYS[kind]}: found {shown(given)}, allowed: NAME or {{name: NAME, key: value, …}}"
        )
    found = find(kind, whole["name"])
    settings = getattr(found, "Settings", None)
    if not (isinstance(settings, type) and issubclass(settings, Named)):
        raise UserError(f"{kind} {whole['name']}: it is not a subclass of {BASES[kind]}")
    try:
        return settings.model_validate(whole)
    except ValidationError as error:
        raise UserError(explain(error, settings, KEYS[kind])) from None


LONGEST_SHOWN = 60
"""Characters of a wrong value that a message repeats."""
MOST_VALUES = 100_000
"""In one YAML text."""


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
    """Data from YAML text; `UserError` in one line where it is broken, or aliases make it huge."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MOST_VALUES:
            raise UserError(f"more than {MOST_VALUES:,} values, aliases counted")
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{line}broken YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"broken YAML: {str(error).splitlines()[0]}") from None
    except (IndexError, KeyError, AttributeError, TypeError):  # of PyYAML's own constructors
        raise UserError("broken YAML: a tagged value that is none, such as !!int x") from None


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Values in a node, those of an alias as often as it stands there."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1  # what holds itself never ends
        below = (
            [part for pair in node.value for part in pair]
            if (isinstance(node, yaml.MappingNode))
            else node.value
        )
        known[id(node)] = 1 + sum(_size(part, known) for part in below)
    return known[id(node)]


def explain(error: ValidationError, root: type[Settings], above: str = "") -> str:
    """One of pydantic's complaints about settings of type `root`, whose keys stand below `above`.

    One line: of a misspelt key rather than of a missing one.
    """
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    place = [str(part) for part in first["loc"]]
    key = ".".join([above, *place] if above else place)
    found = first["input"]
    if first["type"] == "extra_forbidden":
        allowed = _keys_at(root, place[:-1])
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
    return f"{key}: {message}, found {shown(found)}"


def shown(value: Any) -> str:
    """A value as messages repeat it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"


def _keys_at(root: type[Settings], place: Sequence[str]) -> list[str]:
    group = root
    for name in place:
        annotation = group.model_fields[name].annotation
        assert isinstance(annotation, type)
        group = annotation
    return list(group.model_fields)
