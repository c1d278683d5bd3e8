"""MetaGenRL's population: the same objective on any ranks and after any stop, agents that begin
anew, nothing that leaks, and the same objective evolved."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from epg import tasks
from epg.agents.off_policy import OffPolicyAgents
from epg.config import Config
from epg.errors import UserError
from epg.farm.work import Result, Shared, Unit
from epg.lifetime import live
from epg.losses.objective_gradient import ObjectiveGradient
from epg.methods.base import make_method
from epg.methods.metagenrl import MetaGenRl
from epg.methods.saved import load
from epg.seeds import LifetimeSeeds, Purpose
from epg.settings import parse_yaml
from epg.tasks.base import draw_mdps

pytestmark = pytest.mark.xdist_group("metagenrl")  # one process makes what all of them need

Run = Callable[..., Any]
TINY = """\
task: [{name: point-goal, scale: [-5, -1]}, {name: random-cart-pole, scale: [20, 200]}]
steps: 4
method:
  name: metagenrl
  loss: {name: lstm, agents: {batch: 4, random_steps: 40, memory: 300, every: 2}}
  population: 8
  together: 2
  updates: 10
  anneal: 30
  life: 60
agent: {hidden: [8]}
lifetime: {updates: 2, steps_per_update: 32, final_episodes: 1}
learner: {buffer: 32, minibatch: 32}
validation: {every: 2, lifetimes: 2}
log: {stages: 2, tensorboard: false}
"""
KILL = """\
import os, signal
from epg.methods.metagenrl import MetaGenRl
whole, rounds = MetaGenRl.round, []
def round(self, results):
    rounds.append(results)
    if len(rounds) == 26:
        os.kill(os.getpid(), signal.SIGKILL)
    whole(self, results)
MetaGenRl.round = round
"""


def config_of(**changes: Any) -> Config:
    data: dict[str, Any] = parse_yaml(TINY)
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(data.get(key), dict):
            value = {**data[key], **value}
        data[key] = value
    return Config.model_validate(data)


def method_of(**changes: Any) -> MetaGenRl:
    config = config_of(**changes)
    method = make_method(config, tasks.make(config.task))
    assert isinstance(method, MetaGenRl)
    method.begin(method.init())
    return method


def one_round(method: MetaGenRl, number: int, step: int = 0) -> list[Result]:
    arrays = method.shared(step) | {"round": np.array(number)}
    if not number and not step:
        arrays |= method.members()
    results = [method.run(Shared(step, arrays), unit) for unit in method.workload(step).units()]
    method.round(results)
    return results


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, epg: Run) -> Path:
    """A folder with a run that was never disturbed."""
    folder = tmp_path_factory.mktemp("metagenrl")
    (folder / "tiny.yaml").write_text(TINY)
    said = epg("train", "tiny.yaml", "--run", "whole", folder=folder)
    assert (said.code, said.err) == (0, "")
    return folder


@pytest.mark.parametrize("ranks", [pytest.param(2, marks=pytest.mark.soak), 4])
def test_any_ranks_learn_the_same_objective(
    ranks: int, epg: Run, place: Path, tensors: Run
) -> None:
    arguments = ("train", "tiny.yaml", "--run", f"ranks-{ranks}", "--ranks", ranks)
    said = epg(*arguments, folder=place)
    assert (said.code, said.err) == (0, "")
    for name in ("loss.safetensors", "best.safetensors", "stages/00000002.safetensors"):
        assert tensors(place / f"ranks-{ranks}" / name) == tensors(place / "whole" / name)


def test_killed_in_the_middle_of_a_step_it_comes_to_the_same(
    epg: Run, place: Path, tensors: Run
) -> None:
    """Agents of two tasks, some in the middle of an episode, some begun anew before."""
    said = epg("train", "tiny.yaml", "--run", "killed", folder=place, before=KILL)
    assert said.code == -9
    said = epg("train", "tiny.yaml", "--run", "killed", folder=place)
    assert said.code == 0 and "goes on after 2 of 4" in said.out
    for name in ("loss.safetensors", "stages/00000004.safetensors"):
        assert tensors(place / "killed" / name) == tensors(place / "whole" / name)
    rows = [(place / run / "metrics.csv").read_text() for run in ("killed", "whole")]
    steady = [[row.rsplit(",", 2)[0] for row in text.splitlines()] for text in rows]
    assert steady[0] == steady[1]


def test_what_is_learned_is_judged_on_any_continuous_task(epg: Run, place: Path) -> None:
    saved = load(place / "whole" / "best.safetensors")
    assert not saved.sized and sum(t.numel() for t in saved.params.values()) == 15_497
    said = epg(
        "evaluate", "whole/best.safetensors", "--task", "random-reacher", "--lifetimes", 2,
        "--updates", 4, "--methods", "td3,reinforce-off-policy,untrained,blind,random", "--out",
        "judged", folder=place,
    )  # fmt: skip
    assert (said.code, said.err) == (0, "")
    for name in ("td3", "reinforce-off-policy", "untrained", "blind"):
        assert name in said.out
    said = epg("evaluate", "whole/best.safetensors", "--task", "acrobot", folder=place)
    assert said.code == 2 and "loss lstm: is for continuous actions" in said.err


def test_the_loop_on_its_page_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a small objective, and on a task of short episodes."""
    page = (Path(__file__).parents[2] / "docs" / "methods" / "metagenrl.md").read_text()
    [loop] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for theirs, ours in (
        ("runs/metagenrl/best.safetensors", str(place / "whole" / "best.safetensors")),
        ("half-cheetah", "random-reacher"),
    ):
        assert loop.count(theirs) == 1
        loop = loop.replace(theirs, ours)
    exec(loop, {})
    returns = capsys.readouterr().out.strip("[] \n").split()
    assert len(returns) == 8 and all(np.isfinite(float(each)) for each in returns)


