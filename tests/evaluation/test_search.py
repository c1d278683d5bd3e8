"""Which settings are tried, by number; and the choice of the winner on lives that chose nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from epg import tasks
from epg.config import Setup, load
from epg.errors import UserError
from epg.evaluation.entry import EntryRunner
from epg.evaluation.evaluate import evaluate
from epg.evaluation.search import COARSE, RELATIVE, VALUES, Space
from epg.evaluation.tune import tune
from epg.evaluation.tuned import kept, tuned
from epg.farm.work import Result, Shared, Unit
from epg.seeds import LifetimeSeeds, Purpose, Stream

SETUP = Setup().change(updates=16, steps_per_update=64)
METHODS = ("random", "ppo", "reinforce")


@pytest.fixture
def space() -> Space:
    made = [tasks.make(name) for name in ("point-goal", "random-cart-pole")]
    return Space(made, METHODS, SETUP)


@pytest.mark.parametrize("method", METHODS)
def test_every_number_is_a_setting_of_a_method_on_a_task(space: Space, method: str) -> None:
    rng = np.random.default_rng(0)
    for task, made in enumerate(space.tasks):
        for number in rng.choice(list(space.coarse(task, method)), 5):
            entry = space[int(number)]
            assert entry.task is made and entry.method == method
            assert space.number(task, method, space.setting(int(number))) == number < len(space)
            assert entry.setup.lifetime.steps == SETUP.lifetime.steps
            assert entry.setup.learner.buffer >= entry.setup.lifetime.steps_per_update


def test_the_coarse_grid_has_every_value_with_every_other(space: Space) -> None:
    task = 0
    for method, count in (("random", 1), ("ppo", 4 * 4 * 4), ("reinforce", 4 * 4)):
        settings = [space.setting(number) for number in space.coarse(task, method)]
        assert len(settings) == len({repr(s) for s in settings}) == count
        for setting in settings:
            for name, value in setting.items():
                assert (value / SETUP.get(name) if name in RELATIVE else value) in COARSE[name]


def test_next_to_a_setting_is_one_value_by_one_step(space: Space) -> None:
    for number in list(space.coarse(1, "ppo"))[::7]:
        middle = space.setting(number)
        for near in map(space.setting, space.fine(number)):
            [name] = [name for name in middle if middle[name] != near[name]]
            values = VALUES[name]
            if name in RELATIVE:
                values = tuple(SETUP.get(name) * value for value in values)
            places = [values.index(each[name]) for each in (middle, near)]
            assert abs(places[0] - places[1]) == 1
            assert near["steps_per_update"] % near["minibatch"] == 0
        assert len(list(space.fine(number))) >= 10


def test_rates_that_fall_are_tried_beside_the_best(space: Space) -> None:
    """Whatever is configured for a loss beside them: theirs is constant, or falls to 0."""
    for schedule in ("constant", "linear", {"name": "inverse", "updates": 4}):
        space = Space(space.tasks, METHODS, SETUP.change(schedule=schedule))
        for method in ("ppo", "reinforce"):
            first = next(space.coarse(0, method))
            assert space.setting(first)["schedule"] == "constant"
            assert space[first].setup.learner.schedule.name == "constant"
            near = [space[number] for number in space.fine(first)]
            falling = [e for e in near if e.setup.learner.schedule.name == "linear"]
            assert len(falling) == 1 and "lr × (1 − n/N)" in falling[0].about


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EPG_CACHE", str(tmp_path / "cache"))
    for name in ("learning_rate", "passes", "steps_per_update"):
        monkeypatch.setitem(COARSE, name, COARSE[name][:2])


def test_the_winner_is_chosen_by_lives_that_brought_nothing_into_the_final(
    small: None, tiny: Path
) -> None:
    config = load(tiny, ["task=random-cart-pole"])
    [winner] = tune(config, lifetimes=3, methods=["ppo"])
    space = Space([tasks.make("random-cart-pole")], ("random", "ppo"), config.setup)
    runner = EntryRunner(config, space, config.seed, Purpose.TUNING)
    fresh = []
    for setting in winner["finalists"]:
        number = space.number(0, "ppo", setting)
        result = runner.run(None, Unit(Purpose.TUNING, 0, 3, 6, entry=number))
        fresh.append(result.arrays["final_return"].mean())
    assert fresh == sorted(fresh, reverse=True)
    assert winner["final_return"] == pytest.approx(fresh[0], abs=1e-4)


def test_the_best_of_one_budget_are_tried_again_at_another(small: None, tiny: Path) -> None:
    config = load(tiny, ["task=random-cart-pole"])
    longer = load(tiny, ["task=random-cart-pole", "lifetime.updates=6"])
    with pytest.raises(UserError, match="random-cart-pole: of no other budget are the best"):
        tune(longer, lifetimes=3, methods=["reinforce"], again=True)
    with pytest.raises(UserError, match="of no method are the best settings of another budget"):
        tune(longer, lifetimes=3, again=True)
    [first] = tune(config, lifetimes=3, methods=["reinforce"])
    [again] = tune(longer, lifetimes=4, methods=["reinforce"], again=True)
    tried = [sorted(sorted(each.items()) for each in e["finalists"]) for e in (first, again)]
    assert tried[0] == tried[1]
    assert again["settings"] == 5
    life = 6 * 32  # and a final episode of at most 200 steps
    assert 5 * 4 * life < again["grid_steps"] <= 5 * 4 * (life + 200)
    assert again["updates"] * again["steps_per_update"] == 6 * 32
    known = yaml.safe_load(kept().read_text())["random-cart-pole"]
    assert known == [first, again]
    with pytest.raises(UserError, match=f"tuned among {first['settings']} settings; --again is"):
        tune(config, lifetimes=3, methods=["reinforce"], again=True)
    found = tuned("reinforce", "random-cart-pole", longer.setup)
    assert found.exact and found.source == "tuned: best of 5 settings, 4 lifetimes each" + (
        " (few: 16 or more tell settings apart)"
    )


def test_again_lives_no_life_that_chose_them(
    small: None, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another step, whose seeds have nothing in common with those of the search."""
    lived = []
    run = EntryRunner.run

    def note(self: EntryRunner, shared: Shared | None, unit: Unit) -> Result:
        lived.append((unit.step, unit.members))
        return run(self, shared, unit)

    monkeypatch.setattr(EntryRunner, "run", note)
    tune(load(tiny, ["task=random-cart-pole"]), lifetimes=2, methods=["reinforce"])
    assert {step for step, _ in lived} == {0}
    lived.clear()
    longer = load(tiny, ["task=random-cart-pole", "lifetime.updates=4"])
    tune(longer, lifetimes=2, methods=["reinforce"], again=True)
    assert {step for step, _ in lived} == {1}
    searched, again = (
        LifetimeSeeds.of(0, Purpose.TUNING, 0, 9, step=step).draw(
            Stream.MDP, lambda rng: rng.random(3)
        )
        for step in (0, 1)
    )
    assert not torch.isin(searched, again).any()


