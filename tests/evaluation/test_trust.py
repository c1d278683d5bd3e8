"""Somebody else's run directory: nothing in it makes code run unless its user says so."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from epg.methods.saved import load

Run = Callable[..., object]
EVIL = """\
from pathlib import Path
Path("imported").touch()
from epg.tasks.point_goal import PointGoal as Evil
"""


@pytest.fixture
def theirs(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, and beside it the module that it will name."""
    (tmp_path / "evil.py").write_text(EVIL)
    return Path(shutil.copytree(finished, tmp_path / "theirs"))


def change(file: Path, **changes: object) -> None:
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changes))


@pytest.mark.parametrize("task", ["evil:Evil", "gym:evil:Evil-v0"])
@pytest.mark.parametrize("command", ["evaluate", "inspect"])
def test_the_task_of_a_file_of_theirs_is_not_taken_unasked(
    epg: Run, finished: Path, tmp_path: Path, command: str, task: str
) -> None:
    (tmp_path / "evil.py").write_text(EVIL)
    replace(load(finished / "best.safetensors"), task=task).save(tmp_path / "theirs.safetensors")
    said = epg(command, "theirs.safetensors", "--lifetimes", 2, folder=tmp_path)
    assert said.code == 2 and len(said.err.splitlines()) == 1, said
    assert f"theirs.safetensors: names code of its maker's own ({task})" in said.err
    assert not (tmp_path / "imported").exists()
    if command == "evaluate" and task == "evil:Evil":
        said = epg(command, "theirs.safetensors", "--lifetimes", 2, "--updates", 1, "--trust",
                   folder=tmp_path)  # fmt: skip
        assert said.code == 0 and (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "evil:Evil"},
        {"task": {"name": "evil:Evil"}},
        {"task": ["point-goal", {"name": "evil:Evil", "scale": [0, 1]}]},
        {"task": "gym:evil:Evil-v0"},
        {"method": {"name": "evil:Evil"}},
        {"method": {"name": "epg", "loss": {"name": "evil:Evil"}}},
        {"method": "epg", "evolution": {"optimizer": "evil:Evil"}},
    ],
    ids=str,
)
def test_a_configuration_of_theirs_runs_no_code(
    epg: Run, theirs: Path, tiny: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    change(theirs / "config.yaml", **changes)
    commands = [("report", theirs), ("train", tiny, "--run", theirs), ("status", theirs)]
    for command in commands:
        said = epg(*command, folder=tmp_path)
        assert not (tmp_path / "imported").exists(), command
        if command[0] != "status":
            assert said.code == 2 and len(said.err.splitlines()) == 1, said
            assert "evil:Evil" in said.err
            assert ("--trust" if command[0] == "report" else "name a new --run") in said.err


def test_an_evaluation_of_theirs_runs_no_code(epg: Run, theirs: Path, tmp_path: Path) -> None:
    report = ("report", theirs, "--lifetimes", "2", "--methods", "random")
    assert epg(*report, folder=tmp_path).code == 0
    protocol = theirs / "evaluation" / "protocol.yaml"
    for changes in ({"tasks": ["evil:Evil"]}, {"methods": ["random", "evil:Evil"]}):
        before = protocol.read_text()
        change(protocol, **changes)
        said = epg(*report, folder=tmp_path)
        assert said.code == 2 and "--trust" in said.err and len(said.err.splitlines()) == 1
        assert not (tmp_path / "imported").exists()
        protocol.write_text(before)


def test_what_its_user_trusts_runs(epg: Run, theirs: Path, tmp_path: Path) -> None:
    change(theirs / "config.yaml", task="evil:Evil")
    said = epg(
        "report", theirs, "--lifetimes", "2", "--methods", "random", "--trust", folder=tmp_path
    )
    assert said.code == 0, said
    assert (tmp_path / "imported").exists() and (theirs / "report.html").exists()
