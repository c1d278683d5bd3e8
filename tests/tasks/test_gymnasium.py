"""Tasks that are Gymnasium's, against Gymnasium's: steps from injected states, and resets apart."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from epg import tasks
from epg.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
STEPS = 1000


@dataclass(frozen=True)
class Case:
    task: str
    gym_id: str
    horizon: int
    """so that episodes end in both ways, where they can"""
    scale: float = 1.5
    """of the actions; beyond 1 they are clamped"""
    spec: Any = None
    """other than `task`"""
    arguments: Any = None
    """of gymnasium.make"""
    terminates: bool = True


EPG_HOPPER = {"frame_skip": 2, "ctrl_cost_weight": 0.0, "healthy_reward": 0.0}
UNIT = {"mass": 1, "gravity": -9.81, "friction": 1, "thickness": 1}
MUJOCO = [
    Case("hopper", "Hopper-v5", 25),
    Case("half-cheetah", "HalfCheetah-v5", 300, terminates=False),
    Case("walker2d", "Walker2d-v5", 25),
    Case("ant", "Ant-v5", 100),
    Case("reacher", "Reacher-v5", 50, terminates=False),
    Case("dir-hopper", "Hopper-v5", 170, spec={"name": "dir-hopper", "direction": 1},
         arguments=EPG_HOPPER | {"healthy_angle_range": (-np.inf, np.inf)}),
    Case("random-hopper", "Hopper-v5", 120, spec=UNIT | {"name": "random-hopper"},
         arguments=EPG_HOPPER | {"healthy_angle_range": (-0.5, 0.5)}),
    Case("random-walker", "Walker2d-v5", 25, spec=UNIT | {"name": "random-walker"},
         arguments={"ctrl_cost_weight": 0.0, "healthy_reward": 0.0}),
    Case("dir-half-cheetah", "HalfCheetah-v5", 300,
         spec={"name": "dir-half-cheetah", "direction": 1}, arguments={"ctrl_cost_weight": 0.0},
         terminates=False),
    Case("random-reacher", "Reacher-v5", 50, spec={"name": "random-reacher", "length": 0.1},
         terminates=False),
]  # fmt: skip
NATIVE = [
    Case("cart-pole", "CartPole-v1", 20),
    Case("acrobot", "Acrobot-v1", 90),
    Case("mountain-car", "MountainCar-v0", 130),
]
ALL = [pytest.param(case, id=case.task) for case in (*MUJOCO, *NATIVE)]


STRONG = """
import gymnasium
from gymnasium import spaces
from gymnasium.envs.classic_control import PendulumEnv

class Strong(PendulumEnv):
    def __init__(self, torque=2.0):
        super().__init__()
        self.action_space = spaces.Box(-torque, torque, (1,))

gymnasium.register("Strong-v0", entry_point=Strong, max_episode_steps=20)
"""
SLIDE = """
import gymnasium
import numpy as np
from gymnasium import spaces

class Slide(gymnasium.Env):
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, drag=0.1):
        self.drag = drag

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-0.5, 0.5, 2)
        return self.state.copy(), {}

    def step(self, action):
        x, v = self.state
        v += 0.05 * (float(action[0]) - self.drag * v)
        self.state = np.array([x + 0.05 * v, v])
        return self.state.copy(), -abs(float(x)), False, False, {}

gymnasium.register("Slide-v0", entry_point="slide:Slide", max_episode_steps=20)
"""
"""Modules that register an environment."""


def pair(case: Case) -> tuple[tasks.Task, Any]:
    task = tasks.make(case.spec or case.task)
    task.horizon = case.horizon
    arguments = {"max_episode_steps": case.horizon} | (case.arguments or {})
    return task, gymnasium.make(case.gym_id, **arguments)


def batch_of(task: tasks.Task, p: int) -> Any:
    mdp = task.draw(np.random.default_rng(0))
    return task.batch([mdp] * p, [np.random.default_rng([5, i]) for i in range(p)])


def choose(case: Case, task: tasks.Task, seen: np.ndarray, rng: np.random.Generator) -> Any:
    """Actions [P] or [P, A] that end episodes in both ways."""
    if not task.discrete:
        return rng.uniform(-1, 1, (len(seen), task.action_size)).astype(np.float32) * case.scale
    pump = {"acrobot": seen[:, -1] > 0, "mountain-car": seen[:, -1] > 0}.get(case.task)
    if pump is None:
        return rng.integers(task.action_size, size=len(seen))
    return np.where(rng.random(len(seen)) < 0.1, 1, 2 * pump)


def inject(env: Any, batch: Any) -> np.ndarray:
    """Start Gymnasium's episode where environment 1 of the batch starts; what it sees."""
    env.reset()
    inner = env.unwrapped
    if hasattr(batch, "data"):
        inner.set_state(batch.data[1].qpos, batch.data[1].qvel)
        return inner._get_obs()
    inner.state = batch._state[1].numpy().copy()
    return inner.state


