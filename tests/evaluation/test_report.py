"""The page about a run, as a real browser shows it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from epg.config import load
from epg.errors import UserError
from epg.evaluation.report import report

OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
           "--host-resolver-rules=MAP * ~NOTFOUND")  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, without a network."""
    missing = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    if missing:
        why = f"no browser here: {', '.join(missing)} missing"
        if os.environ.get("EPG_TESTS_NEED_BROWSER"):
            pytest.fail(why)
        pytest.skip(why)
    options = webdriver.ChromeOptions()
    for option in OPTIONS:
        options.add_argument(option)
    options.binary_location = str(shutil.which("chromium"))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def run(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its page."""
    folder = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(finished, folder)
    assert report(folder, lifetimes=3) == folder / "report.html"
    return folder


def test_a_browser_shows_pictures_and_table_and_has_nothing_to_complain_of(
    browser: Any, run: Path, tmp_path: Path
) -> None:
    page = tmp_path / "alone.html"  # nothing else of the run beside it
    page.write_bytes((run / "report.html").read_bytes())
    browser.get(page.as_uri())
    images = browser.find_elements("tag name", "img")
    assert len(images) == 4 == len(list((run / "report").glob("*.png")))
    for image in images:
        assert image.is_displayed() and image.get_property("complete")
        assert image.get_property("naturalWidth") > 600 and image.get_attribute("alt")
    rows = [
        [cell.text for cell in row.find_elements("css selector", "th, td")]
        for row in browser.find_elements("css selector", "table.statistics tr")
    ]
    assert rows[0][:6] == ["final return", "mean", "IQM", "median", "P(> ppo)", "area, IQM"]
    assert [row[0] for row in rows[1:]] == ["learned loss", "ppo", "random"]
    told = json.loads((run / "evaluation" / "evaluation.json").read_text())["tasks"][0]["rows"]
    for row, entry in zip(rows[1:], told, strict=True):
        mean = entry["final_return"]["mean"]
        assert row[1] == f"{mean['value']:.4g} [{mean['low']:.4g}, {mean['high']:.4g}]"
        assert row[6] == "3 lifetimes"
    text = browser.find_element("tag name", "body").text
    config = load(run / "config.yaml")
    assert "done after 3 of 3 generations" in text and config.yaml().splitlines()[0] in text
    for heading in (
        "Fitness",
        "What it has learned",
        "Health",
        "Cost",
        "Versions",
    ):
        assert heading in text
    assert browser.get_log("browser") == []


def test_the_evaluation_that_is_there_is_used(
    run: Path, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    """Whatever its settings are; only those of a new one can be chosen."""
    before, page = contents(run / "evaluation"), (run / "report.html").read_bytes()
    assert report(run, lifetimes=50, methods=("random",)) == run / "report.html"
    after = contents(run / "evaluation")
    assert {k: v for k, v in after.items() if not k.startswith("log")} == {
        k: v for k, v in before.items() if not k.startswith("log")
    }
    assert (run / "report.html").read_bytes() == page


def test_when_the_best_loss_has_changed_it_is_evaluated_anew(
    run: Path, tmp_path: Path, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    before = contents(folder / "evaluation")
    (folder / "best.safetensors").write_bytes((folder / "loss.safetensors").read_bytes())
    assert report(folder, lifetimes=2) is not None
    assert contents(folder / "evaluation") == before
    assert (folder / "evaluation-3" / "evaluation.json").exists()
    (folder / "evaluation-3" / "protocol.yaml").unlink()
    with pytest.raises(UserError, match="evaluation and evaluation-3 hold something else"):
        report(folder)


def test_a_run_without_a_loss_yet_has_a_page(finished: Path, tmp_path: Path) -> None:
    """And one that was written by an older version, which measured less."""
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "best.safetensors").unlink()
    metrics = tmp_path / "run" / "metrics.csv"
    metrics.write_text(metrics.read_text().replace("invalid", "something_else"))
    page = report(tmp_path / "run")
    assert page is not None and "There is no best.safetensors yet" in page.read_text()


def test_what_is_no_run_is_refused(epg: Callable[..., Any], finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.csv"
    for name, content, message in (
        ("run", "generation\nx,y\n", "epg: run: not a generation is done yet"),
        ("run", "generation,fitness_mean\n", "not a generation is done yet"),
        ("gone", "", "epg: gone: no run directory"),
        (".", "", ".: no run directory (it has no config.yaml)"),
    ):
        metrics.write_text(content)
        said = epg("report", name, folder=tmp_path)
        assert said.code == 2 and said.err.count("\n") == 1 and message in said.err
    metrics.unlink()
    metrics.mkdir()
    said = epg("report", "run", folder=tmp_path)
    assert said.code == 2 and said.err.count("\n") == 1
    assert "metrics.csv: cannot be read" in said.err
    with pytest.raises(UserError, match="no run directory"):
        report(tmp_path)
    said = epg("report", "run", folder=tmp_path, environment={"EPG_RANKS": "2"})
    assert said.code == 2 and "a report is made by one process" in said.err