def test_every_number_of_the_objective_learns_and_agents_begin_anew_in_their_time() -> None:
    method = method_of(method={"life": 60, "updates": 20})
    first = method.params()
    for number in range(method.rounds):
        one_round(method, number)
    moved = {name: (tensor - first[name]).abs().sum() for name, tensor in method.params().items()}
    assert all(amount > 0 for amount in moved.values()), moved
    lives = {u: p.lives for u, p in method._populations.items()}
    assert {life for each in lives.values() for life in each} == {1, 2}
    ages = [age for p in method._populations.values() for age in p.agents.replay.ages]
    assert len(set(ages)) > 3 and max(ages) <= 60 + 4


def test_a_nan_stays_with_its_agent_which_begins_anew() -> None:
    """Its gradient counts for nothing in that round, and no checkpoint has it."""
    method = method_of(method={"life": None, "updates": 20, "anneal": 60})
    for number in range(method.rounds - 1):
        one_round(method, number)
    population = method._populations[0]
    with torch.no_grad():
        population.agents.parameters["critic1.0.weight"][1] = torch.nan
    results = one_round(method, method.rounds - 1)
    assert results[0].arrays["renewed"].tolist() == [0, 1] and population.lives == [0, 1]
    assert results[0].arrays["active"].tolist() == [1, 0]
    assert not any(each[1].any() for each in gradients_of(results[0]))
    assert all(each[0].any() for each in gradients_of(results[0]))
    assert population.agents.replay.ages == [80, 0]
    row = method.update(0, results)
    assert row["renewed"] == 1 and np.isfinite([v for v in row.values() if v is not None]).all()
    assert all(torch.isfinite(tensor).all() for tensor in method.state_dict().values())


def gradients_of(result: Result) -> list[np.ndarray]:
    return [array for name, array in result.arrays.items() if name.startswith("gradient.")]


