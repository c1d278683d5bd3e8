"""LPG as a method: the same rule on any ranks and after any stop, lives that begin anew, agents
that learn by it anywhere, and the same rule evolved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from epg import tasks
from epg.config import Config
from epg.errors import UserError
from epg.farm.work import Result, Shared, Unit
from epg.lifetime import LifetimeSettings, live
from epg.losses.lpg_loss import LpgLoss
from epg.methods.arms import Arms
from epg.methods.base import make_method
from epg.methods.lpg import LpgMethod
from epg.methods.saved import load
from epg.rules.lpg_agents import LpgAgents
from epg.seeds import LifetimeSeeds, Purpose
from epg.settings import parse_yaml
from epg.tasks.base import draw_mdps, first_step
from epg.tasks.numbered import Numbered
from epg.training.loop import starting_params

pytestmark = pytest.mark.xdist_group("lpg")  # one process makes what all of them need

Run = Callable[..., Any]
TINY = """\
task:
- {name: grid-all, size: [4, 5], objects: [1, 2], horizon: [20, 40], scale: [0, 1]}
- {name: cart-pole, scale: [20, 200]}
steps: 4
method:
  name: lpg
  loss: {name: lpg, units: 8, embedded: 4, predictions: 3, piece: 5}
  population: 8
  together: 2
  updates: 3
  inner_updates: 2
  learning_rate: 1.e-3
agent: {hidden: [8]}
lifetime: {updates: 12, steps_per_update: 10, final_episodes: 1}
learner: {buffer: 10, minibatch: 10}
validation: {every: 2, lifetimes: 2}
log: {stages: 2, tensorboard: false}
"""
KILL = """\
import os, signal
from epg.methods.lpg import LpgMethod
whole, rounds = LpgMethod.round, []
def round(self, results):
    rounds.append(results)
    if len(rounds) == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    whole(self, results)
