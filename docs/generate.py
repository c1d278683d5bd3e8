"""Writes docs/configuration.md from the settings themselves: python docs/generate.py"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from epg.config import Config
from epg.registry import METHODS, TABLES, find
from epg.settings import Named, Schedule, Settings

PAGE = Path(__file__).with_name("configuration.md")
HEAD = """# Every setting

Written by `python docs/generate.py` from the settings in `epg/`; do not edit.

A configuration is a YAML file with these keys. On the command line any of them can be changed as
`key.sub=value`. Unknown keys and wrong types are errors. A *schedule* is a number, or a straight
line over generations, `{start: 1.0, end: 0.0, generations: 10}`, which then stays at its end. A
*name* chooses a class: one of this package's own, or `module:Class` for one of yours; what has
settings of its own is written as `{name: NAME, key: value, …}`.
"""
TABLE = "| key | type | default | meaning and unit |\n|---|---|---|---|"
CHOSEN = ("loss", "optimizer", "shaping")
"""What a method chooses by its name, in the order of the page."""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, prefix, group in groups():
        parts += [f"\n## {title}\n", TABLE]
        for name, field in group.model_fields.items():
            if is_group(field) or (prefix and name == "name"):
                continue
            key = f"{prefix}.{name}" if prefix else name
            cells = (f"`{key}`", kind(field.annotation), default(field), field.description or "")
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(parts) + "\n"


def groups() -> Iterator[tuple[str, str, type[Settings]]]:
    """The tables of the page: titles, what their keys stand below, and settings."""
    yield "At the top", "", Config
    for name in METHODS:
        settings = find("method", name).Settings
        if settings is not Named:
            yield f"`method` {name}: {first_line(settings)}", "method", settings
    for chosen in CHOSEN:
        for name in TABLES[chosen]:
            settings = find(chosen, name).Settings
            if settings is not Named:
                title = f"`method.{chosen}` {name}: {first_line(settings)}"
                yield title, f"method.{chosen}", settings
    for name, field in Config.model_fields.items():
        if is_group(field):
            assert field.annotation is not None
            yield f"`{name}`: {first_line(field.annotation)}", name, field.annotation


def is_group(field: FieldInfo) -> bool:
    return (
        isinstance(field.annotation, type)
        and issubclass(field.annotation, Settings)
        and not issubclass(field.annotation, Schedule | Named)
    )


def first_line(group: type[Settings]) -> str:
    return (group.__doc__ or "").splitlines()[0].removesuffix(".")


def kind(annotation: Any) -> str:
    """A type as a user would say it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Schedule:
        return "schedule"
    if isinstance(annotation, type) and issubclass(annotation, Named):
        return "name"
    if origin is tuple:
        return "list of integers"
    if str(origin) == "typing.Literal":
        return " or ".join(f"`{a}`" for a in arguments)
    if arguments:
        return kind(arguments[0])
    names = {int: "integer", float: "number", str: "text", bool: "true or false"}
    return names.get(annotation, str(annotation))


def default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "must be given"
    if isinstance(value, Schedule):
        return f"{value.start:g}"
    if isinstance(value, Named):
        return value.name
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return f"{value}".lower() if value is None or isinstance(value, bool) else f"{value}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
