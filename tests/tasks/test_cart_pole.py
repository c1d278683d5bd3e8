"""Cart-pole against Gymnasium's, and what the draws of random-cart-pole change."""

import gymnasium
import numpy as np
import pytest
import torch

from epg import tasks
from epg.tasks import Step


def act_once(**changes: float) -> Step:
    mdp = tasks.make("cart-pole").draw(np.random.default_rng(0)) | changes
    batch = tasks.make("random-cart-pole").batch([mdp], [np.random.default_rng(0)])
    batch.reset()
    return batch.step(torch.ones(1, 1))


@pytest.mark.parametrize("policy", ["random", "balancing"])
def test_cart_pole_is_gymnasiums(policy: str) -> None:
    """1,000 steps from the same seed; a balancing policy lives to be truncated."""
    task = tasks.make("cart-pole")
    batch = task.batch([task.draw(np.random.default_rng(0))], [np.random.default_rng(5)])
    env = gymnasium.make("CartPole-v1")
    env.reset(seed=5)
    rng = np.random.default_rng(1)
    observation = batch.reset()
    truncations = terminations = 0
    for _ in range(1000):
        state = np.array(env.unwrapped.state)
        assert np.abs(observation[0].numpy() - state).max() < 1e-12
        balancing = int(state @ [0.1, 0.5, 10.0, 2.0] > 0)
        action = balancing if policy == "balancing" else int(rng.integers(2))
        _, reward, terminated, truncated, _ = env.step(action)
        step = batch.step(torch.tensor([action]))
        assert np.abs(step.next_observation[0].numpy() - env.unwrapped.state).max() < 1e-12
        assert step.reward.item() == reward
        assert step.terminated.item() == terminated
        assert step.truncated.item() == (truncated and not terminated)
        terminations += terminated
        truncations += truncated
        if terminated or truncated:
            env.reset()
        observation = step.observation
    assert (terminations > 20) if policy == "random" else (truncations == 2)


def test_the_force_is_the_drawn_one_times_the_clipped_action() -> None:
    task = tasks.make("random-cart-pole")
    mdp = {"cart_mass": 1.0, "pole_mass": 0.1, "half_length": 0.5, "force": 10.0}
    p = 4
    batch = task.batch([mdp] * p, [np.random.default_rng(0) for _ in range(p)])
    first = batch.reset()
    step = batch.step(torch.tensor([[1.0], [3.0], [-1.0], [-0.5]]))
    speed = (step.observation - first)[:, 1]
    assert speed[0] == speed[1] and speed[0] > 0 > speed[3] > speed[2]
    discrete = tasks.make("cart-pole").batch([mdp], [np.random.default_rng(0)])
    discrete.reset()
    assert torch.equal(discrete.step(torch.tensor([1])).observation[0], step.observation[0])


def test_each_drawn_parameter_changes_the_motion() -> None:
    base = act_once().observation
    changes = {"cart_mass": 2.0, "pole_mass": 0.5, "half_length": 1.0, "force": 15.0}
    for name, value in changes.items():
        assert not torch.equal(act_once(**{name: value}).observation, base), name


@pytest.mark.parametrize(("place", "limit"), [(0, 2.4), (2, 12 * np.pi / 180)])
def test_the_pole_ends_beyond_its_limits(place: int, limit: float) -> None:
    task = tasks.make("random-cart-pole")
    batch = task.batch([task.draw(np.random.default_rng(0))], [np.random.default_rng(0)])
    values = torch.tensor(
        [limit - 1e-9, limit + 1e-9, 1e-9 - limit, -limit - 1e-9], dtype=torch.float64
    )
    state = torch.zeros(4, 4, dtype=torch.float64)
    state[:, place] = values
    assert batch.ends(state).tolist() == [False, True, False, True]