LpgMethod.round = round
"""


def config_of(**changes: Any) -> Config:
    data: dict[str, Any] = parse_yaml(TINY)
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(data.get(key), dict):
            value = {**data[key], **value}
        data[key] = value
    return Config.model_validate(data)


def method_of(**changes: Any) -> LpgMethod:
    config = config_of(**changes)
    method = make_method(config, tasks.make(config.task))
    assert isinstance(method, LpgMethod)
    method.begin(method.init())
    return method


def one_round(method: LpgMethod, number: int, step: int = 0) -> list[Result]:
    arrays = method.shared(step) | {"round": np.array(number)}
    if not number and not step:
        arrays |= method.members()
    results = [method.run(Shared(step, arrays), unit) for unit in method.workload(step).units()]
    method.round(results)
    return results


def one_step(method: LpgMethod, step: int) -> list[Result]:
    for number in range(method.rounds):
        results = one_round(method, number, step)
    return results


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, epg: Run) -> Path:
    """A folder with a run that was never disturbed."""
    folder = tmp_path_factory.mktemp("lpg")
    (folder / "tiny.yaml").write_text(TINY)
    said = epg("train", "tiny.yaml", "--run", "whole", folder=folder)
    assert (said.code, said.err) == (0, "")
    return folder


@pytest.mark.parametrize("ranks", [pytest.param(2, marks=pytest.mark.soak), 4])
def test_any_ranks_learn_the_same_rule(ranks: int, epg: Run, place: Path, tensors: Run) -> None:
    arguments = ("train", "tiny.yaml", "--run", f"ranks-{ranks}", "--ranks", ranks)
    said = epg(*arguments, folder=place)
    assert (said.code, said.err) == (0, "")
    for name in ("loss.safetensors", "best.safetensors", "stages/00000002.safetensors"):
        assert tensors(place / f"ranks-{ranks}" / name) == tensors(place / "whole" / name)


def test_killed_in_the_middle_of_a_step_it_comes_to_the_same(
    epg: Run, place: Path, tensors: Run
) -> None:
    """Units of two tasks and four ages, whose first lives have ended."""
    said = epg("train", "tiny.yaml", "--run", "killed", folder=place, before=KILL)
    assert said.code == -9
    said = epg("train", "tiny.yaml", "--run", "killed", folder=place)
    assert said.code == 0 and "goes on after 2 of 4" in said.out
    for name in ("loss.safetensors", "stages/00000004.safetensors"):
        assert tensors(place / "killed" / name) == tensors(place / "whole" / name)
    rows = [(place / run / "metrics.csv").read_text() for run in ("killed", "whole")]
    steady = [[row.rsplit(",", 2)[0] for row in text.splitlines()] for text in rows]
    assert steady[0] == steady[1]


def test_what_is_learned_is_judged_on_any_discrete_task(epg: Run, place: Path) -> None:
    saved = load(place / "whole" / "best.safetensors")
    assert not saved.sized and saved.blindable
    for task in ("cart-pole", "grid-sparse", "gym:Acrobot-v1"):
        said = epg(
            "evaluate", "whole/best.safetensors", "--task", task, "--lifetimes", 2, "--updates", 1,
            "--methods", "untrained,blind,random,a2c", "--out", f"on-{task.partition(':')[0]}",
            folder=place,
        )  # fmt: skip
        assert (said.code, said.err) == (0, "")
        assert all(name in said.out for name in ("untrained", "blind", "a2c"))
        assert "networks by Adam at 0.001" in said.out
    said = epg("evaluate", "whole/best.safetensors", "--task", "hopper", folder=place)
    assert said.code == 2 and "loss lpg: is for discrete actions" in said.err


def test_a_rule_goes_on_with_other_tasks(place: Path) -> None:
    """Of other sizes, too: it belongs to none."""
    file = place / "whole" / "best.safetensors"
    params = starting_params(method_of(task="cart-pole"), file)
    assert all(torch.equal(tensor, load(file).params[name]) for name, tensor in params.items())
    larger = {**parse_yaml(TINY)["method"]["loss"], "units": 9}
    with pytest.raises(UserError, match="does not fit task cart-pole"):
        starting_params(method_of(task="cart-pole", method={"loss": larger}), file)


def test_inspect_says_what_predictions_mean(epg: Run, place: Path) -> None:
    said = epg(
        "inspect", "whole/best.safetensors", "--task", "cart-pole", "--lifetimes", 2, folder=place
    )
    assert (said.code, said.err) == (0, "")
    for line in ("R² of returns at γ 0.9, learned loss", "R² of returns at γ 0.99, untrained",
                 "final return, blind"):  # fmt: skip
        assert line in said.out
    assert (place / "anatomy" / "anatomy-cart-pole.png").exists()
    said = epg("report", "whole", "--lifetimes", 2, "--methods", "random", folder=place)
    assert (said.code, said.err) == (0, "")


def test_every_number_of_the_rule_learns() -> None:
    method = method_of()
    for number in range(2):
        for result in one_round(method, number):
            gradients = {n: a for n, a in result.arrays.items() if n.startswith("gradient.")}
            assert len(gradients) == len(method.shapes)
            assert all(np.abs(array).sum() > 0 for array in gradients.values())
            assert result.arrays["counted"].all()


def test_lives_end_at_ages_of_their_own_and_draw_an_arm_anew() -> None:
    method = method_of()
    firsts = [method._make(unit, "cpu")._first for unit in method.workload(0).units()]
    assert firsts == [4, 10, 6, 12]  # units of both tasks in turn
    arms, lives = set(), set()
    for step in range(3):
        one_step(method, step)
        lives |= {population._lives for population in method._populations.values()}
        arms |= {arm for p in method._populations.values() for arm in p.state()["arm"].tolist()}
    ages = [population._age for population in method._populations.values()]
    assert len(set(ages)) > 1 and all(0 <= age < 12 for age in ages)
    assert lives >= {0, 1, 2} and len(arms) > 3
    told = method.state_dict()["bandit.count"]
    newest = method.state_dict()["bandit.newest"]
    assert newest[1].max() == 1  # cart-pole pays 1 a step, however short a first life was
    assert int(told.sum()) == 2 * sum(p._lives for p in method._populations.values())


def test_a_nan_is_kept_out_of_the_rule_and_of_checkpoints() -> None:
    method = method_of()
    one_step(method, 0)
    before = method.params()
    for unit, name in ((0, "value.value.table"), (4, "theta.policy.0.weight")):
        method._populations[unit]._state[name][1] = torch.nan
    method._noted = []
    results = one_step(method, 1)
    row = method.update(1, results)
    assert row["counted"] is not None and row["counted"] < 1
    assert row["renewed"] == 2 and all(torch.isfinite(t).all() for t in method.params().values())
    assert all(torch.isfinite(tensor).all() for tensor in method.state_dict().values())
    assert any((tensor != before[name]).any() for name, tensor in method.params().items())


def test_tables_alone_are_saved_and_read_again(epg: Run, place: Path) -> None:
    said = epg(
        "train", "tiny.yaml", "--run", "tables", "steps=1", "method.loss.agents=tables",
        "task=[{name: grid-sparse, scale: [0, 1]}, {name: grid-all, size: 4, scale: [0, 1]}]",
        folder=place,
    )  # fmt: skip
    assert (said.code, said.err) == (0, "")
    on_grids = ("evaluate", "tables/best.safetensors", "--lifetimes", 2, "--updates", 1)
    said = epg(*on_grids, "--task", "grid-sparse", "--methods", "random", folder=place)
    assert said.code == 0 and "tables by SGD at 40" in said.out
    said = epg(*on_grids, "--task", "cart-pole", "--out", "other", folder=place)
    assert said.code == 2 and "found tables for task cart-pole" in said.err


def test_an_arm_that_was_never_ended_with_gets_most_lives_but_not_all() -> None:
    arms = Arms(1, 3)
    assert arms.chances().tolist() == [[pytest.approx(1 / 3)] * 3]
    ended, nan = np.ones(4), float("nan")
    arms.tell(0, np.array([0, 0, 1, 1]), ended, np.array([1.0, 2.0, 3.0, 5.0]))
    first = arms.chances()[0]
    assert first[2] > first[1] > first[0] > 0 and float(first.sum()) == pytest.approx(1)
    arms.tell(0, np.array([2, 1]), np.array([1, 0]), np.array([nan, 9.0]))
    later = arms.chances()[0]
    assert later[1] > later[0] and later[1] > later[2]
    assert arms.state()["count"].tolist() == [[2, 2, 1]]


def test_values_that_judge_learn() -> None:
    """The peer's own never move."""
    method = method_of(method={"updates": 6}, lifetime={"updates": 100})
    one_step(method, 0)
    states = [p._state for p in method._populations.values()]
    assert any("value.value.table" in s and s["value.value.table"].any() for s in states)
    assert all(s["value.value.1.bias"].any() for s in states if "value.value.1.bias" in s)


