"""Bootstraps of fewer resamples: what is tested here is not how narrow an interval is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from epg.evaluation import bootstrap


@pytest.fixture(scope="package", autouse=True)
def few_resamples() -> Iterator[None]:
    usual, bootstrap.RESAMPLES = bootstrap.RESAMPLES, 50
    yield
    bootstrap.RESAMPLES = usual
