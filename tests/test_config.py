"""Settings: what they accept, what they refuse and in which words, and their hash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from epg.config import Config, Schedule, load
from epg.errors import UserError

Wrote = Callable[[str, str | bytes], Path]


def refusal(path: Path, *overrides: str) -> str:
    """The error's message: one line that starts with the file."""
    with pytest.raises(UserError) as caught:
        load(path, overrides)
    message = str(caught.value)
    assert "\n" not in message and "\r" not in message
    return message


def test_numbers_are_what_people_write(wrote: Wrote) -> None:
    path = wrote("a.yaml", "task: point-goal\nevolution: {sigma: 1e-3, weight_decay: 5E-3}\n")
    config = load(path, ["lifetime.learning_rate=.5e-2", "seed=7"])
    assert config.evolution.sigma.start == 1e-3
    assert config.evolution.weight_decay == 5e-3
    assert config.lifetime.learning_rate == 5e-3
    assert config.seed == 7


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lifetime: {updates: 2}\nlifetime: {updates: 3}", ["line 3", "'lifetime'", "twice"]),
        ("evolution:\n  pairs: 2\n  pairs: 3", ["line 4", "'pairs'", "twice"]),
        ("evoluton: {}", ["'evoluton'", "did you mean 'evolution'", "allowed here: seed"]),
        ("lifetime: {update: 3}", ["'lifetime.update'", "did you mean 'updates'", "memory"]),
        ("alpha: {begin: 1, end: 0, generations: 2}", ["'alpha.begin'", "start, end"]),
        ("alpha: {start: 1}", ["'alpha.end'", "missing"]),
        ("alpha: 1.5", ["alpha", "[0, 1]", "1.5"]),
        ("alpha: {start: 1, end: 0, generations: 0}", ["alpha.generations", "0"]),
        ("seed: two", ["seed", "integer", "'two'"]),
        ("seed: 1.0", ["seed", "integer", "1.0"]),
        ("seed: -1", ["seed", "0", "-1"]),
        ("reference: 1", ["reference", "boolean", "1"]),
        ("device: tpu", ["device", "cpu, cuda", "'tpu'"]),
        ("lifetime: {minibatch: 24}", ["lifetime", "steps_per_update (64)", "minibatch (24)"]),
        ("lifetime: {buffer: 20}", ["lifetime.buffer", "21", "20"]),
        ("lifetime: {buffer: 32}", ["lifetime", "buffer (32)", "steps_per_update (64)"]),
        ("lifetime: {hidden: []}", ["lifetime.hidden", "[]"]),
        ("lifetime: {hidden: [8, 0]}", ["lifetime.hidden.1", "greater than 0", "0"]),
        ("lifetime: {learning_rate: .nan}", ["lifetime.learning_rate", "nan"]),
        ("lifetime: {discount: 1.01}", ["lifetime.discount", "1", "1.01"]),
        ("lifetime: 3", ["lifetime", "3"]),
        ("evolution: {pairs: -4}", ["evolution.pairs", "greater than 0", "-4"]),
        ("evolution: {generations: 0}", ["evolution.generations", "greater than 0", "0"]),
        ("evolution: {sigma: .inf}", ["evolution.sigma.start", "finite", "inf"]),
        ("evolution: {sigma: 0}", ["evolution", "sigma", "above 0"]),
        ("evolution: {sigma: 1" + "0" * 400 + "}", ["evolution.sigma"]),
        ("evolution: {optimizer: sgd}", ["evolution.optimizer", "'adam' or 'clipup'", "'sgd'"]),
        ("evolution: {shaping: centered_rank}", ["evolution", "task_draw generation", "pair"]),
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
    assert refusal(tmp_path / "none.yaml") == f"{tmp_path / 'none.yaml'}: No such file or directory"
    assert refusal(tmp_path) == f"{tmp_path}: Is a directory"


def test_an_unknown_task_is_told_with_all_that_there_are(wrote: Wrote) -> None:
    message = refusal(wrote("a.yaml", "task: hoper\n"))
    assert all(name in message for name in ("'hoper'", "dir-hopper", "random-cart-pole"))


def test_overrides_change_what_the_file_says(tiny: Path) -> None:
    config = load(tiny, ["evolution.pairs=7", "alpha=0.25", "lifetime.hidden=[3, 4]", "log={}"])
    assert config.evolution.pairs == 7 and config.evolution.generations == 3
    assert config.alpha == Schedule(start=0.25, end=0.25, generations=1)
    assert config.lifetime.hidden == (3, 4)
    assert load(tiny, ["alpha.end=0.1"]).alpha.end == 0.1


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("evolution.pairs", "expected key.sub=value"),
        ("=3", "expected key.sub=value"),
        ("evolution.pair=3", "did you mean 'pairs'"),
        ("evolution.pairs.x=3", "evolution.pairs"),
        ("a..b=3", "'a'"),
        ("task=", "task"),
        ("seed=[1", "override 'seed=[1'"),
        ("seed=1e400", "seed"),
    ],
)
def test_a_bad_override_is_named(tiny: Path, override: str, told: str) -> None:
    assert told in refusal(tiny, override)


def test_a_schedule_goes_straight_and_then_stays() -> None:
    schedule = Schedule(start=1.0, end=0.5, generations=4)
    assert [schedule.at(g) for g in (0, 1, 2, 4, 9)] == [1.0, 0.875, 0.75, 0.5, 0.5]
    assert [Schedule.model_validate(0.3).at(g) for g in (0, 7)] == [0.3, 0.3]


@pytest.mark.parametrize(
    "override",
    [
        "seed=1", "task=cart-pole", "threads=2", "reference=true", "alpha=0.5",
        "lifetime.updates=3", "lifetime.hidden=[9]", "lifetime.passes=2",
        "lifetime.final_episodes=2", "evolution.pairs=5", "evolution.sigma=0.1",
        "evolution.start=residual", "evolution.optimizer=clipup", "evolution.weight_decay=0.1",
        "evolution.evolve_policy_init=true", "start_from=abc",
    ],
)  # fmt: skip
def test_the_hash_covers_what_changes_phi(tiny: Path, override: str) -> None:
    assert load(tiny, [override]).hash() != load(tiny).hash()


@pytest.mark.parametrize(
    "override",
    [
        "evolution.generations=9", "validation.every=5", "validation.lifetimes=4", "farm.chunk=1",
        "log.checkpoints=9", "evolution.sigma=5e-2",
    ],
)  # fmt: skip
def test_the_hash_covers_nothing_else(tiny: Path, override: str) -> None:
    assert load(tiny, [override]).hash() == load(tiny).hash()


def test_what_is_written_reads_back_the_same(tiny: Path, wrote: Wrote) -> None:
    config = load(tiny, ["evolution.sigma={start: 0.1, end: 1e-5, generations: 3}"])
    again = load(wrote("b.yaml", config.yaml()))
    assert again == config and again.hash() == config.hash() and again.yaml() == config.yaml()


def test_every_key_says_what_it_is() -> None:
    for group in (Config, *(f.annotation for f in Config.model_fields.values())):
        for name, field in getattr(group, "model_fields", {}).items():
            assert field.description or name in (
                "lifetime",
                "evolution",
                "validation",
                "farm",
                "log",
            )
