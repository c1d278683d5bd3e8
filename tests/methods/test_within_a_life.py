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
from epg.methods.frozen_rule import saved_eta
from epg.methods.saved import load
from epg.methods.within_a_life import RuleAlgorithm, Xu
from epg.registry import METHODS, find
from epg.rules.rollout import Rollout
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


@pytest.mark.parametrize("task", ["cart-pole", "point-goal"])
@pytest.mark.parametrize("name", [*PLAIN, *TUNING])
def test_a_life_is_the_same_in_any_company(name: str, task: str) -> None:
    setup, made = SETUP.change(updates=12), tasks.make(task)
    whole = lived(name, task, 7, updates=12)
    for first, count in ((0, 2), (2, 5)):
        seeds = LifetimeSeeds.of(0, Purpose.EVALUATION, first, count)
        agents = make_algorithm(name).agents(made, setup, seeds)
        part = live(made, draw_mdps(made, seeds), agents, seeds, setup.lifetime)
        members = slice(first, first + count)
        np.testing.assert_array_equal(part.episode_returns, whole.episode_returns[members])
        for key, kept in part.kept.items():
            np.testing.assert_array_equal(kept, whole.kept[key][members])
        for key, course in part.course.items():
            np.testing.assert_array_equal(course, whole.course[key][members])


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
        "xu": ["discount", "meta_gradient", "smoothing"],
        "frodo": ["meta_gradient", "weights_norm"],
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


def test_lives_that_failed_are_not_in_the_file() -> None:
    kept = {"discount": np.array([1.0, np.nan, 3.0], np.float32)}
    task = tasks.make("catch")
    saved = saved_eta("xu-discount", task, "catch", SETUP, 4, kept)
    assert saved is not None and saved.params["discount"].tolist() == [1.0, 3.0]
    assert saved.config.method.lives == 2 and saved.config.seed == 4  # type: ignore[attr-defined]
    assert (
        saved_eta("xu-discount", task, "catch", SETUP, 4, {"discount": np.full(2, np.nan)}) is None
    )


def test_rewards_of_other_layers_are_refused_and_a_rule_of_a_strangers_is_not_imported(
    tmp_path: Path,
) -> None:
    told = {"lifetimes": 2, "updates": 6}
    out = tmp_path / "first"
    evaluate(task="catch", methods=("lirpg", "frodo"), out=out, hidden=(8,), **told)
    with pytest.raises(UserError, match=r"η of lirpg is of tanh layers \(8,\): found tanh layers"):
        evaluate(out / "catch-lirpg.safetensors", task="catch", methods=(), hidden=(4,),
                 out=tmp_path / "second", **told)  # fmt: skip
    found = evaluate(out / "catch-frodo.safetensors", task="cart-pole", methods=(), hidden=(4,),
                     out=tmp_path / "third", **told)  # fmt: skip
    assert found is not None
    assert "frodo as 2 lives tuned it, frozen" in found.tasks[0].scores[0].entry.about
    data = {"task": "catch", "method": {"name": "frozen", "rule": "nowhere:Rule"}}
    with pytest.raises(UserError, match="no module"):
        make_method(Config.model_validate(data), tasks.make("catch"))


# What does not fit


def test_training_one_says_what_to_do_instead() -> None:
    data = {"task": "cart-pole", "method": {"name": "xu"}}
    with pytest.raises(UserError, match="learns within a life: nothing is to be trained; epg ev"):
        make_method(Config.model_validate(data), tasks.make("cart-pole"))


def test_a_window_longer_than_a_life_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lives of 8 updates: method bmg .* at least 9"):
        lived("bmg", updates=8)
    assert lived("bmg", updates=9).course
    with pytest.raises(UserError, match=r"method bmg: needs lives of 9 updates at least, found 8"):
        evaluate(task="catch", methods=("a2c", "bmg"), updates=8, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_learned_has_a_name() -> None:
    task, seeds = tasks.make("catch"), LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 2)
    for other in ({"learned": ("gamma",)}, {"learned": ()}, {"start": {"gamma": 0.5}}):
        with pytest.raises(UserError, match="allowed: "):
            type("Variant", (Xu,), other)().agents(task, SETUP, seeds)