def test_units_of_any_cut_evolve_it_with_the_same_bits() -> None:
    """Temporally aware, one switch away; no agent's numbers depend on those beside it."""
    grids = {"name": "grid-all", "size": [4, 5]}
    mixture = [grids | {"scale": [0, 1]}, {"name": "cart-pole", "scale": [20, 200]}]
    for task in ("cart-pole", grids, mixture):
        loss = {**parse_yaml(TINY)["method"]["loss"], "ages": True}
        epg = {"name": "epg", "pairs": 4, "loss": loss}
        config = Config.model_validate({**parse_yaml(TINY), "task": task, "method": epg})
        method = make_method(config, tasks.make(config.task))
        phi = method.init()
        shared = Shared(0, {n: t.numpy() for n, t in phi.items()})

        def fitness(*cut: tuple[int, int], run: Any = method, arrays: Any = shared) -> list[float]:
            units = [Unit(Purpose.TRAINING, 0, first, count) for first, count in cut]
            found = [run.run(arrays, unit).arrays["fitness"] for unit in units]
            return list(np.concatenate(found).ravel().tolist())

        whole = fitness((0, 4))
        assert fitness((0, 1), (1, 3)) == whole == fitness(*((pair, 1) for pair in range(4)))
        assert len(set(whole)) > 1


