"""Policies that never learn, and PPO that begins with them, beside what was learned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from epg.config import load
from epg.errors import UserError
from epg.evaluation.evaluate import evaluate
from epg.evaluation.policies import load_policy, policy_file
from epg.evaluation.protocol import SavedFiles, plan
from epg.evaluation.scores import Sample
from epg.evaluation.verdict import answers
from epg.lifetime import live
from epg.methods.fixed_policy import FixedPolicy
from epg.seeds import LifetimeSeeds, Purpose
from epg.tasks import make
from epg.tasks.base import draw_mdps
from epg.training.policies import evolve_policies

pytestmark = pytest.mark.xdist_group("policies")  # one of them is evolved for all
TASK: dict[str, Any] = {"name": "random-cart-pole", "force": [9, 11]}
LABEL = "random-cart-pole(force=9..11)"
AS_SETTING = "task={name: random-cart-pole, force: [9, 11]}"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("policies")


@pytest.fixture
def policy(cache: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The policy of a family, evolved once."""
    monkeypatch.setenv("EPG_CACHE", str(cache))
    path = policy_file(LABEL)
    if not path.exists():
        assert evolve_policies(load(tiny, [AS_SETTING]), steps=100_000) == [path]
    return path


def lived(agents_of: Callable[[LifetimeSeeds], Any], updates: int = 4) -> Any:
    task, seeds = make(TASK), LifetimeSeeds.of(3, Purpose.EVALUATION, 0, 6)
    setup = load_policy(LABEL)[0].config.setup.change(
        updates=updates, steps_per_update=64, buffer=64
    )
    return live(task, draw_mdps(task, seeds), agents_of(seeds), seeds, setup.lifetime)


def test_the_better_of_two_is_kept_and_solves_the_family(policy: Path) -> None:
    saved, _ = load_policy(LABEL)
    assert saved.config.method.name == "fixed-policy" and saved.tasks == (LABEL,)
    runs = sorted(policy.with_suffix("").iterdir())
    assert [run.name.partition("-")[0] for run in runs] == ["linear", "mlp"]
    assert policy.read_bytes() in {(run / "best.safetensors").read_bytes() for run in runs}
    final = lived(lambda seeds: saved.agents(make(TASK), seeds)).final_return
    assert final.mean() > 70  # of 200; random ones have 30


