"""Methods that tune themselves within a life, as evaluations have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from epg import tasks
from epg.agents.base import Agents
from epg.config import Config, Setup
from epg.errors import UserError
from epg.evaluation.evaluate import evaluate
from epg.lifetime import LifetimeResult, live
from epg.methods.base import make_algorithm, make_method
from epg.methods.saved import load
from epg.methods.within_a_life import Bmg, RuleAlgorithm, Xu
from epg.registry import METHODS, find
from epg.rules.trace import Tracer
from epg.seeds import LifetimeSeeds, Purpose
from epg.tasks.base import draw_mdps

TUNING = [
    n for n in METHODS if issubclass(find("method", n), RuleAlgorithm) and find("method", n).tunes
]
PLAIN = ["a2c", "vtrace"]
SETUP = Setup().change(updates=24, steps_per_update=16, hidden=(8,), buffer=16, minibatch=16)


def lived(name: str, task: Any = "cart-pole", count: int = 3, **other: object) -> LifetimeResult:
    made, seeds = tasks.make(task), LifetimeSeeds.of(0, Purpose.EVALUATION, 0, count)
    setup = SETUP.change(**other)
    agents = make_algorithm(name).agents(made, setup, seeds)
    return live(made, draw_mdps(made, seeds), agents, seeds, setup.lifetime)


def test_all_are_there() -> None:
    assert len(TUNING) == 11
    assert set(PLAIN) == {
        n for n in METHODS if issubclass(find("method", n), RuleAlgorithm) and n not in TUNING
    }


@pytest.mark.parametrize("task", ["cart-pole", "point-goal"])
@pytest.mark.parametrize("name", TUNING)
def test_what_it_tunes_moves_and_is_shown(name: str, task: str) -> None:
    found = lived(name, task)
    assert np.isfinite(found.final_return).all()
    assert all(course.shape == (3, 24) for course in found.course.values())
    sizes = found.course["meta_gradient"]
    assert (sizes > 0).any(1).all()
    shown = [course for n, course in found.course.items() if n != "meta_gradient"]
    assert all((course[:, -1] != course[:, 0]).all() for course in shown)
    assert found.kept and all(np.isfinite(array).all() for array in found.kept.values())


@pytest.mark.parametrize("name", [*PLAIN, *TUNING])
def test_a_life_is_the_same_in_any_company(name: str) -> None:
    """Up to rounding: batches of other sizes are multiplied in another order."""
    whole = lived(name, count=4)
    made = tasks.make("cart-pole")
    seeds = LifetimeSeeds.of(0, Purpose.EVALUATION, 2, 2)
    agents = make_algorithm(name).agents(made, SETUP, seeds)
    part = live(made, draw_mdps(made, seeds), agents, seeds, SETUP.lifetime)
    np.testing.assert_array_equal(part.episode_returns, whole.episode_returns[2:])
    for key, kept in part.kept.items():
        np.testing.assert_allclose(kept, whole.kept[key][2:], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [*PLAIN, "xu", "stacx", "frodo", "bmg", "lirpg"])
def test_it_learns_to_walk_to_the_end_that_pays(name: str) -> None:
    task = {"name": "drifting-walk", "period": 1e9, "slip": 0.0}
    found = lived(name, task, 4, updates=150, learning_rate=2e-2, hidden=(16,))
    assert found.final_return.mean() > 0.8  # 0 at random


def test_an_evaluation_has_the_course_and_a_file_that_is_evaluated_elsewhere(
    tmp_path: Path,
) -> None:
    told = {"lifetimes": 3, "updates": 12, "hidden": (8,)}
    out = tmp_path / "first"
    found = evaluate(task="cart-pole", methods=("a2c", "xu", "frodo"), out=out, **told)
    assert found is not None
    plain = json.loads((out / "evaluation.json").read_text())["tasks"][0]["course"]
    assert {m: sorted(names) for m, names in plain.items()} == {
        "xu": ["discount", "meta_gradient", "smoothing"], "frodo": ["meta_gradient", "target_norm"],
    }  # fmt: skip
    assert len(plain["xu"]["discount"]) == 12
    rows = (out / "course.csv").read_text().splitlines()
    assert rows[0] == "task,method,name,lifetime,update,value"
    assert len(rows) == 1 + 5 * 3 * 12
    assert (out / "cart-pole-course.png").stat().st_size > 10_000
    assert not (out / "cart-pole-a2c.safetensors").exists()
    # every life's, and they stay as they are on another task
    file = out / "cart-pole-xu.safetensors"
    kept = found.tasks[0].scores[1].result.kept
    saved = load(file)
    for name, array in kept.items():
        np.testing.assert_array_equal(saved.params[name].numpy(), array)
    again = evaluate(file, task="catch", methods=("a2c",), out=tmp_path / "second", **told)
    assert again is not None
    assert [s.entry.method for s in again.tasks[0].scores] == ["learned loss", "a2c"]
    assert not again.tasks[0].scores[0].result.course
    with pytest.raises(UserError, match="nothing is to be trained"):
        saved.method().begin(saved.params)


def test_frozen_agents_learn_by_the_numbers_of_the_file(tmp_path: Path) -> None:
    """A file whose γ and λ are those of the configuration makes agents that are plain A2C's."""
    told = {"lifetimes": 2, "updates": 6, "hidden": (8,)}
    out = tmp_path / "first"
    evaluate(task="catch", methods=("xu",), out=out, **told)
    saved = load(out / "catch-xu.safetensors")
    task, seeds = tasks.make("catch"), LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 2)
    setup = saved.config.setup

    def learned(agents: Agents) -> dict[str, torch.Tensor]:
        seeds = LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 2)
        live(task, draw_mdps(task, seeds), agents, seeds, setup.lifetime)
        return agents._online.theta  # type: ignore[attr-defined, no-any-return]

    plain = learned(make_algorithm("a2c").agents(task, setup, seeds))
    for discount in (0.99, 0.5):
        logits = {"discount": np.log(discount / (1 - discount)), "smoothing": np.log(19.0)}
        params = {n: torch.full_like(p, float(logits[n])) for n, p in saved.params.items()}
        seeds = LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 2)
        found = learned(saved.method(task).agents(params, seeds))
        alike = [torch.allclose(p, plain[n], rtol=1e-4, atol=1e-6) for n, p in found.items()]
        assert all(alike) == (discount == 0.99)


