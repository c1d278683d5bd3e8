"""A lifetime: PPO solves the probes, lifetimes in one batch never touch each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from probes import (
    Choose,
    Follow,
    ForEver,
    OneStep,
    TwoSteps,
    grow,
    half_ppo,
    learned_loss,
    lives,
    seeds_of,
    values_at,
)  # fmt: skip

from epg import tasks
from epg.agents.policy_gradient import PolicyGradientAgents, draw_minibatches
from epg.config import Setup
from epg.lifetime import LifetimeResult, final_returns
from epg.losses.ppo import Ppo
from epg.losses.temporal_conv import TemporalConvLoss
from epg.losses.weighted_sum import WeightedSum
from epg.methods.base import agents_with
from epg.tasks import Task

SMALL = Setup().change(
    updates=100, steps_per_update=16, minibatch=16, buffer=32, learning_rate=1e-2, hidden=(32, 32)
)
TINY = Setup().change(updates=3, steps_per_update=32, minibatch=16, buffer=64, final_episodes=2)


def test_the_value_of_one_rewarded_step_is_1() -> None:
    agents, experience = grow(OneStep(), SMALL, Ppo(), seeds_of(range(3)))
    torch.testing.assert_close(values_at(agents, experience, 0), torch.ones(48), atol=0.05, rtol=0)


def test_a_reward_counts_one_step_earlier_by_the_discount() -> None:
    agents, experience = grow(TwoSteps(), SMALL, Ppo(discount=0.5), seeds_of(range(3)))
    assert (values_at(agents, experience, 0) - 0.5).abs().max() < 0.05
    assert (values_at(agents, experience, 1) - 1.0).abs().max() < 0.05


def test_a_batch_that_ends_within_an_episode_looks_at_what_came_next() -> None:
    """Defect 8: with batches of one step the first would be worth γ times itself, so 0."""
    settings = SMALL.change(updates=300, steps_per_update=1, minibatch=1)
    agents, experience = grow(TwoSteps(), settings, Ppo(discount=0.5), seeds_of(range(3)))
    first = agents.values(experience.observations)[experience.observations[..., 0] < 0]
    assert (first - 0.5).abs().max() < 0.1


def test_what_the_horizon_cut_is_worth_what_would_have_followed() -> None:
    """Defect 8: were the cut a termination, the value would lie between 1 and 1.5."""
    agents, experience = grow(ForEver(), SMALL, Ppo(discount=0.5), seeds_of(range(3)))
    assert experience.new.truncated.any() and not experience.new.terminated.any()
    assert (values_at(agents, experience, 0) - 2.0).abs().max() < 0.1


def test_the_continuous_action_comes_to_depend_on_the_observation() -> None:
    settings = SMALL.change(
        updates=40, steps_per_update=64, buffer=64, minibatch=16, passes=4, learning_rate=3e-3
    )
    agents, experience = grow(Follow(), settings, Ppo(), seeds_of(range(3)))
    means = agents.outputs(experience.observations)[..., 0]
    wanted = experience.new.observations[..., 0]
    assert (means[:, -64:] - wanted).abs().mean() < 0.2


def test_the_discrete_action_comes_to_depend_on_the_observation() -> None:
    settings = SMALL.change(updates=40, steps_per_update=64, buffer=64, final_episodes=50)
    task, seeds = Choose(), seeds_of(range(3))
    lived = lives(task, settings, Ppo(), seeds)
    assert lived.final_return.min() > 0.9
    assert lived.episode_returns[:, 0].max() < 0.7


@pytest.mark.parametrize("task", [Follow(), Choose()], ids=["continuous", "discrete"])
def test_a_learned_loss_moves_the_policy(task: Task) -> None:
    seeds = seeds_of(range(2), signs=2)
    loss = WeightedSum([(1.0, learned_loss(task, TINY, 4))])
    lived = lives(task, TINY, loss, seeds)
    assert np.isfinite(lived.final_return).all() and np.isfinite(lived.metrics["entropy"]).all()
    assert (lived.metrics["kl"] > 0).all()
    assert lived.steps == 4 * (3 * 32 + 2) and lived.exploded == 0


def test_what_is_noted_of_a_lifetime_is_what_was_lived() -> None:
    task, seeds = OneStep(), seeds_of(range(2))
    lived = lives(task, TINY, Ppo(), seeds)
    np.testing.assert_array_equal(lived.final_return, [1, 1])
    np.testing.assert_array_equal(lived.episode_returns, np.ones((2, 3)))
    longer = ForEver()
    lived = lives(longer, TINY, Ppo(), seeds)
    np.testing.assert_array_equal(lived.final_return, [2, 2])
    np.testing.assert_array_equal(lived.episode_returns, np.full((2, 3), 2))
    assert lived.steps == 2 * (3 * 32 + 2 * 2)


def test_a_lifetime_without_a_finished_episode_says_so() -> None:
    task, seeds = ForEver(), seeds_of([0])
    settings = TINY.change(steps_per_update=1, minibatch=1)
    lived = lives(task, settings, Ppo(), seeds)
    np.testing.assert_array_equal(lived.episode_returns, [[np.nan, 2, np.nan]])


def test_minibatches_are_shuffles_shared_by_a_pair() -> None:
    settings = TINY.change(passes=2, minibatch=8).learner
    seeds = seeds_of(range(2), signs=2)
    first, second = (torch.stack(draw_minibatches(seeds, settings, 32), 1) for _ in range(2))
    assert first.shape == (4, 2 * 4, 8)
    passes = torch.cat((first, second), 1).reshape(4, 4, 32)
    assert (passes.sort(-1).values == torch.arange(32)).all()
    assert len({tuple(one.tolist()) for one in passes[::2].flatten(0, 1)}) == 8
    assert torch.equal(passes[0], passes[1]) and torch.equal(passes[2], passes[3])


def part_of(loss: TemporalConvLoss, which: slice) -> TemporalConvLoss:
    """The losses of some of the agents."""
    return TemporalConvLoss(loss.layout, {name: p[which] for name, p in loss.params.items()})


def measured(lived: LifetimeResult) -> dict[str, np.ndarray]:
    """All that is told of each lifetime, by name: [P, …]."""
    whole = {"final_return": lived.final_return, "episode_returns": lived.episode_returns}
    assert set(lived.metrics) == {"kl", "entropy"}
    return whole | dict(lived.metrics)


def lives_of(task: Task, pairs: range, phi_of: int = 8) -> LifetimeResult:
    """Two lifetimes for each of the pairs, each with a loss of its own and half PPO."""
    seeds = seeds_of(pairs, signs=2)
    loss = learned_loss(task, TINY, 2 * phi_of)
    loss = part_of(loss, slice(2 * pairs.start, 2 * pairs.stop))
    return lives(task, TINY, half_ppo(loss), seeds)


@pytest.mark.parametrize("name", ["random-cart-pole", "cart-pole", "dir-hopper"])
def test_a_lifetime_is_bitwise_the_same_in_every_batch(name: str) -> None:
    """Defect 4: all chance comes from the pair's number, nothing from its neighbours."""
    task = tasks.make(name)
    all_of_them = lives_of(task, range(8))
    assert np.isfinite(all_of_them.final_return).all()
    assert len(set(all_of_them.final_return.tolist())) > 1
    for pairs in (range(3, 4), range(5, 8)):
        part, rows = measured(lives_of(task, pairs)), slice(2 * pairs.start, 2 * pairs.stop)
        for what, whole in measured(all_of_them).items():
            np.testing.assert_array_equal(part[what], whole[rows], err_msg=what)


