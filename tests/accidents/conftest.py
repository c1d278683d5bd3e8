"""A place for accidents, and what the run comes to without them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from accidents.site import HERE, Site

sys.path.insert(0, HERE)  # where the task trouble:Trouble is


@pytest.fixture(scope="session")
def undisturbed(once: Callable[..., Path]) -> Path:
    """The run directory of the twin, lived in one process."""

    def live(folder: Path) -> None:
        process = Site(folder).start()
        assert process.end() == 0, process.said

    return once("undisturbed", live) / "run"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()
