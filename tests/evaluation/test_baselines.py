"""Hand-made methods: what they are, and that another library's live in the same world as ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from greenlet import greenlet

from epg import tasks
from epg.agents.actor_critic import ActorCritic, init_parameters
from epg.agents.spec import AgentSpec
from epg.config import Config, Setup
from epg.errors import UserError
from epg.evaluation.evaluate import evaluate
from epg.evaluation.scores import Sample
from epg.evaluation.verdict import reward_use
from epg.lifetime import LifetimeResult, live
from epg.methods import saved, sb3
from epg.methods.base import make_algorithm, make_method
from epg.methods.saved import Saved
from epg.methods.sb3_agents import UNBOUNDED, Sb3Agents, _Environment
from epg.seeds import LifetimeSeed, LifetimeSeeds, Purpose, Stream
from epg.tasks.base import Step, Task, draw_mdp, draw_mdps, first_step

SETUP = Setup().change(
    updates=4, steps_per_update=32, buffer=64, minibatch=16, hidden=(8, 8), learning_rate=0.01,
    final_episodes=2,
)  # fmt: skip
HAND_MADE = ("random", "ppo", "reinforce", "dpo", "sb3-ppo", "sb3-td3", "sb3-sac")
SAME_AS_OURS = {"cart-pole": "discrete", "random-cart-pole": "continuous"}


@pytest.fixture(scope="module")
def loss(finished: Path) -> Path:
    return finished / "loss.safetensors"  # the best may be the first


def lives(name: str, task: Task, setup: Setup, first: int, count: int) -> LifetimeResult:
    """Lifetimes `first`, … of a method."""
    algorithm = make_algorithm(name)
    setup = algorithm.adapt(setup)
    seeds = LifetimeSeeds.of(0, Purpose.EVALUATION, first, count)
    agents = algorithm.agents(task, setup, seeds)
    return live(task, draw_mdps(task, seeds), agents, seeds, setup.lifetime)


@pytest.mark.parametrize("name", HAND_MADE)
def test_a_method_is_the_same_twice_and_in_any_batch(name: str) -> None:
    task = tasks.make("random-cart-pole")
    whole, second = lives(name, task, SETUP, 0, 2), lives(name, task, SETUP, 1, 1)
    assert np.isfinite(whole.final_return).all() and (whole.final_return > 0).all()
    assert whole.final_return[1] == second.final_return[0]
    assert whole.episode_returns.shape == (2, 4)
    np.testing.assert_array_equal(whole.episode_returns[1:], second.episode_returns)
    assert whole.steps > 2 * SETUP.lifetime.steps and whole.exploded == 0


def test_all_methods_stand_in_one_table(loss: Path, tmp_path: Path) -> None:
    methods = (*HAND_MADE, "untrained")
    result = evaluate(loss, "point-goal", lifetimes=2, methods=methods, out=tmp_path / "out")
    assert result is not None
    [task] = result.tasks
    returns = {s.entry.method: tuple(s.returns) for s in task.scores}
    assert list(returns) == ["learned loss", *methods]
    assert len(set(returns.values())) == len(returns)
    [reinforce] = [s.entry for s in task.scores if s.entry.method == "reinforce"]
    assert reinforce.about.startswith("lr 0.001, one step an update; not tuned")


def test_untrained_is_the_loss_that_evolution_began_with(loss: Path, tmp_path: Path) -> None:
    found = saved.load(loss)
    began = tmp_path / "began.safetensors"
    replace(found, params=found.method().init()).save(began)
    result = evaluate([loss, began], "point-goal", lifetimes=3, methods=("untrained",),
                      out=tmp_path / "out")  # fmt: skip
    assert result is not None
    returns = {s.entry.method: s.returns.tolist() for s in result.tasks[0].scores}
    ours, theirs = list(returns)[:2]
    assert set(returns) == {ours, theirs, f"untrained {ours}", f"untrained {theirs}"}
    assert returns[f"untrained {ours}"] == returns[theirs] != returns[ours]
    later = tmp_path / "later.safetensors"
    replace(found, config=found.config.replace(start_from="0123456789abcdef")).save(later)
    with pytest.raises(UserError, match="its evolution began with a saved loss"):
        evaluate(later, "point-goal", methods=("untrained",), out=tmp_path / "other")


def test_the_blind_are_those_of_the_file_without_reward(loss: Path, tmp_path: Path) -> None:
    result = evaluate(loss, "point-goal", lifetimes=8, methods=("random", "blind"),
                      out=tmp_path / "out")  # fmt: skip
    assert result is not None
    found, task = saved.load(loss), tasks.make("point-goal")
    seeds = LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 8)
    agents = found.method(task).blind(found.params, seeds)
    lived = live(task, draw_mdps(task, seeds), agents, seeds, found.config.lifetime)
    returns = {s.entry.method: s.returns for s in result.tasks[0].scores}
    assert list(returns) == ["learned loss", "random", "blind"]
    assert np.array_equal(returns["blind"], lived.final_return)
    assert not np.array_equal(returns["blind"], returns["learned loss"])
    assert "learned loss: uses reward: " in result.table()
    released = tmp_path / "released.safetensors"
    settings = found.config.model_dump() | {"method": {"name": "epg", "match_release": True}}
    method = make_method(Config.model_validate(settings), task)
    Saved(method.config, method.init(), found.sizes, 0, found.tasks, "point-goal").save(released)
    with pytest.raises(UserError, match="blind: is not known of agents with match_release"):
        evaluate(released, "point-goal", methods=("blind",), out=tmp_path / "never")
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(("blind", "words"), [(-50.0, "yes"), (-20.0, "in part"), (0.0, "not")])
def test_what_is_said_of_reward(blind: float, words: str) -> None:
    """Random comes to −50, the sighted to 0; the blind to that."""
    rng = np.random.default_rng(0)
    levels = {"learned loss": 0.0, "random": -50.0, "blind": blind}
    samples = {
        name: Sample(level + rng.normal(size=(64, 1)), np.zeros((64, 1)), 0)
        for name, level in levels.items()
    }
    assert f"uses reward: {words}" in reward_use(samples, "learned loss", "blind")


@pytest.mark.parametrize("name", SAME_AS_OURS)
def test_the_other_ppo_begins_as_our_agent_of_the_same_seed(name: str) -> None:
    task = tasks.make(name)
    seeds = LifetimeSeeds.of(0, Purpose.EVALUATION, 3, 1)
    model: Any = Sb3Agents("ppo", task, SETUP, seeds)._lives[0]._model
    spec = AgentSpec.of(task, SETUP.agent)
    ours = ActorCritic(spec, init_parameters(spec, seeds), train_memory=False)
    seen = torch.randn(1, 5, 4)
    theirs = model.policy.get_distribution(seen[0]).distribution
    outputs = ours.outputs(seen)[0]
    expected = theirs.logits if task.discrete else torch.cat([theirs.mean, theirs.stddev.log()], 1)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(ours.values(seen)[0], model.policy.predict_values(seen[0])[:, 0])


def told(environment: _Environment, action: np.ndarray, step: Step) -> Any:
    """What the library is told of a step."""

    def ask() -> Any:
        environment.step_async(action)
        return environment.step_wait()

    loop = greenlet(ask)
    assert loop.switch() is action
    return loop.switch(step)


def test_the_other_library_is_told_how_episodes_end() -> None:
    """An end of the MDP and one by the horizon; and what the action led to, not the next start."""
    task = tasks.make("random-cart-pole")
    task.horizon = 15
    seed = LifetimeSeed(0, Purpose.EVALUATION, 0, 0)
    ours = task.batch([draw_mdp(task, seed)], [seed.rng(Stream.RESET)])
    theirs = _Environment(task, UNBOUNDED)
    start = ours.reset()
    theirs.first = first_step(start)
    np.testing.assert_array_equal(theirs.reset(), start.numpy().astype(np.float32))
    kinds = set()
    for t in range(60):
        action = np.full((1, 1), (3.0, 0.0)[t // 30], np.float32)
        step = ours.step(torch.from_numpy(action))
        observation, reward, done, [info] = told(theirs, action, step)
        np.testing.assert_array_equal(observation, step.observation.numpy().astype(np.float32))
        assert reward == step.reward.numpy() and done == (step.terminated | step.truncated).numpy()
        assert ("terminal_observation" in info) == bool(done)
        if done:
            kinds.add(info["TimeLimit.truncated"])
            expected = step.next_observation[0].numpy().astype(np.float32)
            np.testing.assert_array_equal(info["terminal_observation"], expected)
    assert kinds == {True, False}


@pytest.mark.parametrize("name", ["sb3-ppo", "sb3-td3"])
def test_the_learning_curve_is_of_what_the_other_library_has_lived(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its steps, once."""
    seen: dict[int, list[tuple[float, bool]]] = {}
    step_wait = _Environment.step_wait

    def overheard(self: _Environment) -> Any:
        answer = step_wait(self)
        seen.setdefault(id(self), []).append((float(answer[1][0]), bool(answer[2][0])))
        return answer

    monkeypatch.setattr(_Environment, "step_wait", overheard)
    task = tasks.make("random-cart-pole")
    task.horizon = 15
    lived = lives(name, task, SETUP, 0, 2)
    assert [len(steps) for steps in seen.values()] == [SETUP.lifetime.steps] * 2
    for curve, steps in zip(lived.episode_returns, seen.values(), strict=True):
        ended: dict[int, list[float]] = {update: [] for update in range(4)}
        so_far = 0.0
        for t, (reward, done) in enumerate(steps):
            so_far += reward
            if done:
                ended[t // 32].append(so_far)
                so_far = 0.0
        for update, returns in ended.items():
            assert curve[update] == pytest.approx(np.mean(returns))


def test_ppo_of_both_learns_alike() -> None:
    """Far above a random policy after 3,072 steps, which comes to about 20."""
    setup = SETUP.change(
        updates=48, steps_per_update=64, hidden=(32,), passes=4, learning_rate=3e-3
    )
    task = tasks.make("cart-pole")
    for name in ("ppo", "sb3-ppo"):
        lived = lives(name, task, setup, 0, 1)
        assert (lived.final_return > 60).all()


def test_what_hand_made_methods_cannot_do(
    loss: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="sb3-td3: is for continuous actions, those of cart-pole"):
        make_algorithm("sb3-td3").check(tasks.make("cart-pole"))
    monkeypatch.setattr(sb3, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"sb3-ppo: needs stable-baselines3, .* pip install 'epg\["):
        evaluate(loss, "point-goal", methods=("sb3-ppo",), out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