def test_the_same_again_lives_nothing_and_on_ranks_it_is_the_same(
    policy: Path, tiny: Path, tmp_path: Path, epg: Callable[..., Any]
) -> None:
    before = policy.read_bytes()
    rows = [(run / "metrics.csv").read_text() for run in policy.with_suffix("").iterdir()]
    evolve_policies(load(tiny, [AS_SETTING]), steps=100_000)
    assert policy.read_bytes() == before
    assert rows == [(r / "metrics.csv").read_text() for r in policy.with_suffix("").iterdir()]
    evolve = ("tune", tiny, "--methods", "fixed-policy", "--steps", 1)
    places = [tmp_path / "ranks", tmp_path / "alone"]
    for place, ranks in zip(places, (("--ranks", 2), ()), strict=True):
        own = {"EPG_CACHE": str(place)}
        said = epg(*evolve, *ranks, folder=tmp_path, environment=own)
        assert said.code == 0, said
        assert "point-goal: fixed-policy, " in said.out and "10 generations" in said.out
    files = [place / "policies" / "point-goal.safetensors" for place in places]
    ours, theirs = map(load_file, files)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_on_ranks_a_mistake_of_the_master_ends_all(
    tiny: Path, tmp_path: Path, epg: Callable[..., Any]
) -> None:
    """And the workers wait for no other evolution."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "point-goal").write_text("in the way")
    said = epg("tune", tiny, "--methods", "fixed-policy", "--steps", 1, "--ranks", 2,
               folder=tmp_path, environment={"EPG_CACHE": str(tmp_path)})  # fmt: skip
    assert said.code == 2 and "point-goal" in said.err and "Traceback" not in said.err, said


def test_it_acts_as_it_evolved_whatever_agents_stand_beside(policy: Path, tmp_path: Path) -> None:
    returns = []
    for activation in ("tanh", "relu"):
        found = evaluate("shared-skill", TASK, lifetimes=4, updates=1, activation=activation,
                         methods=("fixed-policy",), out=tmp_path / activation)  # fmt: skip
        assert found is not None
        returns.append(found.tasks[0].scores[-1].returns.tolist())
    assert returns[0] == returns[1]


@pytest.mark.soak
def test_the_best_of_all_that_were_evolved_is_kept(policy: Path, tiny: Path) -> None:
    evolve_policies(load(tiny, [AS_SETTING, "seed=1"]), steps=1)
    runs = list(policy.with_suffix("").iterdir())
    values = {run: json.loads((run / "DONE").read_text())["best_validation"] for run in runs}
    best = max(values.values())
    kept = [run for run in runs if (run / "best.safetensors").read_bytes() == policy.read_bytes()]
    assert len(runs) == 4 and [values[run] for run in kept] == [best]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--methods", ""), "--methods: found none"),
        (("--methods", "ppo", "--steps", "5"), "--steps: is for fixed-policy alone"),
        (("--methods", "fixed-policy", "--again"), "--again: is for settings"),
        (("--methods", "fixed-policy", "--steps", "1" + "0" * 21), "--steps"),
    ],
)
def test_options_that_have_no_meaning_are_refused(
    tiny: Path, tmp_path: Path, epg: Callable[..., Any], arguments: tuple[str, ...], said: str
) -> None:
    found = epg("tune", tiny, *arguments, folder=tmp_path)
    assert found.code == 2 and found.out == "" and found.err.count("\n") == 1
    assert said in found.err


def test_pretrained_agents_begin_as_the_policy_and_learn(policy: Path) -> None:
    saved, _ = load_policy(LABEL)
    setup = saved.config.setup.change(
        updates=4, steps_per_update=64, buffer=64, minibatch=16, learning_rate=3e-3
    )
    method = saved.method(make(TASK), saved.config.with_setup(setup))
    assert isinstance(method, FixedPolicy)
    kept: list[Any] = []

    def pretrained(seeds: LifetimeSeeds) -> Any:
        kept.append(method.pretrained(saved.params, setup, seeds))
        return kept[-1]

    lived(pretrained)
    seeds = LifetimeSeeds.of(3, Purpose.EVALUATION, 0, 6)
    first: Any = method.pretrained(saved.params, setup, seeds)
    fixed: Any = method.agents(saved.params, seeds)
    seen = torch.randn(6, 5, 4)
    means = [agents.networks.outputs(seen)[..., 0] for agents in (first, fixed)]
    assert torch.equal(*means)
    before, after = first.networks.parameters, kept[0].networks.parameters
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if not name.startswith("memory.")}
    for name, tensor in saved.params.items():
        assert (before[name] == (0 if name == "policy.log_std" else tensor)).all()


def test_they_stand_beside_a_loss_once_the_policy_is_known(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SavedFiles(["shared-skill"])
    usual = ("ppo", "random", "blind")
    assert plan(files, [TASK], methods=None, lifetimes=2).methods == (
        *usual, "fixed-policy", "pretrained",
    )  # fmt: skip
    assert plan(SavedFiles([policy]), [TASK], methods=None, lifetimes=2).methods == (
        "ppo", "random", "fixed-policy", "pretrained",
    )  # fmt: skip
    found = evaluate("shared-skill", TASK, lifetimes=4, updates=2, out=tmp_path / "out")
    assert found is not None
    scores = {score.entry.method: score for score in found.tasks[0].scores}
    assert {s.result.episode_returns.shape for s in scores.values()} == {(4, 2)}
    assert {s.entry.setup.lifetime.steps for s in scores.values()} == {128}
    assert "more than a policy that never learns: no" in found.table()
    settings = found.protocol.tuned[LABEL]
    assert settings["pretrained"] == settings["ppo"]
    assert "begins with fixed-policy" in scores["pretrained"].entry.about
    # another policy is another evaluation
    policy_file(LABEL).rename(tmp_path / "aside")
    assert plan(files, [TASK], methods=None, lifetimes=2).methods == usual
    with pytest.raises(UserError, match=r"fixed-policy: none is known for random-cart-pole\("):
        evaluate("shared-skill", TASK, methods=("pretrained",), lifetimes=4, out=tmp_path / "new")
    (tmp_path / "aside").rename(policy_file(LABEL))
    # of some families one comes with the package
    comes = plan(files, ["random-cart-pole"], methods=None, lifetimes=2)
    assert comes.methods == (*usual, "fixed-policy", "pretrained")


@pytest.mark.parametrize(
    ("by", "said"), [(30.0, "yes"), (-30.0, "no"), (0.0, "not shown")], ids=["yes", "no", "open"]
)
def test_more_than_a_policy_is_by_the_interval_of_the_difference(by: float, said: str) -> None:
    fixed = np.random.default_rng(0).normal(100, 5, (32, 1))
    samples = {"fixed-policy": fixed, "learned loss": fixed + by}
    [line] = answers({n: Sample(f, f, 0) for n, f in samples.items()}, ["learned loss"])
    assert f"learned loss: more than a policy that never learns: {said} (" in line
