"""Settings: what they accept, what they refuse and in which words, and their hash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epg.config import Config, load
from epg.errors import UserError
from epg.evolution.optimizer import Adam, ClipUp
from epg.methods.epg import Epg
from epg.process import shipped
from epg.settings import Named, Schedule, parse_yaml
from epg.training.loop import check
from epg.upgrade import is_old

Wrote = Callable[[str, str | bytes], Path]


def refusal(path: str | Path, *overrides: str, read: Callable[..., Any] = load) -> str:
    """The error's message: one line that starts with the file."""
    with pytest.raises(UserError) as caught:
        read(path, overrides)
    message = str(caught.value)
    assert "\n" not in message and "\r" not in message
    return message


def test_numbers_are_what_people_write(wrote: Wrote) -> None:
    method = "method: {name: epg, sigma: 1e-3, weight_decay: 5E-3}"
    path = wrote("a.yaml", f"task: point-goal\n{method}\n")
    config = load(path, ["learner.learning_rate=.5e-2", "seed=7"])
    assert config.method.sigma.start == 1e-3
    assert config.method.weight_decay == 5e-3
    assert config.learner.learning_rate == 5e-3
    assert config.seed == 7


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lifetime: {updates: 2}\nlifetime: {updates: 3}", ["line 3", "'lifetime'", "twice"]),
        ("method:\n  pairs: 2\n  pairs: 3", ["line 4", "'pairs'", "twice"]),
        ("methd: {}", ["'methd'", "did you mean 'method'", "allowed here: seed"]),
        (
            "lifetime: {update: 3}",
            ["'lifetime.update'", "did you mean 'updates'", "steps"],
        ),
        ("agent: {hiden: [3]}", ["'agent.hiden'", "did you mean 'hidden'", "memory"]),
        ("learner: {bufer: 3}", ["'learner.bufer'", "did you mean 'buffer'", "passes"]),
        ("method: {name: epg, pair: 3}", ["'method.pair'", "did you mean 'pairs'", "allowed here"]),
        (
            "method: {name: epg, alpha: {begin: 1, end: 0, generations: 2}}",
            ["unknown key 'method.alpha.begin'", "start, end"],
        ),
        ("method: {name: epg, alpha: {start: 1}}", ["key 'method.alpha.end' is missing"]),
        ("method: {name: epg, alpha: 1.5}", ["method.alpha", "[0, 1]", "1.5"]),
        (
            "method: {name: epg, alpha: {start: 1, end: 0, generations: 0}}",
            ["method.alpha.generations", "0"],
        ),
        ("seed: two", ["seed", "integer", "'two'"]),
        ("seed: 1.0", ["seed", "integer", "1.0"]),
        ("seed: -1", ["seed", "0", "-1"]),
        ("method: {name: epg, match_release: 1}", ["method.match_release", "boolean", "1"]),
        ("device: tpu", ["device", "cpu, cuda", "'tpu'"]),
        ("learner: {minibatch: 24}", ["lifetime.steps_per_update (64)", "learner.minibatch (24)"]),
        ("learner: {buffer: 32}", ["learner.buffer (32)", "lifetime.steps_per_update (64)"]),
        ("agent: {hidden: []}", ["agent.hidden", "[]"]),
        ("agent: {hidden: [8, 0]}", ["agent.hidden.1", "greater than 0", "0"]),
        ("learner: {learning_rate: .nan}", ["learner.learning_rate", "nan"]),
        ("learner: {discount: 1.01}", ["learner.discount", "1", "1.01"]),
        ("lifetime: 3", ["lifetime", "3"]),
        ("method: {name: epg, pairs: -4}", ["method.pairs", "greater than 0", "-4"]),
        ("steps: 0", ["steps", "greater than 0", "0"]),
        ("method: {name: epg, sigma: .inf}", ["method.sigma.start", "finite", "inf"]),
        ("method: {name: epg, sigma: 0}", ["method", "sigma", "above 0"]),
        ("method: {name: epg, sigma: 1" + "0" * 400 + "}", ["method.sigma"]),
        ("method: 3", ["method: found 3", "allowed: NAME or {name: NAME"]),
        ("method: egp", ["method: unknown name 'egp'", "did you mean epg", "module:Class"]),
        ("method: 'nix:Nix'", ["method nix:Nix: no module 'nix'"]),
        (
            "method: {name: epg, optimizer: sgd}",
            ["method.optimizer: unknown name 'sgd'", "allowed: adam, clipup, module:Class"],
        ),
        (
            "method: {name: epg, optimizer: {name: adam, momentum: 0.5}}",
            ["unknown key 'method.optimizer.momentum'", "allowed here: name, beta1, beta2"],
        ),
        (
            "method: {name: epg, optimizer: {name: adam, beta1: 1}}",
            ["method.optimizer.beta1", "less than 1", "1"],
        ),
        ("method: {name: epg, loss: conv}", ["method.loss: unknown name 'conv'", "temporal_conv"]),
        ("method: {name: epg, shaping: rank}", ["method.shaping: unknown name 'rank'", "pair"]),
        ("validation: {lifetimes: 0}", ["validation.lifetimes", "greater than 0", "0"]),
        ("farm: {chunk: 0}", ["farm.chunk", "greater than 0", "0"]),
        ("3: 4", ["line 2", "3", "not a name"]),
        ("[a, b]: 4", ["line 2", "not a name"]),
        ("seed: {1: 2}", ["line 2", "1", "not a name"]),
        ("seed: [1, 2", ["line", "broken YAML"]),
        ("seed: !!python/object:os.system x", ["line 2", "broken YAML"]),
        ("\tseed: 1", ["line 2", "broken YAML"]),
    ],
)
def test_a_mistake_is_named(wrote: Wrote, text: str, told: list[str]) -> None:
    path = wrote("a.yaml", "task: point-goal\n" + text + "\n")
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    for words in told:
        assert words in message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "learner: {buffer: 20, minibatch: 16}\nlifetime: {steps_per_update: 16}",
            ["learner.buffer", "21", "20"],
        ),
        (
            "method: {name: epg, shaping: centered_rank}",
            ["method.shaping centered_rank", "task_draw generation", "pair"],
        ),
    ],
)
def test_what_a_method_cannot_do_is_named(wrote: Wrote, text: str, told: list[str]) -> None:
    """Before any rank starts."""
    path = wrote("a.yaml", "task: point-goal\n" + text + "\n")
    message = refusal(path, read=check)
    for words in told:
        assert words in message


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("seed: 1\n", "'task' is missing"),
        ("tsk: point-goal\n", "did you mean 'task'"),
        ("- task\n", "found list"),
        ("point-goal\n", "found str"),
        ("task: pointgoal\n", "did you mean point-goal"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "not a text file"),
        (b"task: \x00\x01", "broken YAML"),
        (b"[" * 3000, "broken YAML"),
    ],
)
def test_a_file_that_is_no_configuration(wrote: Wrote, content: str | bytes, told: str) -> None:
    path = wrote("a.yaml", content)
    message = refusal(path)
    assert message.startswith(f"{path}: ") and told in message