def test_an_entropy_of_0_or_of_a_thousand_can_be_learned_from() -> None:
    for entropy in (0.0, 1000.0):
        course = lived("meta-entropy", entropy=entropy).course["entropy_weight"]
        assert np.isfinite(course).all()


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


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("bmg", {"judged": "halves"}), ("bmg", {"tracer": Tracer()}), ("lirpg", {"inner_steps": 2}),
        ("lirpg", {"tracer": Tracer()}), ("frodo", {"judged": "halves"}),
        ("xu", {"judged": "halves", "tracer": Tracer()}),
    ],
)  # fmt: skip
def test_ways_that_a_rule_does_not_have_are_refused(name: str, other: dict[str, Any]) -> None:
    made, seeds = (
        type("Variant", (find("method", name),), other),
        LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 2),
    )
    with pytest.raises(ValueError, match=r"looks ahead|no other way|no trace|inner steps"):
        made().agents(tasks.make("catch"), SETUP, seeds)


def test_a_trace_weighs_how_far_the_policy_went_as_a_graph_does() -> None:
    """STAC's divergence from the policy of before."""
    task = tasks.make("cart-pole")
    first = []
    for tracer in (None, Tracer(0.0)):
        made = type("Variant", (find("method", "stac"),), {"tracer": tracer, "lag": 0})
        seeds = LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 2)
        found = live(
            task, draw_mdps(task, seeds), made().agents(task, SETUP, seeds), seeds, SETUP.lifetime
        )
        first.append(found.course["meta_gradient"][:, :3])
    assert (first[0][:, 1] > 0).all()
    np.testing.assert_allclose(first[0], first[1], rtol=1e-3)


def test_tied_leaks_learn() -> None:
    made = type("Tied", (find("method", "stac"),), {"tie_leak": True})
    task, seeds = tasks.make("cart-pole"), LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 2)
    agents = made().agents(task, SETUP, seeds)
    assert "leak_trace" not in agents.kept()
    live(task, draw_mdps(task, seeds), agents, seeds, SETUP.lifetime)


def test_with_a_lag_the_policy_of_then_acts_and_its_probabilities_count() -> None:
    """θ of k − 3 acts in rollout k, and θ of the newest update is judged."""
    made = type("Late", (find("method", "vtrace"),), {"lag": 3})
    task, seeds = tasks.make("catch"), LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 2)
    agents = made().agents(task, SETUP.change(learning_rate=0.1), seeds)
    thetas, seen = [agents._online.theta], []
    learn = agents._online.learn

    def noted(rollout: Rollout) -> torch.Tensor:
        seen.append(rollout)
        size = learn(rollout)
        thetas.append(agents._online.theta)
        return size

    agents._online.learn = noted
    live(task, draw_mdps(task, seeds), agents, seeds, SETUP.lifetime)
    rule = agents._rule
    for k, rollout in enumerate(seen):
        outputs = rule.outputs({}, thetas[max(0, k - 3)], rollout.observations)
        wanted = rule.distribution.log_prob(outputs, rollout.actions)
        torch.testing.assert_close(rollout.behaviour, wanted)
        acting = agents.actor(torch.arange(2))._layers[-1][0]
    np.testing.assert_array_equal(acting, thetas[-1]["policy0.weight"].detach().numpy())


def test_a_learner_whose_gradient_blows_up_fails_alone() -> None:
    task, seeds = tasks.make("cart-pole"), LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 3)
    agents = make_algorithm("xu").agents(task, SETUP, seeds)
    agents._online.eta["discount"].data[1] = torch.nan  # type: ignore[attr-defined]
    found = live(task, draw_mdps(task, seeds), agents, seeds, SETUP.lifetime)
    assert np.isfinite(found.final_return).tolist() == [True, False, True]
