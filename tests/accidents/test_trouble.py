"""Workers that make trouble in chosen units: once, and always."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from accidents.site import Site, check_same, rows
from epg.config import load
from epg.farm.work import Failure, Unit
from epg.methods.epg import Epg
from epg.runs.directory import RunDirectory
from epg.seeds import Purpose

pytestmark = pytest.mark.xdist_group("trouble")  # one process makes what all of them need

SAID = {
    "raise": "ZeroDivisionError: trouble",
    "segfault": "its process died of SIGSEGV",
    "abort": "its process died of SIGABRT",
    "exit": "SystemExit: 0",
    "hard exit": "its process ended with exit code 0",
    "sleep deaf": "took longer than ",
}
"""What is said of each kind."""
MANY = ("method.pairs=60", "steps=1")
"""So many that six are no more than a tenth."""


def trouble(kinds: Mapping[int, str], **more: str) -> dict[str, str]:
    return {"TROUBLE": json.dumps({str(pair): kind for pair, kind in kinds.items()}), **more}


PAIRS = [0, 7, 14, 21, 28, 35]


def invalid_from_the_start(
    site: Site, pairs: Sequence[int], more: dict[str, str] | None = None
) -> None:
    """A run in which pairs are left out because its journal says that they have failed."""
    config = load(site.folder / "config.yaml", MANY)
    directory = RunDirectory(site.run, config, Epg.metrics, {"alpha": 0.0})
    with directory.held():
        directory.begin()
        directory.journal.clear()
        for pair in pairs:
            unit = Unit(Purpose.TRAINING, 0, pair, 1)
            directory.journal.append([Failure(unit, "declared invalid")] * 3)
    process = site.start(*MANY, trouble=more)
    assert process.end() == 0, process.said
    assert [row["invalid"] for row in rows(site.run)] == [str(len(pairs))]


@pytest.fixture(scope="session")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without `PAIRS`."""
    site = Site(tmp_path_factory.mktemp("without"))
    invalid_from_the_start(site, PAIRS)
    return site.run


def test_once_costs_an_attempt(site: Site, undisturbed: Path) -> None:
    """All kinds in one run, each in a pair of its own."""
    kinds = dict(enumerate(SAID, start=2))
    process = site.start("--ranks", "3", trouble=trouble(kinds, TROUBLE_ONCE=str(site.folder)))
    assert process.end() == 0, process.said
    for pair, kind in kinds.items():
        said = f"members {pair} to {pair} failed (1 of 3; tried again): {SAID[kind]}"
        assert said in process.said
    assert process.said.count("failed") == len(kinds) and "crashed" not in process.said
    check_same(site.run, undisturbed)


def test_always_makes_pairs_invalid(site: Site, without: Path) -> None:
    kinds = dict(zip(PAIRS, SAID, strict=True))
    process = site.start(*MANY, "--ranks", "2", trouble=trouble(kinds))
    assert process.end() == 0, process.said
    assert process.said.count("(3 of 3; invalid: left out)") == 6
    check_same(site.run, without)


@pytest.mark.soak  # as on ranks, in the test above
def test_in_one_process(site: Site, without: Path) -> None:
    kinds = dict(zip(PAIRS, ["raise", "exit", "sleep", "raise", "exit", "raise"], strict=True))
    process = site.start(*MANY, trouble=trouble(kinds))
    assert process.end() == 0, process.said
    assert process.said.count("failed") == 3 * 6
    check_same(site.run, without)


def test_nan_is_worst_and_counted(site: Site, undisturbed: Path) -> None:
    process = site.start("--ranks", "2", trouble=trouble({4: "nan"}))
    assert process.end() == 0 and "failed (" not in process.said, process.said
    first, second = rows(site.run)
    assert (first["failures"], first["invalid"]) == ("0.1", "0")
    assert (second["failures"], second["invalid"]) == ("0", "0")
    assert second["phi_norm"] != rows(undisturbed)[1]["phi_norm"]


def test_more_than_a_tenth_stops_the_run_and_it_goes_on_once_mended(
    site: Site, undisturbed: Path
) -> None:
    """A unit of two pairs is a fifth of the generation."""
    process = site.start("--ranks", "2", "farm.chunk=2", trouble=trouble({4: "raise"}))
    assert process.end() == 1
    assert "2 of 10 members of step 1 are invalid, more than 10%" in process.said
    assert site.state()["state"] == "failed" and "Traceback" not in process.said
    assert "again in" not in process.said
    assert site.units() == 4 + 1  # training and validation
    process = site.start("farm.chunk=2")
    assert process.end() == 0, process.said
    check_same(site.run, undisturbed)


def test_a_task_that_always_fails_is_said(site: Site) -> None:
    """At once, by the estimate; and the run stops after three attempts."""
    (site.folder / "broken.py").write_text(
        "from epg.tasks.point_goal import PointGoal\n"
        "class Broken(PointGoal):\n"
        "    name = 'broken'\n"
        "    def score(self, mdps, returns):\n"
        "        raise KeyError('mass')\n"
    )
    process = site.start("--ranks", "2", "task=broken:Broken")
    assert process.end() == 1
    assert "no estimate of the run's cost, its trial failed: KeyError: 'mass'" in process.said
    assert "10 of 10 members of step 1 are invalid" in process.said
    assert "again in" not in process.said and "Traceback" not in process.said
    assert site.state()["state"] == "failed"
