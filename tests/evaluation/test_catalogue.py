"""`epg methods`: every way of learning that has a name, and what there is to know of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epg.evaluation.catalogue import OTHERS, catalogue
from epg.methods.base import Algorithm, Method
from epg.registry import METHODS, find

HOW = ("evolved", "by meta-gradient", "within a life", "by hand")
KEYS = {"name", "summary", "learns", "how", "agents", "paper"}


def test_every_name_is_told_in_the_order_of_the_registry(
    epg: Callable[..., Any], tmp_path: Path
) -> None:
    said = epg("methods", "--json", folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    *table, last = said.out.splitlines()
    told = json.loads(last)
    assert list(told) == ["methods"]
    assert [entry["name"] for entry in told["methods"]] == list(METHODS)
    for entry in told["methods"]:
        assert set(entry) == KEYS
        assert all(isinstance(text, str) and text.strip() for text in entry.values()), entry
        assert entry["how"] in HOW
        line = f"{entry['name']}: {entry['summary']} ({entry['how']})"
        begin = table.index(line)
        assert table[begin + 1 : begin + 4] == [
            f"  learns {entry['learns']}", f"  for {entry['agents']}", f"  {entry['paper']}",
        ]  # fmt: skip
    assert table[-1] == OTHERS and len(table) == 4 * len(METHODS) + 1
    said = epg("methods", folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == table


@pytest.mark.parametrize("name", METHODS)
def test_what_is_told_of_a_method_fits_it(name: str) -> None:
    [entry] = [each for each in catalogue() if each.name == name]
    found = find("method", name)
    assert issubclass(found, Method) != issubclass(found, Algorithm)
    across = entry.how in ("evolved", "by meta-gradient")
    assert issubclass(found, Method) == across
    assert "\n" not in entry.summary and not entry.summary.endswith(".")
    if entry.learns != "nothing":
        assert re.search(r"\b(19|20)\d\d\b", entry.paper)
