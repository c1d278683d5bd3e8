"""Layouts of before: what they say means the same, in files and on command lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epg.config import load, validate
from epg.errors import UserError
from epg.evolution.optimizer import Adam, ClipUp
from epg.process.launcher import LAUNCH
from epg.settings import Schedule, Settings, parse_yaml
from epg.upgrade import is_old

Wrote = Callable[[str, str | bytes], Path]


def refusal(path: Path, *overrides: str, read: Callable[..., Any] = load) -> str:
    """The error's message: one line that starts with the file."""
    with pytest.raises(UserError) as caught:
        read(path, overrides)
    message = str(caught.value)
    assert "\n" not in message and "\r" not in message
    return message


OLD = """\
seed: 5
task: point-goal
reference: true
alpha: {start: 0.9, end: 0.1, generations: 10}
lifetime:
  updates: 3
  steps_per_update: 16
  buffer: 128
  minibatch: 8
  passes: 2
  learning_rate: 3e-3
  hidden: [8, 4]
  activation: relu
  memory: 4
  train_memory: false
  final_episodes: 2
  discount: 0.9
  gae_lambda: 0.8
evolution:
  generations: 40
  pairs: 6
  mdps_per_pair: 2
  task_draw: generation
  shaping: centered_rank
  start: residual
  evolve_policy_init: true
  sigma: {start: 0.1, end: 0.05, generations: 4}
  optimizer: adam
  learning_rate: 0.03
  beta1: 0.5
  beta2: 0.99
  momentum: 0.8
  max_speed: 0.3
  weight_decay: 0.01
validation: {every: 5, lifetimes: 8}
"""
NEW = """\
seed: 5
task: point-goal
steps: 40
method:
  name: epg
  alpha: {start: 0.9, end: 0.1, generations: 10}
  match_release: true
  pairs: 6
  mdps_per_pair: 2
  task_draw: generation
  shaping: centered_rank
  start: residual
  evolve_policy_init: true
  sigma: {start: 0.1, end: 0.05, generations: 4}
  optimizer: {name: adam, beta1: 0.5, beta2: 0.99}
  learning_rate: 0.03
  weight_decay: 0.01
agent: {hidden: [8, 4], activation: relu, memory: 4, train_memory: false}
lifetime: {updates: 3, steps_per_update: 16, final_episodes: 2}
learner:
  {buffer: 128, minibatch: 8, passes: 2, learning_rate: 3e-3, discount: 0.9, gae_lambda: 0.8}
validation: {every: 5, lifetimes: 8}
"""
PRESENT = {
    "reference": "method.match_release",
    "alpha": "method.alpha",
    **{f"lifetime.{key}": f"agent.{key}"
       for key in ("hidden", "activation", "memory", "train_memory")},
    **{f"lifetime.{key}": f"learner.{key}"
       for key in ("learning_rate", "buffer", "minibatch", "passes", "discount", "gae_lambda")},
    "evolution.generations": "steps",
    **{f"evolution.{key}": f"method.{key}"
       for key in ("pairs", "mdps_per_pair", "task_draw", "shaping", "start", "evolve_policy_init",
                   "sigma", "optimizer", "learning_rate", "weight_decay")},
    **{f"evolution.{key}": f"method.optimizer.{key}"
       for key in ("beta1", "beta2", "momentum", "max_speed")},
}  # fmt: skip
"""What each setting of the old layout is called now."""


def flat(group: Any, prefix: str = "") -> dict[str, Any]:
    """All settings, schedules as they are, by their keys."""
    found: dict[str, Any] = {}
    for name in type(group).model_fields:
        value = getattr(group, name)
        found[prefix + name] = value
        if isinstance(value, Settings) and not isinstance(value, Schedule):
            found |= flat(value, f"{prefix}{name}.")
    return found


def test_an_old_layout_gives_the_same_configuration(wrote: Wrote) -> None:
    old, new = load(wrote("old.yaml", OLD)), load(wrote("new.yaml", NEW))
    assert old == new and old.hash() == new.hash() and old.yaml() == new.yaml()
    assert validate(parse_yaml(OLD), "there") == new
    assert is_old(parse_yaml(OLD)) and not is_old(parse_yaml(NEW))


def test_each_old_key_comes_to_its_new_place(wrote: Wrote) -> None:
    """One at a time: nothing else changes."""
    usual = {optimizer: wrote_as(wrote, optimizer) for optimizer in ("adam", "clipup")}
    for key, place in PRESENT.items():
        optimizer = "clipup" if key.endswith(("momentum", "max_speed", "optimizer")) else "adam"
        data = parse_yaml(OLD.replace("optimizer: adam", f"optimizer: {optimizer}"))
        group, _, name = key.rpartition(".")
        value = data[group][name] if group else data[name]
        one: dict[str, Any] = {group: {name: value}} if group else {name: value}
        if name in ("momentum", "max_speed"):
            one[group]["optimizer"] = optimizer
        before = usual["adam" if name == "optimizer" else optimizer]
        found = flat(validate({"task": "point-goal", **one}, "here"))
        assert found[place] == flat(validate(data, "here"))[place] or name == "optimizer", key
        parts = place.split(".")
        groups = {".".join(parts[: i + 1]) for i in range(len(parts))}
        changed = {k for k in found if found[k] != before.get(k)}
        assert place in changed, key
        assert all(k in groups or k.startswith(f"{place}.") for k in changed), key


