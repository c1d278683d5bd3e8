"""A place for accidents, and what the run comes to without them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from accidents.site import HERE, Site

sys.path.insert(0, HERE)  # where the task trouble:Trouble is


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of the twin, lived in one process."""
    site = Site(tmp_path_factory.mktemp("undisturbed"))
    process = site.start()
    assert process.end() == 0, process.said
    return site.run


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()
