"""What an installed wheel can do where there is no clone, from an empty directory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import patience
import pytest

from epg.process import shipped
from epg.training.loop import digest

ROOT = Path(__file__).parents[1]
SMALL = ("method.pairs=2", "lifetime.updates=1", "validation.lifetimes=2")
SUBMIT = ("submit", "quickstart", "--tasks", "3", "--print", *SMALL)
LOOK = """\
import json, pathlib, runpy, sys
import epg
from epg.process import shipped
saved, module = epg.load("quickstart"), epg.load_loss("random-hopper")
table = epg.evaluate("quickstart", methods=("fixed-policy",), lifetimes=2, updates=1)
found = {
    "package": epg.__file__,
    "files": {
        kind: {name: str(path) for name, path in shipped.named(kind).items()}
        for kind in ("configuration", "loss")
    },
    "tasks": [saved.tasks, module.saved.tasks],
    "rows": [score.entry.method for score in table.tasks[0].scores],
}
pathlib.Path("found.json").write_text(json.dumps(found))
sys.argv = ["epg", *json.loads(sys.argv[1])]
runpy.run_module("epg", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """`installed(argument, …, folder=…)`: a Python that has the wheel of this clone.

    It has all else from this environment. What it prints.
    """
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip")
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir")
    subprocess.run([*pip, *build, folder, ROOT], check=True)
    (wheel,) = folder.glob("*.whl")
    install = ("install", "--quiet", "--no-deps", "--no-index", "--target")
    subprocess.run([*pip, *install, folder / "site", wheel], check=True)

    def run(*arguments: str, folder: Path) -> str:
        here = {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
        said = patience.run([sys.executable, *arguments], folder, **here)
        assert said.returncode == 0, said.stderr
        return said.stdout

    site = folder / "site"
    return run


def test_a_run_starts_by_the_names_of_what_came_with_it(
    installed: Callable[..., str], tmp_path: Path
) -> None:
    train = ("-m", "epg", "train", "quickstart", "--from", "quickstart")
    installed(*train, "steps=1", *SMALL, folder=tmp_path)
    run = tmp_path / "runs" / "quickstart"
    assert json.loads((run / "DONE").read_text())["generations"] == 1
    assert f"start_from: {digest('quickstart')}\n" in (run / "config.yaml").read_text()


def test_it_has_what_a_clone_has(
    installed: Callable[..., str], epg: Callable[..., Any], tmp_path: Path
) -> None:
    """Configurations, losses and batch scripts; and each is found there."""
    printed = installed("-c", LOOK, json.dumps(SUBMIT), folder=tmp_path)
    found = json.loads((tmp_path / "found.json").read_text())
    package = Path(found["package"]).parent
    assert not package.is_relative_to(ROOT)
    for kind in ("configuration", "loss"):
        here = shipped.named(kind)
        assert here and found["files"][kind].keys() == here.keys()
        for name, path in found["files"][kind].items():
            assert Path(path).is_relative_to(package)
            assert Path(path).read_bytes() == here[name].read_bytes()
    assert found["tasks"] == [["random-cart-pole(masked=True)"], ["random-hopper"]]
    assert found["rows"] == ["learned loss", "fixed-policy"]  # whose policy came along, too
    here = epg(*SUBMIT, folder=tmp_path)
    assert "scontrol requeue" in printed and printed == here.out