@pytest.mark.parametrize("case", ALL)
def test_steps_are_gymnasiums(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From injected reset states, over 1,000 steps: MuJoCo's bitwise, rewards to 1e-12."""
    monkeypatch.chdir(tmp_path)  # Gymnasium's half-cheetah leaves a log of MuJoCo's there
    task, env = pair(case)
    batch = batch_of(task, 3)
    bitwise = hasattr(batch, "data")
    seen, rng = batch.reset(), np.random.default_rng(1)
    ours, theirs = (seen if bitwise else batch._state)[1].numpy(), inject(env, batch)
    terminations = truncations = 0
    for _ in range(STEPS):
        tolerance = 0 if bitwise else 1e-12
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)
        actions = choose(case, task, seen.numpy(), rng)
        action = actions[1] if isinstance(actions[1], np.ndarray) else int(actions[1])
        theirs, reward, terminated, truncated, _ = env.step(action)
        step = batch.step(torch.from_numpy(actions))
        assert step.reward[1].item() == pytest.approx(reward, rel=1e-12, abs=0)
        assert step.terminated[1].item() == terminated
        assert step.truncated[1].item() == (truncated and not terminated)
        if bitwise:
            assert np.array_equal(step.next_observation[1].numpy(), theirs)
        else:
            np.testing.assert_allclose(step.next_observation[1], theirs, rtol=1e-6, atol=1e-6)
            theirs = np.array(env.unwrapped.state)  # what it sees is float32
        if terminated or truncated:
            theirs = inject(env, batch)
        seen = step.observation
        ours = (seen if bitwise else batch._state)[1].numpy()
        terminations += terminated
        truncations += truncated and not terminated
    assert truncations >= 1 and (terminations >= 1) is case.terminates


@pytest.mark.parametrize("case", [p for p in ALL if p.values[0].task != "random-reacher"])
def test_resets_are_drawn_as_gymnasiums(case: Case) -> None:
    """From the same seed: 100 of them, so the distributions are equal too."""
    task, env = pair(case)
    batch = task.batch([task.draw(np.random.default_rng(0))], [np.random.default_rng(7)])
    for k in range(100):
        theirs, _ = env.reset(seed=7 if k == 0 else None)
        ours = batch.reset()[0].numpy()
        if hasattr(batch, "data"):
            assert np.array_equal(ours, theirs)
        else:
            assert np.array_equal(batch._state[0].numpy(), np.array(env.unwrapped.state))


def test_stretching_leaves_actions_within_one_as_they_are() -> None:
    """So gym:ID is the same environment as the task of that id."""
    ours, theirs = tasks.make("reacher"), tasks.make("gym:Reacher-v5")
    batches = [task.batch([{}], [np.random.default_rng(0)]) for task in (ours, theirs)]
    env = batches[1]._environments.envs[0].unwrapped
    batches[0].reset(), batches[1].reset()
    env.set_state(batches[0].data[0].qpos, batches[0].data[0].qvel)
    for action in torch.rand(40, 1, 2) * 2 - 1:
        a, b = (batch.step(action) for batch in batches)
        assert torch.equal(a.observation, b.observation)
        assert a.reward.item() == pytest.approx(b.reward.item(), rel=1e-12)


def test_actions_are_clipped_and_stretched_to_the_bounds() -> None:
    """Pendulum-v1 takes torques in ±2."""
    task = tasks.make("gym:Pendulum-v1")
    batch = task.batch([{}] * 2, [np.random.default_rng(3), np.random.default_rng(3)])
    env = gymnasium.make("Pendulum-v1")
    seed = int(np.random.default_rng(3).integers(2**31))
    first, _ = env.reset(seed=seed)
    assert np.array_equal(batch.reset()[0].numpy(), first.astype(np.float64))
    for asked in (0.3, -1.0, 1.0):
        theirs, reward, _, _, _ = env.step(np.array([2 * asked], dtype=np.float32))
        step = batch.step(torch.tensor([[asked], [asked * 7 if abs(asked) == 1 else asked]]))
        assert np.array_equal(step.next_observation[0].numpy(), theirs.astype(np.float64))
        assert torch.equal(step.next_observation[0], step.next_observation[1])
        assert step.reward[0].item() == reward


def test_arguments_reach_gymnasium() -> None:
    task = tasks.make({"name": "gym:Pendulum-v1", "g": 0.0})
    batch = task.batch([{}], [np.random.default_rng(0)])
    assert batch._environments.envs[0].unwrapped.g == 0.0
    assert task.name == "gym:Pendulum-v1(g=0.0)"


