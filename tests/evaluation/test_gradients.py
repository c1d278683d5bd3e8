"""What a loss has learned: gradients beside PPO's, and without its inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epg.errors import UserError
from epg.evaluation import gradients
from epg.evaluation.evaluate import evaluate
from epg.evaluation.gradients import inspect
from epg.evaluation.inspect import inspect_into
from epg.evaluation.protocol import SavedFiles
from epg.lifetime import LifetimeResult
from epg.losses.ppo import Ppo
from epg.losses.temporal_conv import TemporalConv
from epg.methods import saved

CONTEXT_COLUMNS = slice(6, 38)
"""Of step.weight of a loss for 2 observations and 2 actions, after those, reward and done."""


@pytest.fixture(scope="module")
def loss(finished: Path) -> Path:
    return finished / "best.safetensors"


@pytest.fixture
def changed(loss: Path, tmp_path: Path) -> Path:
    """Where a loss with other weights is to be."""
    return tmp_path / "changed.safetensors"


def save_with(loss: Path, path: Path, name: str, columns: slice) -> None:
    """The same loss with some inputs of a layer at weight 0."""
    found = saved.load(loss)
    weight = found.params[name].clone()
    weight[:, columns] = 0
    replace(found, params={**found.params, name: weight}).save(path)


def test_a_loss_that_ignores_an_input_does_not_change_without_it(loss: Path, changed: Path) -> None:
    whole = inspect(SavedFiles([loss]), "point-goal", lifetimes=3)
    assert set(whole.change) == {"observation", "action", "reward", "done", "memory", "context"}
    assert all((values > 0).all() for name, values in whole.change.items() if name != "done")
    save_with(loss, changed, "step.weight", CONTEXT_COLUMNS)
    blind = inspect(SavedFiles([changed]), "point-goal", lifetimes=3)
    assert (blind.change["context"] == 0).all() and (blind.change["reward"] > 0).all()
    assert "changes without context      0 [0, 0]" in blind.table()


def test_ppo_itself_goes_the_way_of_ppo(loss: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of a learned loss; without an input it is the same PPO."""
    monkeypatch.setattr(TemporalConv, "bind", lambda *_: Ppo())
    found = inspect(SavedFiles([loss]), "point-goal", lifetimes=3)
    np.testing.assert_allclose(found.cosine, 1.0, atol=1e-5)
    np.testing.assert_allclose(found.norm, found.ppo_norm, rtol=1e-6)
    assert all((values == 0).all() for values in found.change.values())


def test_watching_changes_nothing(
    loss: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agents are those of an evaluation with the same seed, bit for bit."""
    seen: list[LifetimeResult] = []
    live = gradients.live

    def overheard(*arguments: Any) -> LifetimeResult:
        seen.append(live(*arguments))
        return seen[-1]

    monkeypatch.setattr(gradients, "live", overheard)
    inspect(SavedFiles([loss]), "point-goal", lifetimes=3)
    judged = evaluate(loss, "point-goal", lifetimes=3, methods=(), out=tmp_path / "out")
    assert judged is not None
    assert seen[0].final_return.tolist() == judged.tasks[0].scores[0].returns.tolist()


def test_a_constant_loss_has_no_direction(loss: Path, changed: Path) -> None:
    save_with(loss, changed, "output.weight", slice(None))
    found = inspect(SavedFiles([changed]), "point-goal", lifetimes=2)
    assert np.isnan(found.cosine).all() and (found.norm == 0).all()
    assert found.picture().startswith(b"\x89PNG\r\n\x1a\n")
    assert "cosine with PPO's gradient   –" in found.table()
    assert found.plain()["means"]["cosine with PPO's gradient"] is None


def test_numbers_and_picture_are_written_and_no_others_overwritten(
    loss: Path, tmp_path: Path, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    folder = tmp_path / "deep" / "out"
    found = inspect_into(folder, loss, "point-goal", lifetimes=2)
    written = json.loads((folder / "anatomy-point-goal.json").read_text())
    assert (written["lifetimes"], written["seed"], written["settings"]) == (2, 0, {"α": 0.0})
    assert written["loss"] == hashlib.sha256(loss.read_bytes()).hexdigest()
    cosine = written["means"]["cosine with PPO's gradient"]
    assert cosine["value"] == pytest.approx(found.cosine.mean())
    assert (folder / "anatomy-point-goal.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    before = contents(folder)
    inspect_into(folder, loss, "point-goal", lifetimes=2)
    assert contents(folder) == before
    with pytest.raises(UserError, match=r"another inspection \(lifetimes: there 2, here 3\)"):
        inspect_into(folder, loss, "point-goal", lifetimes=3)
    assert contents(folder) == before


def test_a_task_that_is_too_large_is_refused(loss: Path) -> None:
    with pytest.raises(UserError, match="does not fit task random-cart-pole: it has 4 obs"):
        inspect(SavedFiles([loss]), "random-cart-pole")


def test_what_its_agents_come_to_stands_beside_what_others_do(loss: Path, tmp_path: Path) -> None:
    """As in an evaluation of the same seed."""
    watched = inspect(SavedFiles([loss]), "point-goal", lifetimes=3, seed=5)
    judged = evaluate(loss, "point-goal", lifetimes=3, seed=5, out=tmp_path / "out",
                      methods=("random", "blind"))  # fmt: skip
    assert judged is not None and list(watched.finals) == ["learned loss", "random", "blind"]
    for score in judged.tasks[0].scores:
        assert np.array_equal(watched.finals[score.entry.method], score.result.final_return)
    assert "learned loss: uses reward: " in watched.table()
    assert "final return, blind" in watched.plain()["means"]