def test_where_it_evolves_an_agent_lives_in_an_environment_for_each_piece() -> None:
    """Rows stand environment by environment, as pieces do, and none of them is another's copy."""
    loss = {**parse_yaml(TINY)["method"]["loss"], "ages": True}
    epg = {"name": "epg", "pairs": 2, "loss": loss}
    config = Config.model_validate({**parse_yaml(TINY), "task": "cart-pole", "method": epg})
    method: Any = make_method(config, tasks.make("cart-pole"))
    pieces, life = method.loss.pieces_in(config.lifetime.steps_per_update), config.lifetime
    seeds = LifetimeSeeds.of(0, Purpose.TRAINING, 0, 2)
    phi = method.spec.flatten(method.init()).expand(2, -1)
    agents, seen = method.candidates(phi, seeds, life, 0), []
    learn, agents.learn = agents.learn, lambda new: (seen.append(new), learn(new))[1]
    lived = live(method.task, draw_mdps(method.task, seeds), agents, seeds, life)
    assert pieces > 1 and agents.environments == pieces
    assert lived.steps >= 2 * life.steps and lived.episode_returns.shape == (2, life.updates)
    steps = life.steps_per_update // pieces
    for new, later in pairwise(seen):
        rows = new.observations.unflatten(1, (pieces, steps))
        following = new.next_observations.unflatten(1, (pieces, steps))
        goes_on = ~(new.terminated | new.truncated).unflatten(1, (pieces, steps))
        assert torch.equal(
            following[:, :, :-1][goes_on[:, :, :-1]], rows[:, :, 1:][goes_on[:, :, :-1]]
        )
        first = later.observations.unflatten(1, (pieces, steps))[:, :, 0]
        assert torch.equal(following[:, :, -1][goes_on[:, :, -1]], first[goes_on[:, :, -1]])
        assert len(torch.unique(rows.flatten(0, 2), dim=0)) > 0.9 * rows[..., 0].numel()
    one = method.agents(method.init(), LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 2))
    assert one.environments == 1  # a meta-test is a life in one


