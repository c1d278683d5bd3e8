"""Baselines: what they are, and that another library's live in the same world as ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecNormalize

from epg import artifact, tasks
from epg.agents.agents import bear
from epg.chunk import draw_mdp
from epg.config import Lifetime
from epg.errors import UserError
from epg.lifetime import body_of
from epg.metatest import baselines, sb3
from epg.metatest.baselines import BASELINES, fates_of, subject_of
from epg.metatest.evaluate import evaluate
from epg.metatest.sb3 import UNBOUNDED, Environment
from epg.seeds import Fates, Purpose, Stream

LIFE = Lifetime(
    updates=4, steps_per_update=32, buffer=64, minibatch=16, hidden=(8, 8), learning_rate=0.01,
    final_episodes=2,
)  # fmt: skip
SAME_AS_OURS = {"cart-pole": "discrete", "random-cart-pole": "continuous"}


@pytest.fixture(scope="module")
def loss(finished: Path) -> Path:
    return finished / "loss.safetensors"  # the best may be the first


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "untrained"])
def test_a_baseline_is_the_same_twice_and_in_any_batch(name: str) -> None:
    subject = subject_of(name, tasks.make("random-cart-pole"), LIFE, 0, Purpose.EVALUATION)
    whole, second = subject.raise_agents(0, 2), subject.raise_agents(1, 1)
    assert np.isfinite(whole.final_return).all() and (whole.final_return > 0).all()
    assert whole.final_return[1] == second.final_return[0]
    assert whole.episode_returns.shape == (2, 4)
    np.testing.assert_array_equal(whole.episode_returns[1:], second.episode_returns)
    assert whole.steps > 2 * LIFE.steps and whole.exploded == 0


def test_all_baselines_stand_in_one_table(loss: Path, tmp_path: Path) -> None:
    result = evaluate(loss, "point-goal", lifetimes=2, baselines=BASELINES, out=tmp_path / "out")
    assert result is not None
    [task] = result.tasks
    returns = {s.subject.method: tuple(s.returns) for s in task.scores}
    assert list(returns) == ["learned loss", *BASELINES]
    assert len(set(returns.values())) == len(returns)
    assert task.scores[3].subject.about.startswith("lr 0.001, one step an update; not tuned")


def test_untrained_is_the_loss_that_evolution_began_with(loss: Path, tmp_path: Path) -> None:
    found = artifact.load(loss)
    phi = found.genome.draw(found.config["seed"], zero_output=False)
    began = tmp_path / "began.safetensors"
    replace(found, phi=phi).save(began)
    result = evaluate([loss, began], "point-goal", lifetimes=3, baselines=("untrained",),
                      out=tmp_path / "out")  # fmt: skip
    assert result is not None
    returns = {s.subject.method: s.returns.tolist() for s in result.tasks[0].scores}
    ours, theirs = list(returns)[:2]
    assert set(returns) == {ours, theirs, f"untrained {ours}", f"untrained {theirs}"}
    assert returns[f"untrained {ours}"] == returns[theirs] != returns[ours]
    later = tmp_path / "later.safetensors"
    replace(found, config=found.config | {"start_from": "0123456789abcdef"}).save(later)
    with pytest.raises(UserError, match="its evolution began with a saved loss"):
        evaluate(later, "point-goal", baselines=("untrained",), out=tmp_path / "other")


@pytest.mark.parametrize("name", SAME_AS_OURS)
def test_the_other_ppo_begins_as_our_agent_of_the_same_fate(name: str) -> None:
    task = tasks.make(name)
    [fate] = fates_of(0, Purpose.EVALUATION, 3, 1)
    environment = Environment(task, draw_mdp(task, fate), fate.rng(Stream.RESET), UNBOUNDED)
    model = sb3._ppo(task, LIFE, fate, VecNormalize(environment, norm_reward=False), seed=0)
    ours = bear(body_of(task, LIFE), Fates([fate], [0]), train_memory=False)
    seen = torch.randn(1, 5, 4)
    theirs = model.policy.get_distribution(seen[0]).distribution
    outputs = ours.outputs(seen)[0]
    expected = theirs.logits if task.discrete else torch.cat([theirs.mean, theirs.stddev.log()], 1)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(ours.values(seen)[0], model.policy.predict_values(seen[0])[:, 0])


def test_the_other_library_is_told_how_episodes_end() -> None:
    """An end of the MDP and one by the horizon; and what the action led to, not the next start."""
    task = tasks.make("random-cart-pole")
    task.horizon = 15
    [fate] = fates_of(0, Purpose.EVALUATION, 0, 1)
    mdp = draw_mdp(task, fate)
    ours = task.batch([mdp], [fate.rng(Stream.RESET)])
    theirs = Environment(task, mdp, fate.rng(Stream.RESET), UNBOUNDED)
    np.testing.assert_array_equal(theirs.reset(), ours.reset().numpy().astype(np.float32))
    kinds = set()
    for t in range(60):
        action = np.full((1, 1), (3.0, 0.0)[t // 30], np.float32)
        step = ours.step(torch.from_numpy(action))
        theirs.step_async(action)
        observation, reward, done, [info] = theirs.step_wait()
        np.testing.assert_array_equal(observation, step.observation.numpy().astype(np.float32))
        assert reward == step.reward.numpy() and done == (step.terminated | step.truncated).numpy()
        assert ("terminal_observation" in info) == bool(done)
        if done:
            kinds.add(info["TimeLimit.truncated"])
            expected = step.next_observation[0].numpy().astype(np.float32)
            np.testing.assert_array_equal(info["terminal_observation"], expected)
            assert theirs.ended[-1][0] == t + 1
    assert kinds == {True, False}
    assert sum(value for _, value in theirs.ended) == pytest.approx(theirs.ended[-1][0])
    curve = sb3._curve(theirs, LIFE)
    for update in range(2):
        inside = [r for s, r in theirs.ended if 32 * update < s <= 32 * (update + 1)]
        assert curve[update] == pytest.approx(np.mean(inside))
    assert np.isnan(curve[2:]).all()


def test_ppo_of_both_learns_alike() -> None:
    """Far above a random policy after 3,072 steps, which comes to about 20."""
    life = LIFE.but(updates=48, steps_per_update=64, hidden=(32,), passes=4, learning_rate=3e-3)
    task = tasks.make("cart-pole")
    for name in ("ppo", "sb3-ppo"):
        lived = subject_of(name, task, life, 0, Purpose.EVALUATION).raise_agents(0, 1)
        assert (lived.final_return > 60).all()


def test_what_baselines_cannot_do(
    loss: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="sb3-td3: is for continuous actions, those of cart-pole"):
        baselines.check("sb3-td3", tasks.make("cart-pole"))
    monkeypatch.setattr(baselines, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"sb3-ppo: needs stable-baselines3, .* pip install -e '.\["
    ):
        evaluate(loss, "point-goal", baselines=("sb3-ppo",), out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
