"""Evaluation: held-out MDPs, equal terms for every method, and results that are the same twice."""

from __future__ import annotations

import csv
import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import epg
from epg import tasks
from epg.config import Setup
from epg.errors import UserError
from epg.evaluation.evaluate import Evaluation
from epg.evaluation.scores import TaskScores, csv_of, scores_of
from epg.lifetime import areas_of
from epg.methods import saved
from epg.seeds import LifetimeSeed, Purpose
from epg.tasks.base import draw_mdp

LIFETIMES = 4


@pytest.fixture
def epg_(request: pytest.FixtureRequest) -> Any:
    """The command, whose name the package has here."""
    return request.getfixturevalue("epg")


@pytest.fixture(scope="module")
def loss(finished: Path) -> Path:
    return finished / "best.safetensors"


@pytest.fixture(scope="module")
def strong(loss: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loss with another φ, another α, and agents that learn fast."""
    found = saved.load(loss)
    config = found.config.with_setup(found.config.setup.change(learning_rate=0.3))
    config = config.replace(method=config.method.replace(alpha=0.75).model_dump())
    path = tmp_path_factory.mktemp("strong") / "best.safetensors"
    params = {name: 3 * tensor for name, tensor in found.params.items()}
    replace(found, params=params, config=config).save(path)
    return path


def returns(result: Evaluation) -> dict[str, list[float]]:
    """Of the first task."""
    return {score.entry.method: score.returns.tolist() for score in result.tasks[0].scores}


def evaluate(loss: object, out: Path, **changes: object) -> Evaluation:
    usual = {"task": "point-goal", "methods": ("ppo", "random"), "lifetimes": LIFETIMES}
    settings = {**usual, "out": out, **changes}
    result: Evaluation = epg.evaluate(loss, **settings)
    return result


def test_the_same_seed_has_the_same_numbers_and_another_has_not(loss: Path, tmp_path: Path) -> None:
    once, again = evaluate(loss, tmp_path / "a"), evaluate(str(loss), tmp_path / "b")
    assert returns(once) == returns(again)
    for name in ("evaluation.json", "returns.csv", "protocol.yaml"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    other = returns(evaluate(loss, tmp_path / "c", seed=1))
    assert all(other[name] != values for name, values in returns(once).items())


def test_what_is_written_is_what_is_told(loss: Path, tmp_path: Path) -> None:
    result = evaluate(loss, tmp_path)
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written == json.loads(json.dumps(result.plain()))
    [task] = written["tasks"]
    assert [row["method"] for row in task["rows"]] == ["learned loss", "ppo", "random"]
    assert task["environment_steps_per_lifetime"] == 2 * 32
    with open(tmp_path / "returns.csv", newline="") as file:
        lives = list(csv.DictReader(file))
    for row in task["rows"]:
        mine = [float(x["final_return"]) for x in lives if x["method"] == row["method"]]
        assert len(mine) == LIFETIMES and mine == returns(result)[row["method"]]
        lines = [r for r in result.table().splitlines() if r.startswith(row["method"] + " ")]
        final = row["final_return"]
        assert (final["n"], final["over"]) == (LIFETIMES, "lifetimes")
        assert final["mean"]["value"] == pytest.approx(np.mean(mine))
        assert final["median"]["value"] == pytest.approx(np.median(mine))
        shown = [[float(n) for n in re.findall(r"-?[0-9.]+", line)] for line in lines]
        numbers = [n for line in shown for n in line]
        for name in ("mean", "median", "iqm"):
            interval = final[name]
            assert interval["low"] <= interval["value"] <= interval["high"]
            assert all(
                any(abs(number - interval[end]) < 5e-4 * abs(number) + 1e-3 for number in numbers)
                for end in ("value", "low", "high")
            )


def test_the_picture_is_a_png_of_some_size(loss: Path, tmp_path: Path) -> None:
    evaluate(loss, tmp_path)
    png = (tmp_path / "point-goal.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n") and png.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", png[16:24])
    assert width >= 600 and height >= 400


def test_no_mdp_of_the_training_is_met_again() -> None:
    task = tasks.make("random-cart-pole")

    def drawn(purpose: Purpose) -> set[float]:
        seeds = (LifetimeSeed(0, purpose, step, i) for step in range(4) for i in range(50))
        return {draw_mdp(task, seed)["force"] for seed in seeds}

    ours = (LifetimeSeed(0, Purpose.EVALUATION, 0, i) for i in range(200))
    held_out = {draw_mdp(task, seed)["force"] for seed in ours}
    assert len(held_out) == 200
    for purpose in (Purpose.TRAINING, Purpose.VALIDATION, Purpose.TUNING):
        assert not held_out & drawn(purpose)


def test_alpha_is_the_losses_unless_told_otherwise(strong: Path, tmp_path: Path) -> None:
    default = evaluate(strong, tmp_path / "a")
    assert "α 0.75" in default.table()
    learned = returns(default)["learned loss"]
    assert returns(evaluate(strong, tmp_path / "b", alpha=0.75))["learned loss"] == learned
    assert returns(evaluate(strong, tmp_path / "c", alpha=0.0))["learned loss"] != learned


def test_with_alpha_1_a_loss_is_ppo(loss: Path, tmp_path: Path) -> None:
    """The same MDPs, initial agents and chance; point-goal's PPO has no tuned settings."""
    result = returns(evaluate(loss, tmp_path, alpha=1.0))
    assert result["learned loss"] == result["ppo"]


def test_lifetimes_do_not_depend_on_how_many_there_are(loss: Path, tmp_path: Path) -> None:
    few = returns(evaluate(loss, tmp_path / "few"))
    more = returns(evaluate(loss, tmp_path / "more", lifetimes=6))
    assert all(more[name][:LIFETIMES] == few[name] for name in few)


def test_several_losses(loss: Path, strong: Path, tmp_path: Path) -> None:
    result = returns(evaluate([loss, strong], tmp_path / "both", methods=()))
    assert len(result) == 2
    first, second = result
    assert first != second and all(len(name) < len(str(loss)) for name in result)
    assert result[first] == returns(evaluate(loss, tmp_path / "one"))["learned loss"]
    assert result[first] != result[second]


def test_a_loss_for_a_mixture_goes_to_each_of_its_tasks_padded(
    epg_: Any, tiny: Path, tmp_path: Path
) -> None:
    spec = "[{name: point-goal, scale: [-3, -1]}, {name: random-cart-pole, scale: [10, 60]}]"
    said = epg_("train", tiny, f"task={spec}", "--run", "run", folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    found = saved.load(tmp_path / "run" / "best.safetensors")
    assert found.tasks == ("point-goal", "random-cart-pole")
    assert found.sizes == (4, 2, False)
    best = "run/best.safetensors"
    said = epg_("evaluate", best, "--task", spec, "--lifetimes", 3,
                "--methods", "random", folder=tmp_path)  # fmt: skip
    assert (said.code, said.err) == (0, "")
    assert " ".join(said.out.split()).count("padded to 4 observations, 2 actions") == 2
    names = sorted(p.name for p in (tmp_path / "evaluation").glob("*.png"))
    assert names == ["point-goal.png", "random-cart-pole.png"]


def test_a_padded_task_is_lived_as_by_larger_agents(loss: Path, tmp_path: Path) -> None:
    """PPO beside it is not padded."""
    found = saved.load(loss)
    larger = tmp_path / "larger.safetensors"
    found = replace(found, sizes=(5, 3, False))
    replace(found, params=found.method().init()).save(larger)
    result = evaluate(larger, tmp_path / "out")
    assert np.isfinite(result.tasks[0].scores[0].returns).all()
    usual = returns(evaluate(loss, tmp_path / "usual"))
    assert returns(result)["ppo"] == usual["ppo"]
    assert returns(result)["learned loss"] != usual["learned loss"]


def test_a_task_that_is_not_at_hand_any_more_does_not_matter(loss: Path, tmp_path: Path) -> None:
    found = saved.load(loss)
    foreign = tmp_path / "foreign.safetensors"
    replace(found, task="gone:Task", tasks=("gone:Task",)).save(foreign)
    assert saved.load(foreign).task == "gone:Task"
    assert returns(evaluate(foreign, tmp_path / "out")) == returns(evaluate(loss, tmp_path / "a"))


def test_longer_lives_and_other_agents(strong: Path, tmp_path: Path) -> None:
    trained = returns(evaluate(strong, tmp_path / "trained"))
    longer = evaluate(strong, tmp_path / "longer", updates=5)
    assert longer.tasks[0].scores[0].result.episode_returns.shape == (LIFETIMES, 5)
    assert longer.tasks[0].steps == 5 * 32 and returns(longer) != trained
    for name, changes in {
        "wider": {"hidden": (16, 4)},
        "relu": {"activation": "relu"},
        "slow": {"learning_rate": 1e-3},
    }.items():
        judged = evaluate(strong, tmp_path / name, **changes)
        other = returns(judged)
        assert "(trained with " in " ".join(judged.table().split())
        assert other["learned loss"] != trained["learned loss"]
        assert (other["ppo"] == trained["ppo"]) == (name == "slow")


@pytest.mark.parametrize(
    ("name", "task", "own", "updates"),
    [("lpg", "cart-pole", 0.005, 3), ("metagenrl", "point-goal", 1e-3, 4)],
)
def test_agents_of_a_losss_own_kind_have_the_rate_that_is_asked_for(
    name: str, task: str, own: float, updates: int, tmp_path: Path
) -> None:
    usual = {"task": task, "updates": updates, "methods": (), "lifetimes": 2}
    as_trained = evaluate(name, tmp_path / "trained", **usual)
    same = evaluate(name, tmp_path / "same", learning_rate=own, **usual)
    faster = evaluate(name, tmp_path / "faster", learning_rate=0.25, **usual)
    assert returns(same) == returns(as_trained) != returns(faster)
    assert "0.25" in faster.table() and "0.25" not in same.table()


def test_a_lifetime_that_failed_counts_as_the_worst(strong: Path, tmp_path: Path) -> None:
    """Of all methods: by the worst of its own, a method would gain from failing."""
    scores = evaluate(strong, tmp_path).tasks[0].scores
    broken = np.array([np.nan, np.nan, np.nan, 7.0])
    curves = np.array([[1.0, 2.0], [np.nan, 4.0], [np.nan, np.nan], [5.0, np.nan]])
    result = replace(scores[0].result, final_return=broken, episode_returns=curves)
    others = [(score.entry, score.result) for score in scores[1:]]
    judged = scores_of([(scores[0].entry, result), *others])
    assert areas_of(curves)[[0, 1, 3]].tolist() == [1.5, 4.0, 5.0]
    worst = min(score.result.final_return.min() for score in scores[1:])
    worst_area = min(areas_of(score.result.episode_returns).min() for score in scores[1:])
    assert judged[0].returns.tolist() == [worst, worst, worst, 7.0] and judged[0].failures == 3
    assert judged[0].areas.tolist() == [worst_area, worst_area, worst_area, 5.0]
    task = TaskScores("point-goal", judged, {})
    assert task.rows[0].failures == 3 and "3 lifetimes failed" in task.table()
    assert csv_of([task]).splitlines()[1:5] == [
        "point-goal,learned loss,0,,1.5,1", "point-goal,learned loss,1,,4.0,1",
        "point-goal,learned loss,2,,,1", "point-goal,learned loss,3,7.0,5.0,0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"lifetimes": 0}, {"updates": 0}, {"hidden": ()}, {"hidden": (8, -1)}, {"alpha": 1.5},
        {"alpha": float("nan")}, {"seed": -1}, {"activation": "sine"}, {"learning_rate": 0.0},
    ],
)  # fmt: skip
def test_impossible_numbers_are_refused(
    loss: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    with pytest.raises(UserError, match=f"^{next(iter(changes))}.*: .*, found "):
        evaluate(loss, tmp_path / "out", **changes)
    assert list(tmp_path.iterdir()) == []


def test_losses_with_unequal_steps_are_refused(loss: Path, tmp_path: Path) -> None:
    found = saved.load(loss)
    for name, value, first in (("steps_per_update", 64, 32), ("final_episodes", 3, 1)):
        config = found.config.with_setup(found.config.setup.change(**{name: value}))
        other = tmp_path / "other.safetensors"
        replace(found, config=config).save(other)
        with pytest.raises(UserError, match=rf"lifetime.{name} is {value}, that of .* {first}; "):
            evaluate([loss, other], tmp_path / "out")


def test_threads_are_those_of_the_training(loss: Path, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    evaluate(loss, tmp_path)
    assert torch.get_num_threads() == 1


METHODS_ALONE = ("evaluate", "--task", "random-cart-pole", "--updates", "2", "--lifetimes", "4",
                 "--out", "out")  # fmt: skip


@pytest.mark.parametrize("option", ["--methods", "--baselines"])
def test_methods_made_by_hand_need_no_file(epg_: Any, tmp_path: Path, option: str) -> None:
    """The older name of the option means the same."""
    said = epg_(*METHODS_ALONE, option, "ppo,dpo,random", "--json", folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    told = json.loads(said.out.splitlines()[-1])
    assert told["protocol"]["losses"] == [] and told["trained_on"] == {}
    assert told["protocol"]["methods"] == ["ppo", "dpo", "random"]
    [task] = told["tasks"]
    assert [row["method"] for row in task["rows"]] == ["ppo", "dpo", "random"]
    assert task["environment_steps_per_lifetime"] == 2 * Setup().lifetime.steps_per_update
    assert all(row["final_return"]["n"] == 4 and row["failures"] == 0 for row in task["rows"])
    assert [row["improvement"] is None for row in task["rows"]] == [True, False, False]
    with open(tmp_path / "out" / "returns.csv", newline="") as file:
        finals = [(row["method"], row["final_return"]) for row in csv.DictReader(file)]
    assert len(finals) == 12 and len({final for _, final in finals}) > 4
    assert (tmp_path / "out" / "random-cart-pole.png").exists()
    assert not list(tmp_path.glob("out/*.safetensors"))
    journal = (tmp_path / "out" / "journal.jsonl").read_bytes()
    said = epg_(*METHODS_ALONE, option, "ppo,dpo,random", folder=tmp_path)
    assert said.code == 0 and (tmp_path / "out" / "journal.jsonl").read_bytes() == journal


def test_what_lives_without_a_file_lives_the_same_beside_one(loss: Path, tmp_path: Path) -> None:
    """With the settings of the file's training, which are other than the usual ones."""
    config = saved.load(loss).config
    settings = {"methods": ("dpo", "random"), "hidden": (8,)}
    beside = returns(evaluate(loss, tmp_path / "beside", **settings))
    alone = evaluate((), tmp_path / "alone", updates=config.lifetime.updates, **settings)
    assert list(returns(alone)) == ["dpo", "random"]
    assert alone.tasks[0].steps != 2 * 32 and returns(alone)["random"] != beside["random"]
    usual = config.with_setup(Setup(agent=config.agent).change(updates=2))
    same = tmp_path / "same.safetensors"
    replace(saved.load(loss), config=usual).save(same)
    beside = returns(evaluate(same, tmp_path / "usual", **settings))
    assert returns(alone) == {name: beside[name] for name in ("dpo", "random")}


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("", "methods: found none, expected a saved file or a method at least"),
        ("epg", "method epg: is learned across lifetimes: train it with epg train, then name its"),
        ("ppo,epg", "method epg: is learned across lifetimes: train it with epg train"),
        ("untrained", "method untrained: is another side of a saved file; none is named"),
        ("pp", "method: unknown name 'pp'; did you mean ppo"),
        ("reinforced", "method: unknown name 'reinforced'; did you mean reinforce"),
        ("sb3-td", "method: unknown name 'sb3-td'; did you mean sb3-td3 or sb3-"),
        ("gone:Method", "method gone:Method: no module 'gone' here"),
    ],
)
def test_methods_that_cannot_live_without_a_file(
    epg_: Any, tmp_path: Path, methods: str, message: str
) -> None:
    said = epg_(*METHODS_ALONE, "--methods", methods, folder=tmp_path)
    assert said.code == 2 and said.out == ""
    assert said.err.startswith(f"epg: {message}") and said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_a_task_it_is_that_of_the_training(loss: Path, tmp_path: Path) -> None:
    found = evaluate(loss, tmp_path / "a", task="", methods=None)
    assert [task.task for task in found.tasks] == ["point-goal"]
    assert list(returns(found)) == ["learned loss", "ppo", "random", "blind"]
    with pytest.raises(UserError, match="task: found none, expected at least one"):
        evaluate((), tmp_path / "b", task="")
