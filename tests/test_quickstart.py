"""The README's promise at a small scale: a loss evolved in seconds beats tuned PPO."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SMALL = ("steps=12", "method.pairs=32", "method.alpha.generations=4",
         "validation.every=6", "validation.lifetimes=16")  # fmt: skip
LIFETIMES = 24


def judged(epg: Callable[..., Any], loss: Path, folder: Path) -> dict[str, Any]:
    """Statistics of the final return by method, against the PPO that came with the package."""
    said = epg("evaluate", loss, "--task", "random-cart-pole", "--lifetimes", LIFETIMES,
               "--out", "out", folder=folder)  # fmt: skip
    assert (said.code, said.err) == (0, "")
    assert "not tuned" not in said.out
    [task] = json.loads((folder / "out" / "evaluation.json").read_text())["tasks"]
    return {row["method"]: row for row in task["rows"]}


def test_a_loss_evolved_in_seconds_beats_tuned_ppo(epg: Callable[..., Any], tmp_path: Path) -> None:
    config = ROOT / "configs" / "quickstart.yaml"
    said = epg("train", config, "--run", "run", *SMALL, folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    rows = judged(epg, tmp_path / "run" / "best.safetensors", tmp_path)
    learned, ppo = rows["learned loss"], rows["ppo"]
    assert learned["final_return"]["mean"]["low"] > ppo["final_return"]["mean"]["high"]
    assert learned["improvement"]["low"] > 0.6
    assert ppo["final_return"]["mean"]["low"] > rows["random"]["final_return"]["mean"]["high"]


def test_the_published_loss_is_worth_what_is_published(
    epg: Callable[..., Any], tmp_path: Path
) -> None:
    """Fewer lifetimes, and rounded otherwise on other processors: the intervals overlap."""
    folder = ROOT / "results" / "quickstart"
    told = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    published = {row["method"]: row["final_return"] for row in told["tasks"][0]["rows"]}
    rows = judged(epg, folder / "best.safetensors", tmp_path)
    for method, row in rows.items():
        ours, theirs = row["final_return"]["mean"], published[method]["mean"]
        assert ours["low"] < theirs["high"] and theirs["low"] < ours["high"]
        assert ours["value"] == pytest.approx(theirs["value"], rel=0.25)