def test_no_file_at_all(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.yaml").startswith(
        f"{tmp_path / 'none.yaml'}: no such configuration file; these come with epg: "
    )
    assert refusal(tmp_path) == f"{tmp_path}: Is a directory"


def test_a_name_stands_for_what_comes_with_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless a file or folder is called so."""
    monkeypatch.chdir(tmp_path)
    here = shipped.named("configuration")
    assert "quickstart" in here
    for name, path in here.items():
        assert load(name, ["seed=3"]) == load(path, ["seed=3"])
    Path("quickstart").write_text("task: acrobot")
    Path("random-hopper").mkdir()
    assert load("quickstart").task == "acrobot"
    assert refusal(Path("random-hopper")) == "random-hopper: Is a directory"
    for name in ("quikstart", "configs/quickstart.yaml", "", "x" * 300):
        assert refusal(name).endswith(
            f"no such configuration file; these come with epg: {', '.join(here)}"
        )


def test_an_unknown_task_is_told_with_all_that_there_are(wrote: Wrote) -> None:
    message = refusal(wrote("a.yaml", "task: hoper\n"))
    assert all(name in message for name in ("'hoper'", "dir-hopper", "random-cart-pole"))


def test_overrides_change_what_the_file_says(tiny: Path) -> None:
    overrides = ["method.pairs=7", "method.alpha=0.25", "agent.hidden=[3, 4]", "log={}"]
    config = load(tiny, overrides)
    assert config.method.pairs == 7 and config.steps == 3
    assert config.method.alpha == Schedule(start=0.25, end=0.25, generations=1)
    assert config.agent.hidden == (3, 4)
    assert load(tiny, ["method.alpha.end=0.1"]).method.alpha.end == 0.1


def test_overrides_reach_what_the_file_leaves_out(wrote: Wrote) -> None:
    path = wrote("a.yaml", "task: point-goal\n")
    overrides = ["method.pairs=7", "method.optimizer.beta1=0.5", "learner.buffer=128"]
    config = load(path, overrides)
    assert (config.method.name, config.method.pairs) == ("epg", 7)
    assert config.method.optimizer == Adam.Settings(name="adam", beta1=0.5)
    assert config.learner.buffer == 128
    chosen = load(path, ["method.optimizer=clipup", "method.optimizer.momentum=0.5"])
    assert chosen.method.optimizer == ClipUp.Settings(name="clipup", momentum=0.5)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("method.pairs", "expected key.sub=value"),
        ("=3", "expected key.sub=value"),
        ("method.pair=3", "did you mean 'pairs'"),
        ("method.pairs.x=3", "method.pairs"),
        ("method.loss.x=3", "unknown key 'method.loss.x'"),
        ("a..b=3", "'a'"),
        ("task=", "task"),
        ("seed=[1", "override 'seed=[1'"),
        ("seed=1e400", "seed"),
        ("threads=2147483648", "threads: input should be less"),
        (f"method.pairs={2**63}", "method.pairs: input should be less"),
        ("agent.memory=9999999999", "agent.memory: input should be less"),
        ("agent.hidden=[8,99999999999]", "agent.hidden.1: input should be less"),
        ("method.sigma=" + 400 * "9", "method.sigma.start: input should be a valid number"),
        ("method.sigma=" + 5000 * "9", "override 'method.sigma=99999"),
    ],
)
def test_a_bad_override_is_named(tiny: Path, override: str, told: str) -> None:
    message = refusal(tiny, override)
    assert told in message and len(message) < 400


def test_a_schedule_goes_straight_and_then_stays() -> None:
    schedule = Schedule(start=1.0, end=0.5, generations=4)
    assert [schedule.at(g) for g in (0, 1, 2, 4, 9)] == [1.0, 0.875, 0.75, 0.5, 0.5]
    assert [Schedule.model_validate(0.3).at(g) for g in (0, 7)] == [0.3, 0.3]


@pytest.mark.parametrize(
    "override",
    [
        "seed=1", "task=cart-pole", "threads=2", "method.match_release=true", "method.alpha=0.5",
        "lifetime.updates=3", "agent.hidden=[9]", "learner.passes=2",
        "lifetime.final_episodes=2", "method.pairs=5", "method.sigma=0.1",
        "method.start=residual", "method.optimizer=clipup", "method.optimizer.beta1=0.5",
        "method.weight_decay=0.1", "method.evolve_policy_init=true", "method.fade=8", "method=ppo",
        "start_from=abc",
    ],
)  # fmt: skip
def test_the_hash_covers_what_changes_phi(tiny: Path, override: str) -> None:
    assert load(tiny, [override]).hash() != load(tiny).hash()


@pytest.mark.parametrize(
    "override",
    [
        "steps=9", "validation.every=5", "validation.lifetimes=4", "farm.chunk=1",
        "log.checkpoints=9", "method.sigma=5e-2",
    ],
)  # fmt: skip
def test_the_hash_covers_nothing_else(tiny: Path, override: str) -> None:
    assert load(tiny, [override]).hash() == load(tiny).hash()


def test_what_is_written_reads_back_the_same(tiny: Path, wrote: Wrote) -> None:
    config = load(tiny, ["method.sigma={start: 0.1, end: 1e-5, generations: 3}"])
    again = load(wrote("b.yaml", config.yaml()))
    assert again == config and again.hash() == config.hash() and again.yaml() == config.yaml()
    assert not is_old(parse_yaml(config.yaml()))


def test_every_key_says_what_it_is() -> None:
    groups = ("agent", "lifetime", "learner", "validation", "farm", "log")
    of_config = (f.annotation for f in Config.model_fields.values())
    for group in (Config, *of_config, Epg.Settings, Adam.Settings, ClipUp.Settings, Named):
        for name, field in getattr(group, "model_fields", {}).items():
            assert field.description or name in groups


def test_a_setting_is_changed_in_whichever_group_it_is(tiny: Path) -> None:
    setup = load(tiny).setup
    changed = setup.change(hidden=[3], updates=5, passes=2)
    assert (changed.agent.hidden, changed.lifetime.updates, changed.learner.passes) == ((3,), 5, 2)
    assert changed.agent.memory == setup.agent.memory == changed.get("memory") == 4
    with pytest.raises(UserError, match=r"unknown settings \['pairs'\]; allowed: .*'passes'"):
        setup.change(pairs=3)
    with pytest.raises(UserError, match=r"learner\.minibatch \(24\) must divide"):
        setup.change(minibatch=24)


@pytest.mark.parametrize(
    "overrides",
    [
        ("evolution.momentum=0.5", "evolution.optimizer=clipup"),
        ("evolution.optimizer=clipup", "evolution.momentum=0.5"),
        ("method.optimizer.momentum=0.5", "method.optimizer=clipup", "method=epg"),
    ],
)
def test_overrides_come_to_the_same_in_any_order(tiny: Path, overrides: tuple[str, ...]) -> None:
    optimizer = load(tiny, overrides).method.model_dump()["optimizer"]
    assert optimizer == {"name": "clipup", "momentum": 0.5, "max_speed": None}


def test_a_later_setting_at_its_usual_value_leaves_the_hash_as_it_was() -> None:
    """Runs that were begun before it can be gone on with."""
    masked = Path(__file__).parents[1] / "configs" / "masked-cart-pole.yaml"
    as_then = [
        "seed=1", "lifetime.steps_per_update=128", "learner.buffer=128",
        "method.lengths=[8, 16, 32, 32]", "method.fade=null", "learner.schedule=constant",
    ]  # fmt: skip
    before = "daacc12d38ccd28a"  # of a run that was begun before there was a clip or a fade
    assert load(masked, as_then).hash() == before
    assert load(masked, [*as_then, "learner.clip=0.3"]).hash() != before
    assert load(masked, [*as_then, "method.fade=4"]).hash() != before
