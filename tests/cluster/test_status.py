"""`epg status`: what it says of runs of every kind, and how little it reads for that."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
RESULTS = Path(__file__).parents[2] / "results"
GENERATIONS = 20_000
"""Rows of metrics.csv: more than a megabyte."""
READ = """\
import json, sys
from pathlib import Path
from epg.cluster.status import read_status

def read():
    return int(Path("/proc/self/io").read_text().split()[1])

read_status()  # with what is imported on the way
opened, before = [], read()
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
found = read_status()
taken = read() - before
print(json.dumps({
    "best": [status.best_validation for status in found],
    "generation": [status.generation for status in found],
    "files": len([name for name in opened if name.startswith("runs")]),
    "bytes": taken,
    "heavy": [name for name in ("torch", "gymnasium", "evotorch") if name in sys.modules],
}))
"""


def listed(said: Any) -> list[dict[str, Any]]:
    assert (said.code, said.err) == (0, ""), said
    runs: list[dict[str, Any]] = json.loads(said.out.splitlines()[-1])["runs"]
    return runs


@pytest.fixture
def long_run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run with very many generations in its metrics."""
    run = Path(shutil.copytree(finished, tmp_path / "runs" / "long"))
    header, *_, last = (run / "metrics.csv").read_text().splitlines()
    rest = last.partition(",")[2]
    rows = [f"{generation},{rest}" for generation in range(GENERATIONS)]
    (run / "metrics.csv").write_text("\n".join([header, *rows, ""]))
    return run


def test_the_best_may_be_what_was_learned_last(epg: Run, tiny: Path, tmp_path: Path) -> None:
    """Which no row of metrics.csv has; while it goes on, the checkpoint remembers it."""
    more = ("steps=1", "seed=3", "method.sigma=1.0", "method.learning_rate=1.0")
    assert epg("train", tiny, "--run", "run", *more, folder=tmp_path).code == 0
    done = json.loads((tmp_path / "run" / "DONE").read_text())
    assert done["best_generation"] == 1
    said = epg("status", "run", "--json", folder=tmp_path)
    assert listed(said)[0]["best_validation"] == done["best_validation"]
    assert f" {done['best_validation']:.4g} " in said.out.splitlines()[1]


def test_without_a_name_it_tells_of_all_in_runs(epg: Run, finished: Path, tmp_path: Path) -> None:
    nothing = epg("status", folder=tmp_path)
    assert nothing.code == 2 and nothing.err.startswith("epg: runs: no runs here; name run ")
    shutil.copytree(finished, tmp_path / "runs" / "one")
    for seed in (10, 2):
        shutil.copytree(finished, tmp_path / "runs" / "many" / f"seed-{seed}")
    found = listed(epg("status", "--json", folder=tmp_path))
    names = ["runs/many/seed-2", "runs/many/seed-10", "runs/one"]
    assert [status["run"] for status in found] == names
    assert {status["state"] for status in found} == {"done"}


def test_results_that_were_kept_without_their_state(epg: Run, tmp_path: Path) -> None:
    run = tmp_path / "quickstart"
    run.mkdir()
    for name in ("config.yaml", "metrics.csv", "best.safetensors"):
        shutil.copy(RESULTS / "shared-skill" / name, run)
    [status] = listed(epg("status", run, "--json", folder=tmp_path))
    assert (status["state"], status["generation"], status["generations"]) == ("done", 40, 40)
    assert status["best_validation"] > status["fitness"] > 0
    rows = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join(rows[:-5]))
    [status] = listed(epg("status", run, "--json", folder=tmp_path))
    assert (status["state"], status["generation"]) == ("unknown", 35)
    assert status["why"] == "it has no state.json"


def test_it_reads_little_of_each_run_however_long_it_is(
    command: Run, finished: Path, long_run: Path
) -> None:
    """So a thousand runs take a second: neither torch, nor all of the metrics, nor YAML."""
    said = command("python", "-c", READ, folder=long_run.parents[1])
    assert (said.code, said.err) == (0, "")
    found = json.loads(said.out)
    assert found["generation"] == [GENERATIONS]
    assert found["best"] == [json.loads((finished / "DONE").read_text())["best_validation"]]
    assert found["heavy"] == []
    assert found["files"] <= 6
    assert found["bytes"] < 100_000 < (long_run / "metrics.csv").stat().st_size / 10


def test_the_time_left_is_by_the_newest_generations(
    epg: Run, long_run: Path, tmp_path: Path
) -> None:
    """All rows have the same steps so far: one that took none takes no time, and one is new."""
    path = long_run / "metrics.csv"
    header, *rows = path.read_text().splitlines()
    names = header.split(",")
    cells = rows[-1].split(",")
    steps, pace = names.index("environment_steps"), names.index("steps_per_second")
    cells[steps], cells[pace] = str(int(cells[steps]) + 2000), "100"
    path.write_text("\n".join([header, *rows[:-1], ",".join(cells), ""]))
    state = json.loads((long_run / "state.json").read_text())
    more = {"state": "running", "generations": GENERATIONS + 3}
    (long_run / "state.json").write_text(json.dumps(state | more))
    [status] = listed(epg("status", "runs", "--json", folder=tmp_path))
    assert status["seconds_left"] == pytest.approx(3 * 20.0 / 20)