def test_in_a_mixture_evolved_agents_are_made_for_their_own_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tables on grids, networks without padding on cart-poles; each life as if alone."""
    loss = parse_yaml(TINY)["method"]["loss"]
    given = {**parse_yaml(TINY), "method": {"name": "epg", "pairs": 6, "loss": loss}}
    config = Config.model_validate(given)
    method: Any = make_method(config, tasks.make(config.task))
    made, whole = [], LpgLoss.agents

    def noted(self: LpgLoss, *about: Any) -> Any:
        made.append(whole(self, *about))
        return made[-1]

    monkeypatch.setattr(LpgLoss, "agents", noted)
    seeds = LifetimeSeeds.of(0, Purpose.TRAINING, 0, 6)
    mdps = draw_mdps(method.task, seeds)
    phi = method.spec.flatten(method.init()).expand(6, -1)
    together = method.live(mdps, phi, seeds, config.lifetime, 0)
    sizes = [(a._networks.observation_size, bool(a._networks.hidden)) for a in made]
    assert sizes == [(method.task.parts[0].task.observation_size, False), (4, True)]
    for part, spec in enumerate(given["task"]):
        task = tasks.make({k: v for k, v in spec.items() if k != "scale"})
        mine = [i for i, mdp in enumerate(mdps) if mdp["part"] == part]
        alone: Any = make_method(Config.model_validate(given | {"task": config.task}), task)
        own = [mdps[i]["mdp"] for i in mine]
        life = LifetimeSeeds([seeds.each()[i] for i in mine], range(len(mine)))
        lived = alone.live(own, phi[mine], life, config.lifetime, 0)
        assert mine and lived.final_return.tolist() == together.final_return[mine].tolist()
        assert np.array_equal(lived.episode_returns, together.episode_returns[mine], equal_nan=True)


def test_ages_reach_the_rule() -> None:
    loss = {**parse_yaml(TINY)["method"]["loss"], "ages": True}
    method = method_of(method={"loss": loss})
    for result in one_round(method, 0):
        for gate in ("reset", "update", "new"):
            assert (result.arrays[f"gradient.gru.{gate}.weight"][5:] != 0).any(1).all()
    assert isinstance(method.loss, LpgLoss)
    task = tasks.make("cart-pole")
    seeds = LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 2)
    params = {n: t.expand(2, *t.shape).contiguous() for n, t in method.init().items()}
    moved = []
    for updates in (4, 400):
        agents = method.loss.agents(params, task, (8,), seeds, updates, 10)
        one = LifetimeSettings(updates=1, steps_per_update=10, final_episodes=1)
        seeds = LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 2)
        live(task, draw_mdps(task, seeds), agents, seeds, one)
        moved.append(agents.theta["prediction.1.bias"])
    assert not torch.equal(*moved)


def test_blind_agents_learn_the_same_whatever_is_paid() -> None:
    method = method_of(task="cart-pole")
    seeds = LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 2)
    agents: Any = method.blind(method.init(), seeds)
    seen = []
    whole = agents._learner.update

    def noted(eta: Any, theta: Any, moments: Any, rollout: Any, *more: Any, **other: Any) -> Any:
        seen.append(rollout)
        return whole(eta, theta, moments, rollout, *more, **other)

    object.__setattr__(agents._learner, "update", noted)
    live(method.task, draw_mdps(method.task, seeds), agents, seeds, method.config.lifetime)
    assert len(seen) == 12 and isinstance(agents, LpgAgents)
    for rollout in seen:
        assert not rollout.rewards.any() and not agents._learner.rule.ended(rollout).any()


def test_numbers_are_those_of_the_rows() -> None:
    """Of worlds that say them at once, and of others."""
    task = tasks.make("grid-sparse")
    seeds = LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 3)
    mdps = draw_mdps(task, seeds)

    def rngs() -> list[np.random.Generator]:
        return [np.random.default_rng(i) for i in range(3)]

    rows, numbers = task.batch(mdps, rngs()), Numbered(task).batch(mdps, rngs())
    padded = tasks.make([{"name": "grid-sparse", "scale": [0, 1]},
                         {"name": "cart-pole", "scale": [0, 1]}]).parts[0]  # type: ignore[attr-defined]  # fmt: skip
    slow = Numbered(padded).batch(mdps, rngs())
    seen = [first_step(batch.reset()) for batch in (rows, numbers, slow)]
    chance = np.random.default_rng(9)
    for _ in range(80):
        assert seen[0].observation.sum(1).tolist() == [1, 1, 1]
        assert torch.equal(seen[0].observation.argmax(1, keepdim=True), seen[1].observation.long())
        assert torch.equal(seen[1].observation, seen[2].observation)
        actions = torch.from_numpy(chance.integers(0, 5, 3))
        seen = [batch.step(actions) for batch in (rows, numbers, slow)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "hopper"}, "loss lpg: is for discrete actions"),
        ({"task": "cart-pole", "method": {"loss": {"name": "lpg", "agents": "tables"}}},
         "found tables for task cart-pole"),
        ({"method": {"inner_updates": 13}}, "updates: found 12; allowed: multiples of method"),
        ({"method": {"together": 4, "loss": {"name": "lpg", "units": 4096, "piece": 5}},
          "lifetime": {"updates": 12, "steps_per_update": 100_000},
          "learner": {"buffer": 100_000, "minibatch": 10}}, "a unit of 4 agents"),
        ({"method": {"loss": {"name": "lpg", "piece": 11}}},
         r"found pieces of 11 steps \(method.loss.piece\)"),
        ({"method": {"population": 7}}, "found 7 agents for 2 tasks"),
        ({"method": {"loss": "per_step"}}, "found loss per_step, which is no rule"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        method_of(**changes)