def wrote_as(wrote: Wrote, optimizer: str) -> dict[str, Any]:
    """All settings where nothing but an optimizer is chosen."""
    method = f"method: {{name: epg, optimizer: {optimizer}}}"
    return flat(load(wrote("usual.yaml", f"task: point-goal\n{method}\n")))


def test_an_optimizer_takes_its_own_settings_and_no_others(wrote: Wrote) -> None:
    """Old layouts had those of both, whichever was chosen."""
    assert load(wrote("a.yaml", OLD)).method.optimizer == Adam.Settings(
        name="adam", beta1=0.5, beta2=0.99
    )
    clipup = load(wrote("a.yaml", OLD.replace("optimizer: adam", "optimizer: clipup")))
    assert clipup.method.optimizer == ClipUp.Settings(name="clipup", momentum=0.8, max_speed=0.3)
    default = load(wrote("a.yaml", OLD.replace("  optimizer: adam\n", "")))
    assert default.method.optimizer == load(wrote("a.yaml", OLD)).method.optimizer


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ("alpha: 0.5\nmethod: {name: epg, alpha: 0.5}", "alpha", "method.alpha"),
        ("reference: true\nmethod: {name: epg, match_release: true}", "reference",
         "method.match_release"),
        ("evolution: {generations: 3}\nsteps: 3", "evolution.generations", "steps"),
        ("evolution: {pairs: 3}\nmethod: {name: epg, pairs: 4}", "evolution.pairs",
         "method.pairs"),
        ("evolution: {beta1: 0.5}\nmethod: {name: epg, optimizer: clipup}", "evolution.optimizer",
         "method.optimizer"),
        ("lifetime: {hidden: [4]}\nagent: {hidden: [4]}", "lifetime.hidden", "agent.hidden"),
        ("lifetime: {buffer: 64}\nlearner: {buffer: 64}", "lifetime.buffer", "learner.buffer"),
    ],
)  # fmt: skip
def test_a_key_in_both_layouts_is_refused(wrote: Wrote, text: str, old: str, new: str) -> None:
    path = wrote("a.yaml", f"task: point-goal\n{text}\n")
    assert refusal(path) == f"{path}: {old} is now called {new}, and both are given"
    with pytest.raises(UserError) as caught:
        validate(parse_yaml(path.read_text()), "there")
    assert str(caught.value) == f"there: {old} is now called {new}, and both are given"


def test_layouts_may_be_mixed(wrote: Wrote) -> None:
    path = wrote("a.yaml", "task: point-goal\nevolution: {pairs: 3}\nmethod: epg\nalpha: 0.5\n")
    method = load(path, ["method.alpha=0.25"]).method
    assert (method.pairs, method.alpha.start) == (3, 0.25)


@pytest.mark.parametrize("text", ["evolution: 3", "evolution: []", "alpha: 0.5\nmethod: 3"])
def test_an_old_layout_that_is_broken_is_refused(wrote: Wrote, text: str) -> None:
    path = wrote("a.yaml", f"task: point-goal\n{text}\n")
    assert refusal(path).startswith(f"{path}: ")
    assert "found" in refusal(path)


FRACTIONS = ("learning_rate", "discount", "gae_lambda", "beta1", "beta2", "momentum", "max_speed",
             "weight_decay")  # fmt: skip


@pytest.mark.parametrize("layout", [OLD, NEW])
def test_old_overrides_work_and_say_the_new_name_once(
    wrote: Wrote, layout: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = wrote("a.yaml", layout)
    values = {"optimizer": "adam", "shaping": "pair", "start": "random", "task_draw": "pair",
              "activation": "tanh", "hidden": "[3]", "evolve_policy_init": "false",
              "reference": "false", "train_memory": "true", "steps": "3", "sigma": "0.2",
              "alpha": "0.2", "buffer": "64", "minibatch": "4"}  # fmt: skip
    for old, new in PRESENT.items():
        name = old.rpartition(".")[2]
        value = values.get(name, "0.125" if "." in old and name in FRACTIONS else "3")
        first = ["method.optimizer=clipup"] if name in ("momentum", "max_speed") else []
        changed = load(path, [*first, f"{old}={value}"])
        assert capfd.readouterr() == ("", f"epg: {old} is now called {new}\n")
        assert changed == load(path, [*first, f"{new}={value}"]), old
        assert changed != load(path, first) or name == "optimizer", old
        assert capfd.readouterr() == ("", "")


def test_old_overrides_reach_what_the_file_leaves_out(wrote: Wrote) -> None:
    path = wrote("a.yaml", "task: point-goal\n")
    config = load(path, ["evolution.pairs=7", "evolution.beta1=0.5", "alpha=0.5", "reference=true"])
    assert (config.method.pairs, config.method.alpha.start) == (7, 0.5)
    assert config.method.optimizer == Adam.Settings(name="adam", beta1=0.5)
    assert config.method.match_release


@pytest.mark.parametrize(
    "environment", [{"PMI_RANK": "1", "PMI_SIZE": "2"}, {LAUNCH: "another process has said it"}]
)
def test_of_all_ranks_one_says_the_new_name(
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    environment: dict[str, str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert load(tiny, ["evolution.generations=9"]).steps == 9
    assert capfd.readouterr() == ("", "")