def test_nothing_leaks() -> None:
    """The objective teaches the policy through its present action alone, and no critic."""
    method = method_of(task="point-goal")
    for number in range(method.rounds):
        one_round(method, number)
    agents = method._populations[0].agents
    alpha = method.for_each(method.params(), 2, "cpu")
    pieces = agents.draw_pieces(4)
    loss = method.loss.teaches(alpha)(agents.networks, agents.parameters, pieces)
    found = torch.autograd.grad(loss.sum(), list(agents.parameters.values()), allow_unused=True)
    for name, gradient in zip(agents.parameters, found, strict=True):
        assert (gradient is not None) == name.startswith("policy"), name
    # with the present action held still, nothing is left
    way = ObjectiveGradient(agents.networks, method.loss.objective)
    frozen = {name: p.detach() for name, p in agents.parameters.items()}
    actions = agents.networks.act(frozen, pieces.observations)
    live = {n: p.detach().requires_grad_() for n, p in frozen.items()}
    values = way.networks.state_values(live, pieces)
    judged = method.loss.objective.judge(alpha, pieces, actions, values)
    assert not judged.requires_grad and values.requires_grad


def test_the_same_objective_evolves() -> None:
    """One switch: candidates' agents are those that the other method teaches."""
    data: dict[str, Any] = parse_yaml(TINY)
    loss = data["method"]["loss"]
    data |= {"task": "point-goal", "method": {"name": "epg", "pairs": 3, "loss": loss}}
    data["lifetime"]["updates"] = 4
    config = Config.model_validate(data)
    method: Any = make_method(config, tasks.make(config.task))
    phi, unit = method.init(), next(method.workload(0).units())
    assert {n: t.shape for n, t in phi.items()} == {
        n: t.shape for n, t in method_of().init().items()
    }
    method.begin(phi)
    result = method.run(Shared(0, {n: t.numpy() for n, t in phi.items()}), unit)
    assert np.isfinite(result.arrays["fitness"]).all() and np.ptp(result.arrays["fitness"]) > 0
    seeds = LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 2)
    assert isinstance(method.agents(phi, seeds), OffPolicyAgents)


def test_units_of_any_cut_evolve_it_with_the_same_bits() -> None:
    """Though its agents' gradients are clipped and their pieces standardised."""
    data: dict[str, Any] = parse_yaml(TINY)
    loss = data["method"]["loss"]
    data |= {"task": "point-goal", "method": {"name": "epg", "pairs": 4, "loss": loss}}
    data["lifetime"]["updates"] = 4
    config = Config.model_validate(data)
    method = make_method(config, tasks.make(config.task))
    phi = method.init()
    shared = Shared(0, {n: t.numpy() for n, t in phi.items()})

    def fitness(*cut: tuple[int, int]) -> list[float]:
        units = [Unit(Purpose.TRAINING, 0, first, count) for first, count in cut]
        found = [method.run(shared, unit).arrays["fitness"] for unit in units]
        return list(np.concatenate(found).ravel().tolist())

    whole = fitness((0, 4))
    assert fitness((0, 1), (1, 3)) == whole == fitness(*((pair, 1) for pair in range(4)))
    assert len(set(whole)) == len(whole)


def test_blind_agents_are_put_beside_it_if_nothing_is_said(place: Path) -> None:
    assert load(place / "whole" / "best.safetensors").blindable


def test_blind_agents_are_shown_no_reward() -> None:
    method = method_of(task="point-goal")
    seeds = LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 2)
    agents: Any = method.blind(method.init(), seeds)
    live(method.task, draw_mdps(method.task, seeds), agents, seeds, method.config.lifetime)
    assert not agents.replay._rewards.any() and not agents.replay._terminated.any()
    assert min(agents.replay.episodes) > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "acrobot"}, "loss lstm: is for continuous actions"),
        ({"method": {"population": 1}}, "found 1 agents for 2 tasks"),
        ({"method": {"loss": "per_step"}}, "found loss per_step, whose agents have no critics"),
        ({"method": {"loss": {"name": "lstm", "agents": {"piece": 40}}}}, "found pieces of 40"),
        ({"method": {"loss": {"name": "lstm", "agents": {"memory": 30}}}}, "a memory of 30 steps"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        method_of(**changes)


def test_memories_beyond_this_machine_are_refused_before_anything_is_made(
    epg: Run, place: Path
) -> None:
    override = "method.loss.agents.memory=10_000_000"
    arguments = ("tiny.yaml", "--run", "large", override, "method.population=4000")
    said = epg("train", *arguments, folder=place)
    assert said.code == 2 and "the master: at least" in said.err and "memories" in said.err
    assert not (place / "large").exists()