def test_again_says_where_no_setting_fits(small: None, tiny: Path) -> None:
    tune(load(tiny, ["task=random-cart-pole"]), lifetimes=2, methods=["reinforce"])
    odd = load(
        tiny, ["task=random-cart-pole", "lifetime.steps_per_update=15", "learner.minibatch=5",
               "lifetime.updates=1"],
    )  # fmt: skip
    with pytest.raises(UserError, match="none of the best settings of reinforce divides a life of"):
        tune(odd, lifetimes=2, methods=["reinforce"], again=True)


def test_an_evaluation_lets_it_learn_as_often_as_it_was_tuned_to(
    small: None, tiny: Path, tmp_path: Path
) -> None:
    """Its updates are of another length than all others', its life is not."""
    config = load(tiny, ["task=random-cart-pole"])
    [winner] = tune(config, lifetimes=2, methods=["ppo"])
    text = kept().read_text()
    each, updates = winner["steps_per_update"], winner["updates"]
    kept().write_text(
        text.replace(f"steps_per_update: {each}\n", "steps_per_update: 128\n")
        .replace(f"updates: {updates}\n", "updates: 2\n")
        .replace("hidden:\n  - 8\n", "hidden:\n  - 64\n  - 64\n")
    )
    found = evaluate(task="random-cart-pole", methods=("ppo", "random"), lifetimes=2,
                     updates=4, out=tmp_path / "out")  # fmt: skip
    assert found is not None
    ppo, random = found.tasks[0].scores
    assert ppo.entry.setup.lifetime.steps == random.entry.setup.lifetime.steps == 128 * 2
    assert ppo.result.episode_returns.shape == (2, 2)
    assert random.result.episode_returns.shape == (2, 4)
    assert (tmp_path / "out" / "random-cart-pole.png").stat().st_size > 1000