@pytest.mark.parametrize("place", ["conv0.weight", "output.weight", "output.bias"])
@pytest.mark.parametrize("name", ["random-cart-pole", "cart-pole"])
def test_a_broken_loss_breaks_its_own_lifetime_only(name: str, place: str) -> None:
    """Defect 5: it ends in NaN, also where its agent went on to act."""
    task = tasks.make(name)
    loss = learned_loss(task, TINY, 3)

    def lived() -> LifetimeResult:
        seeds = seeds_of(range(3))
        return lives(task, TINY, half_ppo(part_of(loss, slice(None))), seeds)

    sound = lived()
    loss.params[place][1].flatten()[0] = torch.nan
    assert sum(int(p.isnan().sum()) for p in loss.params.values()) == 1
    broken = lived()
    assert np.isfinite(sound.final_return).all()
    np.testing.assert_array_equal(np.isnan(broken.final_return), [False, True, False])
    for what, ours in measured(broken).items():
        np.testing.assert_array_equal(ours[::2], measured(sound)[what][::2], err_msg=what)


def test_final_policies_sample_their_actions() -> None:
    """At first they have mean 0 and deviation 1: −5/3 a step; their means alone would have −2/3."""
    task, seeds = Follow(), seeds_of(range(2))
    agents = agents_with(None, task, TINY, seeds)
    returns, steps, exploded = final_returns(agents, task, [{}, {}], seeds, 2000)
    assert (returns + 5 / 3).abs().max() < 0.2
    assert returns[0] != returns[1]
    assert steps == 4000 and exploded == 0


def test_final_episodes_leave_the_agents_as_they_are() -> None:
    task, seeds = Follow(), seeds_of(range(2))
    agents, experience = grow(task, TINY, Ppo(), seeds)
    learners = PolicyGradientAgents(agents, seeds, TINY.learner, Ppo(), updates=2)
    seen, noise = experience.new.observations, torch.randn(2, 32, 1)
    seen = seen.flatten(0, 1)
    before = agents.actor().act(seen, noise.numpy())
    kept = {name: p.clone() for name, p in agents.parameters.items()}
    final_returns(learners, task, [{}, {}], seeds, 20)
    assert torch.equal(agents.actor().act(seen, noise.numpy()), before)
    assert all(torch.equal(p, kept[name]) for name, p in agents.parameters.items())
