"""The README's promises: a loss that learns from reward, and one that was evolved in seconds."""

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
    said = epg("evaluate", loss, "--lifetimes", LIFETIMES, "--out", "out", folder=folder)
    assert (said.code, said.err) == (0, "")
    assert "not tuned" not in said.out
    [task] = json.loads((folder / "out" / "evaluation.json").read_text())["tasks"]
    return {row["method"]: row for row in task["rows"]}


def test_a_loss_evolved_in_seconds_beats_tuned_ppo(epg: Callable[..., Any], tmp_path: Path) -> None:
    config = ROOT / "configs" / "shared-skill.yaml"
    said = epg("train", config, "--run", "run", *SMALL, folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    rows = judged(epg, tmp_path / "run" / "best.safetensors", tmp_path)
    learned, ppo = rows["learned loss"], rows["ppo"]
    assert learned["final_return"]["mean"]["low"] > ppo["final_return"]["mean"]["high"]
    assert learned["improvement"]["low"] > 0.6
    assert ppo["final_return"]["mean"]["low"] > rows["random"]["final_return"]["mean"]["high"]


@pytest.mark.parametrize("name", ["quickstart", "shared-skill"])
def test_a_published_loss_is_worth_what_is_published(
    epg: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    """Fewer lifetimes, and rounded otherwise on other processors: the intervals overlap."""
    folder = ROOT / "results" / name
    told = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    published = {row["method"]: row["final_return"] for row in told["tasks"][0]["rows"]}
    rows = judged(epg, folder / "best.safetensors", tmp_path)
    floor, blind = (rows[name]["final_return"]["mean"] for name in ("random", "blind"))
    sighted = rows["learned loss"]["final_return"]["mean"]
    gained = (blind["value"] - floor["value"]) / (sighted["value"] - floor["value"])
    assert gained < 0.1 if name == "quickstart" else gained > 0.8
    for method in set(rows) & set(published):
        row = rows[method]
        ours, theirs = row["final_return"]["mean"], published[method]["mean"]
        assert ours["low"] < theirs["high"] and theirs["low"] < ours["high"]
        assert ours["value"] == pytest.approx(theirs["value"], rel=0.25)
