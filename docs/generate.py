"""Writes docs/configuration.md from the settings themselves: python docs/generate.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from epg.config import Config, Schedule, Settings

PAGE = Path(__file__).with_name("configuration.md")
HEAD = """# Every setting

Written by `python docs/generate.py` from `epg/config.py`; do not edit.

A configuration is a YAML file with these keys. On the command line any of them can be changed as
`key.sub=value`. Unknown keys and wrong types are errors. A *schedule* is a number, or a straight
line over generations, `{start: 1.0, end: 0.0, generations: 10}`, which then stays at its end.
"""
TABLE = "| key | type | default | meaning and unit |\n|---|---|---|---|"


def page() -> str:
    """The whole page."""
    groups: list[tuple[str, type[Settings]]] = [("", Config)]
    for name, field in Config.model_fields.items():
        if is_group(field):
            assert field.annotation is not None
            groups.append((name, field.annotation))
    parts = [HEAD]
    for prefix, group in groups:
        title = f"`{prefix}`: {first_line(group)}" if prefix else "At the top"
        parts += [f"\n## {title}\n", TABLE]
        for name, field in group.model_fields.items():
            if is_group(field):
                continue
            key = f"{prefix}.{name}" if prefix else name
            cells = (f"`{key}`", kind(field.annotation), default(field), field.description or "")
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(parts) + "\n"


def is_group(field: FieldInfo) -> bool:
    return (
        isinstance(field.annotation, type)
        and issubclass(field.annotation, Settings)
        and field.annotation is not Schedule
    )


def first_line(group: type[Settings]) -> str:
    return (group.__doc__ or "").splitlines()[0].removesuffix(".")


def kind(annotation: Any) -> str:
    """A type as a user would say it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Schedule:
        return "schedule"
    if origin is tuple:
        return "list of integers"
    if str(origin) == "typing.Literal":
        return " or ".join(f"`{a}`" for a in arguments)
    if arguments and type(None) in arguments:
        return kind(arguments[0])
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
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return f"{value}".lower() if value is None or isinstance(value, bool) else f"{value}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
