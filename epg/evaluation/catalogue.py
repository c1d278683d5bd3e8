"""`epg methods`: every way of learning in a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from epg.methods.base import Card
from epg.registry import METHODS, find

OTHERS = "module:Class: a method of your own; docs/method-of-your-own.md has a template"


@dataclass(frozen=True)
class Described:
    """A way of learning, as it is shown."""

    name: str
    summary: str
    learns: str
    how: str
    agents: str
    paper: str


def catalogue() -> list[Described]:
    """All that have a name here, in the order of the registry."""
    found = []
    for name in METHODS:
        method = find("method", name)
        card: Card = method.card
        summary = (method.__doc__ or "").partition("\n")[0].removesuffix(".")
        found.append(Described(name, summary, card.learns, card.how, card.agents, card.paper))
    return found


def table(found: Sequence[Described]) -> str:
    """For people."""
    lines = []
    for each in found:
        lines += [
            f"{each.name}: {each.summary} ({each.how})",
            f"  learns {each.learns}",
            f"  for {each.agents}",
            f"  {each.paper}",
        ]
    return "\n".join([*lines, OTHERS])
