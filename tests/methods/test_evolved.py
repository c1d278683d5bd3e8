"""Lives of drawn lengths, what they are worth, and agents from which reward is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from epg.agents.age import Age
from epg.agents.policy_gradient import RateSchedule
from epg.config import Config
from epg.errors import UserError
from epg.farm.work import Shared, Unit
from epg.lifetime import areas_of, live
from epg.methods.epg import Epg
from epg.methods.evolved import Evolved
from epg.methods.saved import Saved
from epg.seeds import LifetimeSeeds, Purpose
from epg.settings import parse_yaml
from epg.tasks import make
from epg.tasks.base import draw_mdps


def config_of(text: str = "", loss: str = "per_step", task: Any = "random-cart-pole") -> Config:
    method = {"name": "epg", "alpha": 0.5, "sigma": 0.1, "pairs": 12, "loss": loss}
    return Config.model_validate(
        {
            "task": task,
            "seed": 7,
            "method": method | (parse_yaml(text) or {}),
            "agent": {"hidden": [8], "memory": 4},
            "lifetime": {"updates": 2, "steps_per_update": 16},
            "learner": {"minibatch": 8, "buffer": 32},
        }
    )


def method_of(config: Config) -> Epg:
    return Epg(config, make(config.task))


def shared_of(method: Evolved, step: int = 0) -> Shared:
    return Shared(step, {name: t.numpy() for name, t in method.init().items()})


@pytest.mark.parametrize("lengths", ["[2, 5, 3, 5]", "{low: 2, high: 9}"])
def test_lengths_are_drawn_anew_in_each_generation_and_lived(lengths: str) -> None:
    method = method_of(config_of(f"lengths: {lengths}"))
    drawn = [method.lengths(step) for step in range(40)]
    assert all((np.diff(d) >= 0).all() and len(d) == 12 for d in drawn)
    assert len({tuple(d) for d in drawn}) > 20
    assert all((method.lengths(step) == d).all() for step, d in enumerate(drawn))
    allowed = {2, 3, 5} if lengths[0] == "[" else set(range(2, 10))
    everything = np.concatenate(drawn)
    assert set(everything.tolist()) == allowed
    if lengths[0] == "[":  # what stands there twice is drawn twice as often
        assert (everything == 5).mean() == pytest.approx(0.5, abs=0.07)
    else:
        shares = [(everything == n).mean() * n for n in (2, 8)]
        assert shares[0] == pytest.approx(shares[1], rel=0.35)
    assert method.mean_updates == drawn[0].mean()  # what a run's cost is estimated by
    # a unit lives as long as its pairs' lengths say
    result = method.run(shared_of(method), Unit(Purpose.TRAINING, 0, 3, 4))
    lived = 2 * 16 * drawn[0][3:7].sum()
    final = result.steps - lived
    assert 0 < final <= 4 * 2 * 3 * 200


@pytest.mark.parametrize("lengths", ["null", "[2, 5, 3]", "{low: 2, high: 6}"])
@pytest.mark.parametrize("fitness", ["final", "area", "[0.5, 1.0]"])
def test_fitness_does_not_depend_on_the_units(lengths: str, fitness: str) -> None:
    method = method_of(config_of(f"lengths: {lengths}\nfitness: {fitness}"))
    shared = shared_of(method)
    whole = method.run(shared, Unit(Purpose.TRAINING, 0, 0, 12))
    parts = [
        method.run(shared, Unit(Purpose.TRAINING, 0, first, count))
        for first, count in ((0, 1), (1, 7), (8, 4))
    ]
    for name, values in whole.arrays.items():
        assert np.array_equal(
            values, np.concatenate([p.arrays[name] for p in parts]), equal_nan=True
        ), name
    assert whole.steps == sum(part.steps for part in parts)


def test_what_a_lifetime_is_worth() -> None:
    """Its last policy; the mean over its curve; the mean of its policies of some ages."""
    config = config_of()
    task, found = make(config.task), {}
    for fitness in ("final", "area", "[0.3, 0.5, 1.0]"):
        method = method_of(config_of(f"fitness: {fitness}\nlengths: [6]"))
        unit = Unit(Purpose.TRAINING, 0, 0, 4)
        found[fitness] = method.run(shared_of(method), unit).arrays["fitness"]
    method = method_of(config_of("sigma: 1.0e-60"))
    seeds = LifetimeSeeds.of(7, Purpose.TRAINING, 0, 4)
    lifetime = config.lifetime.replace(updates=6)
    agents = method.candidates(method.spec.flatten(method.init()).expand(4, -1), seeds, lifetime, 0)
    lived = live(task, draw_mdps(task, seeds), agents, seeds, lifetime, (0.3, 0.5, 1.0))
    assert lived.returns_at.shape == (4, 3)
    assert np.array_equal(lived.returns_at[:, 2], lived.final_return)
    assert np.isfinite(lived.areas).all()
    assert np.array_equal(lived.areas, areas_of(lived.episode_returns))
    assert not np.array_equal(found["final"], found["area"])
    assert not np.array_equal(found["final"], found["[0.3, 0.5, 1.0]"])
    # a policy of an age is that of a life that ends there: judging it does not disturb the life
    shorter = config.lifetime.replace(updates=3)
    seeds = LifetimeSeeds.of(7, Purpose.TRAINING, 0, 4)
    agents = method.agents(method.init(), seeds)
    undisturbed = live(task, draw_mdps(task, seeds), agents, seeds, lifetime)
    seeds = LifetimeSeeds.of(7, Purpose.TRAINING, 0, 4)
    agents = method.agents(method.init(), seeds)
    judged = live(task, draw_mdps(task, seeds), agents, seeds, lifetime, (0.5,))
    assert np.array_equal(judged.episode_returns, undisturbed.episode_returns, equal_nan=True)
    assert np.array_equal(judged.final_return, undisturbed.final_return)
    seeds = LifetimeSeeds.of(7, Purpose.TRAINING, 0, 4)
    agents = method.agents(method.init(), seeds)
    ended = live(task, draw_mdps(task, seeds), agents, seeds, shorter)
    assert np.array_equal(judged.returns_at[:, 0], ended.final_return)


@pytest.mark.parametrize("loss", ["per_step", "lpo", "temporal_conv"])
def test_the_blind_do_not_know_reward(loss: str) -> None:
    """Another reward and other ends of episodes change nothing for them, and all for the others."""

    class Paid(type(make("random-cart-pole"))):  # type: ignore[misc]
        """A cart-pole that is paid otherwise."""

    config = config_of(loss=loss)
    method = method_of(config)
    rng = np.random.default_rng(0)
    params = {
        name: t + torch.from_numpy(rng.normal(size=t.shape).astype(np.float32))
        for name, t in method.init().items()
    }
    task, lifetime = make("random-cart-pole"), config.lifetime.replace(updates=4)
    outcomes = []
    for pay in (1.0, -3.0):
        for kind in (method.agents, method.blind):
            seeds = LifetimeSeeds.of(7, Purpose.EVALUATION, 0, 4)
            agents = kind(params, seeds)
            learn = agents.learn

            def paid(new: Any, learn: Any = learn, pay: float = pay) -> Any:
                factor = pay * torch.linspace(0, 1, new.rewards.shape[1])
                return learn(type(new)(**(vars(new) | {"rewards": new.rewards * factor})))

            agents.learn = paid  # type: ignore[method-assign]
            lived = live(task, draw_mdps(task, seeds), agents, seeds, lifetime)
            outcomes.append(lived.metrics["kl"])
    seeing, blind, seeing_other, blind_other = outcomes
    assert np.array_equal(blind, blind_other)
    assert not np.array_equal(seeing, seeing_other)
    assert not np.array_equal(seeing, blind)


def test_those_of_the_release_are_not_called_blind() -> None:
    """Their agents are of a class of their own, which sees reward."""
    method = method_of(config_of("match_release: true", loss="temporal_conv"))
    with pytest.raises(UserError, match="match_release"):
        method.blind(method.init(), LifetimeSeeds.of(7, Purpose.EVALUATION, 0, 2))


@pytest.mark.parametrize(
    ("schedule", "update", "factor"),
    [
        ("constant", 7, 1.0),
        ("linear", 0, 1.0),
        ("linear", 6, 0.25),
        ({"name": "inverse", "updates": 16}, 16, 0.5),
        ({"name": "inverse", "updates": 4}, 12, 0.25),
    ],
)
def test_the_learning_rate_falls_as_it_says(schedule: Any, update: int, factor: float) -> None:
    assert RateSchedule.model_validate(schedule).factor(Age(update, 8)) == factor


def test_agents_take_the_steps_of_their_schedule() -> None:
    """Adam's first step is the rate itself, and linear's last is half."""
    config = config_of()
    method, moved = method_of(config), {}
    task = make(config.task)
    for schedule in ("constant", "linear"):
        changed = config.model_copy(
            update={"learner": config.learner.replace(schedule={"name": schedule})}
        )
        method = Epg(changed, task)
        seeds = LifetimeSeeds.of(7, Purpose.EVALUATION, 0, 3)
        agents = method.agents(method.init(), seeds)
        live(task, draw_mdps(task, seeds), agents, seeds, changed.lifetime)
        moved[schedule] = agents.networks.parameters["policy.0.weight"].detach()  # type: ignore[attr-defined]
        assert agents._adam.learning_rate == pytest.approx(  # type: ignore[attr-defined]
            config.learner.learning_rate * (1.0 if schedule == "constant" else 0.5)
        )
    assert not torch.equal(*moved.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lengths: []", "a list of whole numbers"),
        ("lengths: {low: 8, high: 4}", "in order"),
        ("lengths: [0, 4]", "lengths"),
        ("lengths: often", "lengths"),
        ("fitness: [0.0, 1.0]", "fitness"),
        ("fitness: best", "fitness"),
        ("{lengths: [2, 4], shaping: centered_rank, task_draw: generation}", "one length"),
    ],
)
def test_lengths_and_ages_that_make_no_sense_are_refused(text: str, message: str) -> None:
    with pytest.raises((UserError, ValueError), match=message):
        method_of(config_of(text))


@pytest.mark.parametrize(
    ("text", "familiar"),
    [("lengths: [2, 5, 3]", (2, 5)), ("lengths: {low: 2, high: 9}", (2, 9)), ("", (2, 2))],
)
def test_agents_of_a_saved_loss_know_the_lengths_of_its_training(
    text: str, familiar: tuple[int, int]
) -> None:
    """And so live on, where they live longer, as if it were the longest of these."""
    config = config_of(text)
    method = method_of(config)
    saved = Saved(config, method.init(), (4, 1, False), 0, ("random-cart-pole",))
    longer = config.with_setup(config.setup.change(updates=64))
    made = saved.method(make("random-cart-pole"), longer)
    assert isinstance(made, Epg) and made.familiar == familiar
    agents = made.agents(saved.params, LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 2))
    assert agents._age == Age(0, 64, familiar)  # type: ignore[attr-defined]