def test_a_range_of_an_argument_is_drawn_for_each_mdp() -> None:
    """And each environment lives as one that was made with its number alone."""
    task = tasks.make({"name": "gym:Pendulum-v1", "g": [0, 12]})
    mdps = [task.draw(np.random.default_rng(i)) for i in range(50)]
    drawn = [mdp["g"] for mdp in mdps]
    assert 0 <= min(drawn) < 1 and 11 < max(drawn) <= 12
    assert task.name == "gym:Pendulum-v1(g=0..12)" and "g: 0 to 12" in tasks.describe(task)
    batch = task.batch(mdps[:3], [np.random.default_rng(0) for _ in range(3)])
    alone = tasks.make({"name": "gym:Pendulum-v1", "g": drawn[1]})
    twin = alone.batch([{}], [np.random.default_rng(0)])
    batch.reset(), twin.reset()
    for _ in range(5):
        step, expected = batch.step(torch.zeros(3, 1)), twin.step(torch.zeros(1, 1))
        assert torch.equal(step.observation[1], expected.observation[0])
        assert not torch.equal(step.observation[0], step.observation[1])


def test_an_argument_that_is_a_pair_by_its_nature_is_no_range() -> None:
    task = tasks.make({"name": "gym:Hopper-v5", "healthy_angle_range": [-0.1, 0.1]})
    assert task.varied == () and task.draw(np.random.default_rng(0)) == {}
    batch = task.batch([{}], [np.random.default_rng(0)])
    assert batch._environments.envs[0].unwrapped._healthy_angle_range == [-0.1, 0.1]


def test_an_argument_that_changes_the_spaces_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the actions' bounds, which all environments of a batch share."""
    (tmp_path / "strong.py").write_text(STRONG)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="its spaces change with torque"):
        tasks.make({"name": "gym:strong:Strong-v0", "torque": [1, 3]})
    assert tasks.make({"name": "gym:strong:Strong-v0", "torque": 3}).action_size == 1


@pytest.mark.parametrize(("field", "value"), [("qpos", np.nan), ("qvel", np.nan), ("qvel", 1e12)])
def test_a_gymnasium_simulation_gone_bad_is_noticed(
    field: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left alone, MuJoCo resets it silently, and Gymnasium does not see it."""
    monkeypatch.chdir(tmp_path)
    task = tasks.make("gym:Hopper-v5")
    batch, twin = (task.batch([{}] * 2, [np.random.default_rng(i) for i in range(2)]) for _ in "ab")
    first, _ = batch.reset(), twin.reset()
    for count in (1, 2):
        inner = batch._environments.envs[0].unwrapped
        getattr(inner.data, field)[1] = value
        step, expected = batch.step(torch.zeros(2, 3)), twin.step(torch.zeros(2, 3))
        assert step.terminated.tolist() == [True, False] and step.reward[0] == 0
        assert torch.equal(step.next_observation[0], first[0])
        assert batch.failures.tolist() == [count, 0]
        assert all(torch.equal(x[1], y[1]) for x, y in zip(step, expected, strict=True))
        first = step.observation
    assert list(tmp_path.iterdir()) == []


def test_lunar_lander_lands_and_crashes() -> None:
    task = tasks.make("lunar-lander-continuous")
    batch = task.batch([{}] * 4, [np.random.default_rng(i) for i in range(4)])
    seen, ends, least = batch.reset(), 0, 0.0
    for _ in range(300):
        step = batch.step(torch.full((4, 2), -1.0))  # falls
        seen, ends = step.observation, ends + int(step.terminated.sum())
        least = min(least, step.reward.min().item())
    assert ends >= 8 and least == -100 and seen.shape == (4, 8)


def test_an_environment_of_the_working_directory_works_everywhere(
    epg: Callable[..., Any], tiny: Path, tmp_path: Path
) -> None:
    """With and without ranks; in a run's directory, which may be a stranger's, when trusted."""
    (tmp_path / "slide.py").write_text(SLIDE)
    task = "{name: gym:slide:Slide-v0, drag: [0.05, 0.5]}"
    best = "alone/best.safetensors"
    few = ("--lifetimes", "2")
    for arguments in (
        ("tasks", task),
        ("train", tiny, f"task={task}", "--run", "alone"),
        ("evaluate", best, "--task", task, *few, "--methods", "random"),
        ("inspect", best, "--task", task, *few),
        ("report", "alone", *few, "--methods", "random", "--trust"),
    ):
        said = epg(*arguments, folder=tmp_path)
        assert (said.code, "Traceback" in said.err) == (0, False), said
    said = epg("train", tiny, f"task={task}", "--run", "ranks", "--ranks", "2", folder=tmp_path)
    assert said.code == 0, said
    ours, theirs = (tmp_path / run / "loss.safetensors" for run in ("alone", "ranks"))
    assert ours.read_bytes() == theirs.read_bytes()
    said = epg("report", "alone", folder=tmp_path)
    assert said.code == 2 and "gym:slide:Slide-v0" in said.err and "--trust" in said.err
