"""The page about a run, as a real browser shows it."""

from __future__ import annotations

import datetime
import html
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from epg.config import load
from epg.errors import UserError
from epg.evaluation.evaluate import carry_out, read_protocol
from epg.evaluation.protocol import SavedFiles
from epg.evaluation.report import report
from epg.evaluation.verdict import verdict

pytestmark = pytest.mark.xdist_group("report")  # one process makes what all of them need

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
    assert rows[0][:6] == ["final return", "mean", "IQM", "P(> ppo)", "median", "area, IQM"]
    assert [row[0] for row in rows[1:]] == ["learned loss", "ppo", "random", "blind"]
    told = json.loads((run / "evaluation" / "evaluation.json").read_text())["tasks"][0]["rows"]
    for row, entry in zip(rows[1:], told, strict=True):
        mean = entry["final_return"]["mean"]
        shown = [float(number) for number in re.findall(r"-?[0-9.]+", row[1])]
        assert shown == pytest.approx([mean["value"], mean["low"], mean["high"]], abs=0.06)
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


@pytest.mark.parametrize("width", [390, 1100])
def test_what_is_wider_than_the_screen_scrolls_by_itself(
    browser: Any, run: Path, width: int
) -> None:
    """The page does not, and nothing is cut: all of a table can be brought into sight."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.get((run / "report.html").as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        narrow = browser.execute_script(
            "return [...document.querySelectorAll('table, img')].map(e => {"
            "const box = e.closest('.wide'); box.scrollLeft = 1e6;"
            "return [e.getBoundingClientRect().right, box.getBoundingClientRect().right,"
            " box.scrollLeft]})"
        )
        assert len(narrow) >= 7
        assert all(right <= edge + 1 for right, edge, _ in narrow)
        assert any(moved > 0 for *_, moved in narrow) or width > 500
        [name, last] = browser.execute_script(
            "const row = document.querySelector('table.statistics').rows[1].cells;"
            "return [row[0], row[row.length - 1]].map(c => c.getBoundingClientRect().left)"
        )
        assert 0 <= name < last < width  # names stay in sight
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_opens_with_a_verdict_and_says_when_and_how_long(run: Path) -> None:
    page = html.unescape((run / "report.html").read_text())
    said, uses = re.findall('<p class="verdict">(.*)</p>', page)
    assert page.index(said) < page.index(uses) < page.index("<h2>")
    assert uses.startswith("learned loss: uses reward: ")
    rows = json.loads((run / "evaluation" / "evaluation.json").read_text())["tasks"][0]["rows"]
    ours, ppo = (row["final_return"]["mean"]["value"] for row in rows[:2])
    found = re.fullmatch(
        r"point-goal: the learned loss (ends above PPO|ends below PPO|is not separated from PPO)\. "
        r"Mean final return (\S+) \[.*?\] against (\S+) \[.*?\], a difference of (\S+) "
        r"\[(\S+), (\S+)\], over 3 lifetimes with each; .* PPO is not tuned .* 3 lifetimes are .*",
        said,
    )
    assert found, said
    word, *numbers = found.groups()
    told = [float(number) for number in numbers]
    assert told[:3] == pytest.approx([ours, ppo, ours - ppo], abs=0.06)
    parted = "above" if told[3] > 0 else "below" if told[4] < 0 else "not separated"
    assert parted in word
    when = f"{datetime.datetime.fromtimestamp((run / 'metrics.csv').stat().st_mtime):%Y-%m-%d}"
    assert re.search(f"done after 3 of 3 generations, on {when} at [0-9:]+, in [0-9]+ s", page)


@pytest.mark.parametrize(
    ("by", "told"),
    [(50.0, "ends above PPO"), (-50.0, "ends below PPO"), (0.0, "is not separated from PPO")],
)
def test_a_verdict_is_by_the_interval_of_the_difference(run: Path, by: float, told: str) -> None:
    result = carry_out(read_protocol(run / "evaluation"), SavedFiles([run / "best.safetensors"]),
                       run / "evaluation")  # fmt: skip
    assert result is not None
    [task] = result.tasks
    ours, *others = task.scores
    ppo = others[0].result.final_return
    moved = replace(ours, result=replace(ours.result, final_return=ppo + by))
    changed = replace(task, scores=(moved, *others))
    assert told in verdict(changed, ["learned loss"], result.protocol)
    alone = replace(task, scores=(moved,))
    assert "nothing to compare with" in verdict(alone, ["learned loss"], result.protocol)


def test_seeds_have_one_page_together(
    epg: Callable[..., Any], run: Path, tiny: Path, tmp_path: Path
) -> None:
    """Two seeds of a run, made by one command; what differs by more is refused."""
    said = epg("train", tiny, "steps=2", "--run", "runs", "--seeds", "0-1", folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    runs = tmp_path / "runs"
    assert report(runs, lifetimes=3) == runs / "report.html"
    page = html.unescape((runs / "report.html").read_text())
    for seed in (0, 1):
        assert f"seed-{seed}: done after 2 of 2 generations" in page
    said, *uses = re.findall('<p class="verdict">(.*)</p>', page)
    assert [use.partition(":")[0] for use in uses] == ["seed-0", "seed-1"]
    assert "the losses of 2 seeds" in said and "2 evolution seeds, each the mean of 3" in said
    rows = json.loads((runs / "evaluation" / "evaluation.json").read_text())["tasks"][0]["rows"]
    assert [row["method"] for row in rows] == [
        "2 seeds", "seed-0", "seed-1", "ppo", "random", "blind seed-0", "blind seed-1",
    ]  # fmt: skip
    assert "with 2 the interval is their minimum and maximum" in page
    pictures = {picture.stem for picture in (runs / "report").glob("*.png")}
    assert pictures == {"fitness", "health", "curves-point-goal"}
    before = (runs / "report.html").read_bytes()
    assert report(runs).read_bytes() == before
    shutil.copytree(run, runs / "seed-2")
    said = epg("report", "runs", folder=tmp_path)
    assert said.code == 2 and said.err.count("\n") == 1
    assert "seed-0 and seed-2 differ by more than their seed" in said.err


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
    (tmp_path / "empty").mkdir()
    for name, content, message in (
        ("run", "generation\nx,y\n", "epg: run: not a generation is done yet"),
        ("run", "generation,fitness_mean\n", "not a generation is done yet"),
        ("gone", "", "epg: gone: no run directory"),
        ("empty", "", "empty: no run directory (it has no config.yaml)"),
        (".", "", "epg: run: not a generation is done yet"),
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
        report(tmp_path / "empty")
    said = epg("report", "run", folder=tmp_path, environment={"EPG_RANKS": "2"})
    assert said.code == 2 and "a report is made by one process" in said.err
