"""Workers that make trouble in chosen chunks: once, and always."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from accidents.site import Site, check_same, rows
from epg.chunk import Chunk, Failure
from epg.config import load
from epg.run import RunDirectory
from epg.seeds import Purpose

SAID = {
    "raise": "ZeroDivisionError: trouble",
    "segfault": "its process died of SIGSEGV",
    "abort": "its process died of SIGABRT",
    "exit": "SystemExit: 0",
    "hard exit": "its process ended with exit code 0",
    "sleep deaf": "took longer than 2 s",
}
"""What is said of each kind."""
MANY = ("evolution.pairs=60", "evolution.generations=1")
"""So many that six are no more than a tenth."""


def trouble(kinds: Mapping[int, str], **more: str) -> dict[str, str]:
    return {"TROUBLE": json.dumps({str(pair): kind for pair, kind in kinds.items()}), **more}


def without(pairs: list[int], folder: Path, *overrides: str) -> Path:
    """A run in which pairs of generation 0 are invalid from the start: its journal says so."""
    site = Site(folder)
    directory = RunDirectory(site.run, load(site.folder / "config.yaml", overrides))
    with directory.held():
        directory.begin()
        directory.journal.clear()
        for pair in pairs:
            chunk = Chunk(Purpose.TRAINING, 0, pair, 1)
            directory.journal.append([Failure(chunk, "declared invalid")] * 3)
    process = site.start(*overrides)
    assert process.end() == 0, process.said
    assert [row["invalid"] for row in rows(site.run)] == [str(len(pairs))]
    return site.run


def test_once_costs_an_attempt(site: Site, undisturbed: Path) -> None:
    """All kinds in one run, each in a pair of its own."""
    kinds = dict(enumerate(SAID, start=2))
    process = site.start("--ranks", "3", trouble=trouble(kinds, TROUBLE_ONCE=str(site.folder)))
    assert process.end() == 0, process.said
    for pair, kind in kinds.items():
        said = f"pairs {pair} to {pair} failed (1 of 3; tried again): {SAID[kind]}"
        assert said in process.said
    assert process.said.count("failed") == len(kinds) and "crashed" not in process.said
    check_same(site.run, undisturbed)


def test_always_makes_pairs_invalid(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    kinds = {7 * i: kind for i, kind in enumerate(SAID)}
    process = site.start(*MANY, "--ranks", "3", trouble=trouble(kinds))
    assert process.end() == 0, process.said
    assert process.said.count("(3 of 3; invalid: left out)") == len(kinds)
    check_same(site.run, without(list(kinds), tmp_path_factory.mktemp("without"), *MANY))


def test_in_one_process(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    kinds = {3: "raise", 4: "exit", 5: "sleep"}
    process = site.start(*MANY, trouble=trouble(kinds))
    assert process.end() == 0, process.said
    assert process.said.count("failed") == 3 * len(kinds)
    check_same(site.run, without(list(kinds), tmp_path_factory.mktemp("without"), *MANY))


def test_nan_is_worst_and_counted(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    alone = Site(tmp_path_factory.mktemp("alone"))
    for place, ranks in ((site, ("--ranks", "3")), (alone, ())):
        process = place.start(*ranks, trouble=trouble({4: "nan"}))
        assert process.end() == 0, process.said
    assert [row["failures"] for row in rows(site.run)] == ["0.1", "0", "0"]
    assert [row["invalid"] for row in rows(site.run)] == ["0", "0", "0"]
    check_same(site.run, alone.run)


def test_more_than_a_tenth_stops_the_run_and_it_goes_on_once_mended(
    site: Site, undisturbed: Path
) -> None:
    """A chunk of two pairs is a fifth of the generation."""
    process = site.start("--ranks", "3", "farm.chunk=2", trouble=trouble({4: "raise"}))
    assert process.end() == 1
    assert "2 of 10 pairs of generation 1 are invalid, more than a tenth" in process.said
    assert site.state()["state"] == "failed" and "Traceback" not in process.said
    assert "again in" not in process.said
    assert site.chunks() == 4 + 1  # training and validation
    process = site.start("--ranks", "3", "farm.chunk=2")
    assert process.end() == 0, process.said
    check_same(site.run, undisturbed)


def test_a_process_that_is_killed_ends_the_job_and_blames_no_chunk(
    site: Site, undisturbed: Path
) -> None:
    once = trouble({4: "be killed"}, TROUBLE_ONCE=str(site.folder))
    process = site.start("--ranks", "3", trouble=once)
    assert process.end() == 0, process.said
    assert "want of memory" in process.said and "again in 1 s" in process.said
    assert "failed" not in process.said and "Traceback" not in process.said
    check_same(site.run, undisturbed)


def test_a_task_that_always_fails_is_said_at_once(site: Site) -> None:
    (site.folder / "broken.py").write_text(
        "from epg.tasks.point_goal import PointGoal\n"
        "class Broken(PointGoal):\n"
        "    name = 'broken'\n"
        "    def score(self, mdps, returns):\n"
        "        raise KeyError('mass')\n"
    )
    process = site.start("--ranks", "3", "task=broken:Broken")
    assert process.end() == 1
    assert "lifetimes fail" in process.said and "KeyError: 'mass'" in process.said
    assert "again in" not in process.said and "Traceback" not in process.said
    assert site.state()["state"] == "failed"
