"""Folders that version 0.1 has left: the same command finishes them, and nothing lives again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epg.runs.files import seal, unseal
from epg.settings import parse_yaml

RESULTS = Path(__file__).parents[2] / "results" / "shared-skill"
OUTPUTS = ("evaluation.json", "returns.csv", "random-cart-pole.png")
STARTED = (
    "evaluate", RESULTS / "best.safetensors", "--task", "random-cart-pole", "--lifetimes", "64",
    "--baselines", "ppo,random,reinforce,untrained,sb3-ppo", "--out", "evaluation",
)  # fmt: skip
"""The command in results/shared-skill/README.md."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """An evaluation as version 0.1 wrote it, without what it came to."""
    folder = tmp_path / "evaluation"
    shutil.copytree(RESULTS / "evaluation", folder)
    for name in OUTPUTS:
        (folder / name).unlink()
    protocol = parse_yaml((folder / "protocol.yaml").read_text())
    assert "baselines" in protocol and "methods" not in protocol
    head, *lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    assert unseal(head)["journal"] == 2 and len(lines) == 5 + 64 // 4
    return folder


def lived(folder: Path) -> int:
    """Units, by the log."""
    return (folder / "log" / "rank-0.log").read_text().count(" core-seconds")


def test_a_folder_of_version_0_1_is_finished_without_another_lifetime(
    epg: Callable[..., Any], old: Path
) -> None:
    """And, with protocol and journal of today, once more."""
    journal = (old / "journal.jsonl").read_bytes().splitlines()
    for _ in range(2):
        said = epg(*STARTED, folder=old.parent)
        assert (said.code, said.err) == (0, "")
        assert lived(old) == 0 and "64 held-out lifetimes" in said.out
        theirs = RESULTS / "evaluation" / "returns.csv"
        assert (old / "returns.csv").read_bytes() == theirs.read_bytes()
        (old / "returns.csv").unlink()
        protocol = parse_yaml((old / "protocol.yaml").read_text())
        assert "baselines" not in protocol
        assert protocol["methods"] == ["ppo", "random", "reinforce", "untrained", "sb3-ppo"]
        head, *lines = (old / "journal.jsonl").read_bytes().splitlines()
        assert unseal(head + b"\n")["journal"] == 3 and lines == journal[1:]


def assert_close_rows(ours: Any, theirs: Any) -> None:
    """The same estimates; the ends of intervals within 20 % of their width."""
    if isinstance(theirs, dict) and "low" in theirs:
        width = theirs["high"] - theirs["low"]
        assert ours["value"] == pytest.approx(theirs["value"], rel=1e-12)
        assert ours["low"] == pytest.approx(theirs["low"], abs=0.2 * width)
        assert ours["high"] == pytest.approx(theirs["high"], abs=0.2 * width)
    elif isinstance(theirs, dict | list):
        assert len(ours) == len(theirs)
        for key in theirs if isinstance(theirs, dict) else range(len(theirs)):
            assert_close_rows(ours[key], theirs[key])
    else:
        assert ours == theirs


FOUND = {
    "ppo": "tuned: best of 60 settings, 64 lifetimes each",
    "sb3-ppo": "tuned: best of 60 settings, 64 lifetimes each",
    "reinforce": "tuned: best of 5 settings, 64 lifetimes each",
}


NEWER = ("steps_per_update", "discount", "gae_lambda", "clip", "entropy", "meta_rate", "schedule")
"""Settings that were not tuned then."""


def test_what_it_came_to_is_what_version_0_1_wrote(epg: Callable[..., Any], old: Path) -> None:
    """By the names of now, but for the chance in intervals, whose resampling is another."""
    said = epg(*STARTED, "--json", folder=old.parent)
    assert said.code == 0 and lived(old) == 0
    written = json.loads((old / "evaluation.json").read_text())
    assert written == json.loads(said.out.splitlines()[-1])
    theirs = json.loads((RESULTS / "evaluation" / "evaluation.json").read_text())
    theirs["protocol"]["methods"] = theirs["protocol"].pop("baselines")
    for ours, before in zip(written["tasks"], theirs["tasks"], strict=True):
        assert ours["settings"].pop("random") == "agents as they are at first"
        assert before["settings"].pop("random") == "agents as they are born"
        assert_close_rows(ours.pop("rows"), before.pop("rows"))
        for name, settings in written["protocol"]["tuned"][ours["task"]].items():
            found = f"; {settings.pop('source')}"  # which it had not noted
            assert found == f"; {FOUND[name]}" and found in ours["settings"][name]
            for setting in NEWER:  # as configured
                assert settings.pop(setting) is None
            ours["settings"][name] = ours["settings"][name].replace(found, "")
    assert written["protocol"].pop("policies") == {}
    assert written == theirs


def test_only_what_is_missing_of_it_is_lived(epg: Callable[..., Any], old: Path) -> None:
    """Here the agents that never learn, of which it was interrupted."""
    lines = (old / "journal.jsonl").read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if unseal(line).get("subject") != 2]
    assert len(kept) == len(lines) - 1
    (old / "journal.jsonl").write_bytes(b"".join(kept))
    said = epg(*STARTED, folder=old.parent)
    assert (said.code, said.err) == (0, "")
    assert lived(old) == 1
    ours, theirs = (
        [
            line
            for line in (folder / "returns.csv").read_text().splitlines()
            if ",random," not in line
        ]
        for folder in (old, RESULTS / "evaluation")
    )
    assert ours == theirs and len(ours) == 1 + 5 * 64


@pytest.mark.parametrize(
    ("there", "instead", "message"),
    [
        ("lifetimes: 64", "lifetimes: 32", "lifetimes: there 32, here 64"),
        ("seed: 0", "seed: 1", "seed: there 1, here 0"),
        ("- reinforce\n", "", "methods: there ['ppo', 'random', 'untrained', 'sb3-ppo'], here "),
        ("passes: 3", "passes: 10", "tuned: there "),
        ("sha256: c03eb48e", "sha256: 00000000", "losses: there "),
    ],
)
def test_one_that_is_another_evaluation_is_refused_and_left_as_it_is(
    epg: Callable[..., Any], old: Path, contents: Callable[[Path], dict[str, bytes]],
    there: str, instead: str, message: str,
) -> None:  # fmt: skip
    text = (old / "protocol.yaml").read_text()
    assert there in text
    (old / "protocol.yaml").write_text(text.replace(there, instead))
    before = contents(old)
    said = epg(*STARTED, folder=old.parent)
    assert said.code == 2 and said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith(f"epg: evaluation: holds another evaluation ({message}")
    assert contents(old) == before


def test_a_journal_of_another_evaluation_is_refused(epg: Callable[..., Any], old: Path) -> None:
    journal = old / "journal.jsonl"
    head, *lines = journal.read_bytes().splitlines(keepends=True)
    foreign = b"".join([seal(unseal(head) | {"config": "0123456789abcdef"}), *lines])
    journal.write_bytes(foreign)
    said = epg(*STARTED, folder=old.parent)
    assert said.code == 2 and said.err.count("\n") == 1
    assert "journal.jsonl: a journal of another configuration, or format" in said.err
    assert journal.read_bytes() == foreign and not (old / "returns.csv").exists()