# What does not fit


def test_training_one_says_what_to_do_instead() -> None:
    data = {"task": "cart-pole", "method": {"name": "xu"}}
    with pytest.raises(UserError, match="learns within a life: nothing is to be trained; epg ev"):
        make_method(Config.model_validate(data), tasks.make("cart-pole"))


def test_a_window_longer_than_a_life_is_refused() -> None:
    with pytest.raises(UserError, match=r"lives of 8 updates: method bmg .* at least 9"):
        lived("bmg", updates=8)
    assert lived("bmg", updates=9).course


def test_where_gamma_begins() -> None:
    class Beyond(Xu):
        start = {"discount": 1.5}  # noqa: RUF012

    task, seeds = tasks.make("catch"), LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 2)
    with pytest.raises(UserError, match=r"discount of method Beyond: found 1.5 to begin with"):
        Beyond().agents(task, SETUP, seeds)
    Beyond.free = True
    agents = Beyond().agents(task, SETUP, seeds)
    np.testing.assert_array_equal(agents.kept()["discount"], [1.5, 1.5])


@pytest.mark.parametrize(
    "other",
    [
        {"optimizer": "rmsprop"}, {"judged": "halves"}, {"tracer": Tracer(0.9, identity=True)},
        {"tracer": Tracer()}, {"inner_steps": 3}, {"exact": False, "inner_steps": 2},
        {"embedding": 4},
    ],
    ids=str,
)  # fmt: skip
def test_variants_of_ones_own_learn_otherwise(other: dict[str, Any]) -> None:
    made, usual = type("Variant", (Xu,), other), lived("xu")
    task, seeds = tasks.make("cart-pole"), LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 3)
    found = live(
        task, draw_mdps(task, seeds), made().agents(task, SETUP, seeds), seeds, SETUP.lifetime
    )
    assert np.isfinite(found.final_return).all()
    assert not np.array_equal(found.kept["discount"], usual.kept["discount"])


def test_a_rule_that_looks_ahead_is_judged_by_its_window_alone() -> None:
    class Halved(find("method", "bmg")):  # type: ignore[misc]
        judged = "halves"

    seeds = LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 2)
    with pytest.raises(ValueError, match="looks ahead"):
        Halved().agents(tasks.make("catch"), SETUP, seeds)
    assert Bmg.ahead > 0


def test_a_learner_whose_gradient_blows_up_fails_alone() -> None:
    task, seeds = tasks.make("cart-pole"), LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 3)
    agents = make_algorithm("xu").agents(task, SETUP, seeds)
    agents._online.eta["discount"].data[1] = torch.nan  # type: ignore[attr-defined]
    found = live(task, draw_mdps(task, seeds), agents, seeds, SETUP.lifetime)
    assert np.isfinite(found.final_return).tolist() == [True, False, True]
