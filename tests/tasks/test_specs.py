"""What names a task: names, parameters, mixtures, Gymnasium's ids, a user's own classes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from epg import tasks
from epg.errors import UserError
from epg.tasks.mixture import Padded

OWN = """
from epg.tasks import Task, Varied
from epg.tasks.point_goal import PointGoal
class NotATask: pass
class Unfinished(Task):
    summary = "no sizes"
    def batch(self, mdps, rngs, device="cpu", restart=True): raise NotImplementedError
class Abstract(Task):
    summary = "no batch"
class Endless(Unfinished):
    observation_size = action_size = 1
    discrete, horizon = False, 0
class Wordy(Endless):
    horizon, varied = 1, (Varied("words", 0, 1, choices=("a", "b")),)
class Small(PointGoal):
    observation_size = 3
"""


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("randm-hopper", "unknown name 'randm-hopper'; did you mean random-hopper"),
        ("gym:Nope-v1", "task gym:Nope-v1: Environment `Nope` doesn't exist"),
        ("gym:CartPole-v99", "task gym:CartPole-v99: Environment version `v99`"),
        ("gym:ALE/Pong-v5", "Have you installed the proper package for ALE?"),
        ("gym:nowhere:Some-v1", "task gym:nowhere:Some-v1: no module 'nowhere' here"),
        ("gym:own:Some-v1", "task gym:own:Some-v1: Environment `Some` doesn't exist"),
        ({"name": "gym:Pendulum-v1", "g": [9, 5]}, "g: found [9, 5], allowed: a number or [low,"),
        ({"name": "gym:Pendulum-v1", "g": [5, float("nan")]}, "g: found [5, nan], allowed"),
        ({"name": "gym:Pendulum-v1", "mass": [1, 2]}, "unexpected keyword argument 'mass'"),
        ({"name": "gym:Hopper-v5", "frame_skip": [2, 4]}, "be stepped with frame_skip 2.0: "),
        ({"name": "gym:Hopper-v5", "reset_noise_scale": ["a", 2]}, "task gym:Hopper-v5: "),
        ("gym:", "task gym:: Malformed environment ID"),
        ("gym:CarRacing-v3", "Box(0, 255, (96, 96, 3), uint8), but only a Box of one dimension"),
        ("gym:Blackjack-v1", "observations are Tuple("),
        ("gym:FrozenLake-v1", "observations are Discrete(16)"),
        ({"name": "gym:Pendulum-v1", "mass": 1}, "unexpected keyword argument 'mass'"),
        ({"name": "random-hopper", "mass": -1}, "mass: found -1, allowed: a number or [low, high]"),
        ({"name": "random-hopper", "mass": [2, 1]}, "mass: found [2, 1], allowed"),
        ({"name": "random-hopper", "mass": [0.1, 0.2, 0.3]}, "0.1 to 10 ×"),
        ({"name": "random-hopper", "gravity": 9.81}, "gravity: found 9.81, allowed: a number or"),
        ({"name": "random-hopper", "mass": "heavy"}, "mass: found 'heavy', allowed: a number"),
        ({"name": "random-hopper", "mas": 1}, "unknown parameter 'mas'; did you mean 'mass'?"),
        ({"name": "random-reacher", "length": 0.2}, "length: found 0.2, allowed"),
        ({"name": "dir-hopper", "direction": 0}, "direction: found 0, allowed: -1 or 1"),
        ({"name": "hopper", "mass": 1}, "unknown parameter 'mass'; it takes none"),
        ({"name": "goal-ant", "region": "left"}, "region: found 'left', allowed: all, front, back"),
        ({"name": "goal-ant", "region": "back", "angle": 0}, "region and angle: found both"),
        ({"name": "goal-ant", "region": ["front"]}, "region: found ['front'], allowed: all"),
        (
            {"name": "two-colours", "flip": -1},
            "task two-colours: flip: found -1, allowed: a number",
        ),
        ({"name": "two-colours", "flip": 0.5}, "1 to 1e+09 steps"),
        ({"name": "two-colours", "flip": "late"}, "flip: found 'late', allowed: a number or [low"),
        ({"name": "two-colours", "flips": 9}, "unknown parameter 'flips'; did you mean 'flip'?"),
        ({"name": "drifting-walk", "slip": 1.5}, "slip: found 1.5, allowed: a number or [low, hig"),
        ({"name": "drifting-walk", "period": 0}, "period: found 0, allowed: a number or [low, hig"),
        ({"name": "catch", "rows": 9}, "task catch: unknown parameter 'rows'; it takes none"),
        ({"name": "signal-chain", "states": 9}, "unknown parameter 'states'; it takes none"),
        ({"name": "lunar-lander-continuous", "gravity": 1}, "'gravity'; it takes none"),
        ({"name": "gym:LunarLander-v3", "gravity": -20}, "must be between"),
        ({"name": "gym:Hopper-v5", "frame_skip": 0}, "task gym:Hopper-v5: "),
        ({"name": "gym:CartPole-v1", "gym_id": "x"}, "unexpected keyword argument 'gym_id'"),
        ({"name": "gym:Pendulum-v1", "g": "abc"}, "cannot be stepped: "),
        ({"name": "hopper", "self": 3}, "unknown parameter 'self'"),
        ({"name": "hopper", "scale": [0, 1]}, "scale is for the tasks of a mixture"),
        ([{"name": "hopper", "scale": [0, float("inf")]}], "scale: found [0, inf]"),
        ([{"name": "hopper", "scale": [True, 2]}], "scale: found [True, 2]"),
        ([["hopper"]], "task: found ['hopper'], allowed: NAME"),
        (":Class", "task :Class: allowed: module:Class"),
        (".own:NotATask", "allowed: module:Class"),
        ("subprocess:Popen", "task subprocess:Popen: it is not an epg.tasks.Task"),
        ("epg.tasks.gym:Gymnasium", "missing 1 required positional argument"),
        ("own:Wordy", "words of the task: found Varied("),
        ("own:Small", "its reset gives of shape [1, 2], needed: [1, 3]"),
        ({"nam": "hopper"}, "allowed: NAME, {name: NAME"),
        (5, "task: found 5, allowed: NAME"),
        ([], "a mixture: found no tasks"),
        ([5], "task: found 5, allowed: NAME"),
        (["hopper", "cart-pole"], "found tasks of discrete and of continuous actions"),
        ([{"name": "hopper", "scale": 3}], "task hopper: scale: found 3, allowed: [final return"),
        ([{"name": "hopper", "scale": [2, 1]}], "allowed: the second above the first"),
        ("own:Missing", "module 'own' has no class 'Missing'"),
        ("own:NotATask", "task own:NotATask: it is not an epg.tasks.Task"),
        ("own:Abstract", "task own:Abstract: Can't instantiate"),
        ("own:Unfinished", "observation_size of the task: found None, needed: an integer above 0"),
        ("own:Endless", "horizon of the task: found 0"),
        ("elsewhere:Task", "task elsewhere:Task: no module 'elsewhere' here"),
    ],
)
def test_a_wrong_spec_is_one_line(
    spec: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    with pytest.raises(UserError) as caught:
        tasks.make(spec)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_name_shows_all_that_are_allowed() -> None:
    with pytest.raises(UserError) as caught:
        tasks.make("x")
    assert all(name in str(caught.value) for name in [*tasks.names(), "gym:ID", "module:Class"])


def test_parameters_narrow_what_is_drawn() -> None:
    spec: tasks.Spec = {"name": "random-hopper", "mass": [0.9, 1.1], "gravity": -9.81}
    task = tasks.make(spec)
    usual = tasks.make("random-hopper")
    mdps = [task.draw(np.random.default_rng(i)) for i in range(100)]
    others = [usual.draw(np.random.default_rng(i)) for i in range(100)]
    masses = np.array([m["mass"] for m in mdps])
    assert 0.9 <= masses.min() < 0.92 and 1.08 < masses.max() <= 1.1
    assert {m["gravity"] for m in mdps} == {-9.81}
    assert [m["friction"] for m in mdps] == [m["friction"] for m in others]  # same randomness
    assert task.name == tasks.label(spec) == "random-hopper(gravity=-9.81, mass=0.9..1.1)"
    assert tasks.file_name(spec) == "random-hopper-gravity=-9.81,-mass=0.9..1.1"
    assert "mass: 0.9 to 1.1 ×" in tasks.describe(task)


def test_a_choice_may_be_fixed() -> None:
    task = tasks.make({"name": "dir-hopper", "direction": -1})
    assert {task.draw(np.random.default_rng(i))["direction"] for i in range(20)} == {-1.0}


def test_a_mixture_is_each_of_its_tasks_padded() -> None:
    """Bitwise, whatever lives beside it."""
    names = ["dir-hopper", "random-cart-pole", "point-goal"]
    mixture: Any = tasks.make(names)
    assert (mixture.observation_size, mixture.action_size, mixture.horizon) == (11, 3, 1000)
    mdps = [mixture.draw(np.random.default_rng(i)) for i in range(30)]
    counts = np.bincount([m["part"] for m in mdps])
    assert len(counts) == 3 and counts.min() >= 4
    batch = mixture.batch(mdps, [np.random.default_rng(i) for i in range(30)])
    alone = [
        tasks.make(names[m["part"]]).batch([m["mdp"]], [np.random.default_rng(i)])
        for i, m in enumerate(mdps)
    ]
    seen, own = batch.reset(), [one.reset() for one in alone]
    sizes = [(4, 1), (2, 2)]
    sizes = [(11, 3), *sizes]
    for action in torch.randn(60, 30, 3, generator=torch.Generator().manual_seed(0)):
        for i, m in enumerate(mdps):
            n, _ = sizes[m["part"]]
            assert torch.equal(seen[i, :n], own[i][0]) and (seen[i, n:] == 0).all()
        step = batch.step(action)
        seen = step.observation
        for i, m in enumerate(mdps):
            answer = alone[i].step(action[i : i + 1, : sizes[m["part"]][1]])
            own[i] = answer.observation
            assert step.reward[i] == answer.reward[0]
            assert step.terminated[i] == answer.terminated[0]
            assert step.truncated[i] == answer.truncated[0]
    assert batch.failures.shape == (30,)


def test_discrete_actions_beyond_a_tasks_own_wrap_around() -> None:
    padded = Padded(tasks.make("cart-pole"), 6, 3)
    mdp = padded.draw(np.random.default_rng(0))
    batch = padded.batch([mdp] * 3, [np.random.default_rng(0) for _ in range(3)])
    assert batch.reset().shape == (3, 6)
    step = batch.step(torch.tensor([0, 1, 2]))
    assert torch.equal(step.observation[0], step.observation[2])
    assert not torch.equal(step.observation[0], step.observation[1])


def test_a_task_is_not_padded_to_less_than_it_is() -> None:
    with pytest.raises(UserError, match="hopper has 11 observations and 3 actions, more than 4"):
        Padded(tasks.make("hopper"), 4, 3)


def test_fitness_is_normalised_for_each_task_of_a_mixture() -> None:
    mixture = tasks.make(
        [{"name": "hopper", "scale": [10, 110]}, {"name": "reacher", "scale": [-50.0, -10.0]}]
    )
    mdps = [{"part": 0, "mdp": {}}, {"part": 1, "mdp": {}}, {"part": 0, "mdp": {}}]
    assert mixture.score(mdps, np.array([10.0, -10.0, 60.0])).tolist() == [0.0, 1.0, 0.5]
    assert tasks.make("hopper").score([{}], np.array([7.0])).tolist() == [7.0]


def test_the_template_in_the_docs_trains(
    epg: Callable[..., Any], tiny: Path, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
    (template,) = [block.split("```")[0] for block in page.split("```python\n")[1:]]
    (tmp_path / "my_tasks.py").write_text(template)
    said = epg("tasks", "my_tasks:PushBlock", folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    assert "my_tasks:PushBlock: push a block" in said.out and "mass: 0.5 to 2 kg" in said.out
    said = epg("train", tiny, "task=my_tasks:PushBlock", "--run", "run", folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    narrow = "{name: my_tasks:PushBlock, mass: [5, 9]}"
    said = epg("evaluate", "run/best.safetensors", "--task", narrow, folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    assert "my_tasks:PushBlock(mass=5..9): 32 held-out lifetimes of 64" in said.out
