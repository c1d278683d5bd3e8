"""What is known of tuned PPO: kept, found again, and used as the scale of a mixture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from epg.config import load
from epg.errors import UserError
from epg.evaluation.entry import EntryRunner
from epg.evaluation.protocol import tuned_for
from epg.evaluation.search import COARSE
from epg.evaluation.tune import FRESH, tunable, tune
from epg.evaluation.tuned import about, finalists_of, keep, tuned, with_scales
from epg.evaluation.tuned import kept as kept_file
from epg.farm.work import Result, Shared, Unit

BOTH = ("ppo", "reinforce")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a user who has tuned nothing yet; and a small grid."""
    for name, values in (
        ("steps_per_update", (0.5, 1)), ("learning_rate", (1e-3, 1e-2)), ("passes", (1, 3)),
    ):  # fmt: skip
        monkeypatch.setitem(COARSE, name, values)
    monkeypatch.setenv("EPG_CACHE", str(tmp_path / "cache"))
    return kept_file()


def test_what_was_tuned_for_each_task_of_a_mixture_becomes_its_scale(
    kept: Path, tiny: Path, tmp_path: Path
) -> None:
    narrow = "{name: point-goal, angle: [0, 1]}"
    mixture = [f"task=[point-goal, {narrow}]"]
    config = load(tiny, mixture)
    with pytest.raises(UserError, match="task point-goal: in a mixture it needs `scale"):
        with_scales(config)
    found = tune(config, lifetimes=4, methods=BOTH)
    known = yaml.safe_load(kept.read_text())
    assert list(known) == ["point-goal", "point-goal(angle=0..1)"]
    assert [entry for entries in known.values() for entry in entries] == found
    assert [entry["method"] for entry in found] == ["ppo", "reinforce"] * 2
    ppos = [entry for entry in found if entry["method"] == "ppo"]
    for entry in found:
        assert entry["updates"] * entry["steps_per_update"] == 64
        assert entry["hidden"] == [8] and entry["activation"] == "tanh"
    for entry in ppos:
        assert entry["random_return"] < entry["final_return"]
    for entry in found:
        few = 8 if entry["method"] == "ppo" else 4  # and what is next to the best of them
        assert entry["settings"] > few and entry["lifetimes"] == 4 and entry["fresh"] == 8
        lives = 4 * entry["settings"] + 5 * entry["fresh"]  # of the finalists
        if entry["method"] == "ppo":
            lives += 4 + entry["fresh"]  # and those that never learn
        horizon = 50
        assert 64 * lives < entry["grid_steps"] <= (64 + horizon) * lives
        assert len(entry["finalists"]) == 5
        assert {name: entry[name] for name in entry["finalists"][0]} == entry["finalists"][0]
    scaled = with_scales(config)
    scales = [[e["random_return"], e["final_return"]] for e in ppos]
    assert scaled.task == [
        {"name": "point-goal", "scale": scales[0]},
        {"name": "point-goal", "angle": [0, 1], "scale": scales[1]},
    ]
    assert with_scales(scaled) == scaled and scaled.hash() != config.hash()
    with pytest.raises(UserError, match="not known for 3 updates every 32 steps"):
        with_scales(load(tiny, [*mixture, "lifetime.updates=3"]))
    for method, entry in zip(("ppo", "reinforce"), found, strict=False):
        setup, exact, source = tuned(method, "point-goal", config.setup)
        assert exact and setup.learner.learning_rate == entry["learning_rate"]
        assert source.startswith("tuned: best of ")
        learner = setup.learner
        assert setup.lifetime.steps_per_update == entry["steps_per_update"]
        if method == "ppo":
            assert (learner.minibatch, learner.passes) == (entry["minibatch"], entry["passes"])
            assert learner.clip == entry["clip"] and learner.discount == entry["discount"]
        nearest, exact, _ = tuned(method, "point-goal", config.setup.change(updates=3, hidden=(9,)))
        assert not exact and nearest.learner.learning_rate == entry["learning_rate"]
    assert not list(kept.parent.glob("tuning-*"))


def test_a_scale_that_would_be_none_is_told_with_what_was_measured(kept: Path, tiny: Path) -> None:
    config = load(tiny, ["task=[mountain-car]"])
    [entry] = tune(config, lifetimes=2, methods=["ppo"])
    assert entry["random_return"] == entry["final_return"] == -200.0
    with pytest.raises(UserError, match=r"tuned PPO comes to -200.0, .* raise lifetime.updates"):
        with_scales(config)


def test_a_life_of_any_length_is_divided_somehow(kept: Path, tiny: Path) -> None:
    config = load(tiny, ["lifetime.steps_per_update=15", "learner.minibatch=5"])
    for entry in tune(config, lifetimes=2, methods=BOTH):
        assert entry["updates"] * entry["steps_per_update"] == 30
        assert entry["steps_per_update"] in (15, 30)
        assert entry["steps_per_update"] % entry.get("minibatch", 1) == 0


def test_a_tuning_that_was_interrupted_goes_on(
    kept: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load(tiny)
    run, done = EntryRunner.run, list[Unit]()

    def stop_at_the_tenth(self: EntryRunner, shared: Shared | None, unit: Unit) -> Result:
        done.append(unit)
        if len(done) == 10:
            raise KeyboardInterrupt
        return run(self, shared, unit)

    monkeypatch.setattr(EntryRunner, "run", stop_at_the_tenth)
    with pytest.raises(KeyboardInterrupt):
        tune(config, lifetimes=2, methods=["reinforce"])
    assert not kept.exists()
    found = tune(config, lifetimes=2, methods=["reinforce"])
    assert len(done) == 1 + len(set(done))  # the tenth twice
    members = Counter(unit.entry for unit in done[:9] + done[10:] for _ in unit.members)
    assert set(members.values()) == {2, 2 + 2 * FRESH}
    assert sum(count > 2 for count in members.values()) == 5
    monkeypatch.setattr(EntryRunner, "run", run)
    monkeypatch.setenv("EPG_CACHE", str(kept.parent / "another"))
    assert tune(config, lifetimes=2, methods=["reinforce"]) == found


def test_winners_can_join_a_file_of_ones_own(kept: Path, tiny: Path, tmp_path: Path) -> None:
    own = tmp_path / "deep" / "own.yaml"
    found = tune(load(tiny), 2, own, ["reinforce"])
    assert not kept.exists() and yaml.safe_load(own.read_text()) == {"point-goal": found}
    again = tune(load(tiny, ["seed=1"]), 2, own, ["reinforce"])
    assert yaml.safe_load(own.read_text()) == {"point-goal": again}


ENTRY = (
    "hopper: [{{method: ppo, updates: 3, hidden: [4], activation: tanh, learning_rate: 0.1, "
    "final_return: 1.0, steps_per_update: {m}}}]"
)


@pytest.mark.parametrize(
    "content",
    [
        "[1, 2]",
        "hopper: {a: 1}",
        "hopper: [{updates: 3}]",
        "a: [",
        b"\xff\xfe",
        ENTRY.format(m=0),
        ENTRY.format(m="x"),
        ENTRY.format(m="8, finalists: [5]"),
        ENTRY.format(m="8, finalists: [{learning_rate: 1}]"),
        ENTRY.format(m="8, schedule: sideways"),
    ],
)
def test_a_damaged_file_is_named(kept: Path, tiny: Path, content: str | bytes) -> None:
    kept.parent.mkdir()
    kept.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"tuned\.yaml: "):
        tuned("ppo", "hopper", load(tiny).setup)


def test_a_run_keeps_the_scales_that_it_began_with(
    epg: Callable[..., Any], tiny: Path, tmp_path: Path
) -> None:
    """In its configuration, so that nothing that is tuned later changes what it does."""
    said = epg("train", tiny, "task=[{name: point-goal, scale: [-3, -1]}]", "--run", "run",
               folder=tmp_path)  # fmt: skip
    assert (said.code, said.err) == (0, "")
    config = load(tmp_path / "run" / "config.yaml")
    assert config.task == [{"name": "point-goal", "scale": [-3, -1]}]


def test_a_task_alone_has_no_scale(tiny: Path) -> None:
    config = load(tiny)
    assert with_scales(config) is config


def test_every_method_with_settings_of_its_own_is_tuned_if_none_is_named(
    kept: Path, tiny: Path
) -> None:
    found = tune(load(tiny), lifetimes=2)
    assert sorted(entry["method"] for entry in found) == sorted(tunable())
    assert sorted(tunable()) == ["dpo", "ppo", "reinforce"]
    assert [entry["method"] for entry in found if "random_return" in entry] == ["ppo"]
    for entry in found:
        setup, exact, _ = tuned(entry["method"], "point-goal", load(tiny).setup)
        assert exact and setup.learner.learning_rate == entry["learning_rate"]


def test_what_tunes_itself_is_tuned_with_its_rate(kept: Path, tiny: Path) -> None:
    (entry,) = tune(load(tiny), lifetimes=2, methods=("xu",))
    assert {"entropy", "meta_rate", "discount", "gae_lambda"} <= set(entry)
    assert not {"minibatch", "passes", "clip"} & set(entry)
    setup, exact, _ = tuned("xu", "point-goal", load(tiny).setup)
    assert exact and setup.learner.meta_rate == entry["meta_rate"]


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (("sb3-ppo",), "method sb3-ppo: has no settings of its own that are tuned"),
        (("random",), "method random: has no settings of its own that are tuned"),
        (("epg",), "method epg: is learned across lifetimes"),
        (("pp",), "method: unknown name 'pp'; did you mean ppo"),
    ],
)
def test_what_cannot_be_tuned_is_refused(
    kept: Path, tiny: Path, methods: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        tune(load(tiny), lifetimes=2, methods=methods)
    assert not kept.parent.exists()


def test_a_task_with_ranges_of_its_own_takes_the_settings_of_its_family(tiny: Path) -> None:
    setup = load(tiny, ["lifetime.updates=32", "lifetime.steps_per_update=64"]).setup
    setup = setup.change(hidden=(64, 64), buffer=64)
    family = tuned("ppo", "random-hopper", setup)
    narrow = tuned("ppo", "random-hopper(mass=0.9..1.1)", setup)
    assert family.exact and not narrow.exact
    assert narrow.setup == family.setup != setup
    assert family.source == "tuned: best of 60 settings, 32 lifetimes each"
    assert narrow.source == "tuned on random-hopper: best of 60 settings, 32 lifetimes each"


def test_a_rate_that_falls_is_a_settings_own_and_no_losses(kept: Path, tiny: Path) -> None:
    """A loss that learns by a falling rate stands beside PPO as PPO was tuned."""
    falling = load(tiny, ["learner.schedule={name: inverse, updates: 4}"]).setup
    entry = about("ppo", falling) | {"learning_rate": 0.1, "final_return": 1.0}
    for schedule, expected in ((None, "constant"), ("linear", "linear")):
        keep("point-goal", entry | ({"schedule": schedule} if schedule else {}), kept)
        assert tuned("ppo", "point-goal", falling).setup.learner.schedule.name == expected
        settings = tuned_for("ppo", "point-goal", falling)
        assert settings.schedule is not None and settings.schedule.name == expected
        finalists = [{"steps_per_update": 32, "learning_rate": 0.1, "schedule": schedule}]
        if not schedule:
            del finalists[0]["schedule"]
        keep("point-goal", entry | {"finalists": finalists}, kept)
        longer = falling.change(updates=4)
        assert finalists_of("ppo", "point-goal", longer)[0]["schedule"] == expected
    assert tuned("ppo", "reacher", falling).setup == falling  # of which nothing is known


def test_a_winner_of_few_lifetimes_is_said_to_be_one(
    epg: Callable[..., Any], tiny: Path, tmp_path: Path
) -> None:
    """By the tuning, and by an evaluation, which takes no later tuning for another one."""
    own = {"EPG_CACHE": str(tmp_path / "cache")}
    tuning = ("tune", tiny, "--methods", "reinforce", "--lifetimes")
    said = epg(*tuning, 2, folder=tmp_path, environment=own)
    file = tmp_path / "cache" / "tuned.yaml"
    [entry] = yaml.safe_load(file.read_text())["point-goal"]
    few = (
        f"best of {entry['settings']} settings, 2 lifetimes each, the best five 4 more (few: "
        "16 or more tell settings apart)"
    )
    assert said.code == 0 and f"point-goal: reinforce, {few}, " in said.out, said
    evaluation = ("evaluate", "--methods", "reinforce", "--lifetimes", 2, "--updates", 2)
    for task, told in (
        ("point-goal", f"; tuned: {few}; not tuned for this task and budget"),
        ("{name: point-goal, angle: [0, 1]}", f"; tuned on point-goal: {few}; not tuned for"),
    ):
        said = epg(*evaluation, "--task", task, "--out", f"out-{len(task)}", folder=tmp_path,
                   environment=own)  # fmt: skip
        assert said.code == 0 and told in " ".join(said.out.split()), said
    file.write_text(file.read_text().replace("lifetimes: 2", "lifetimes: 1"))
    again = epg(*evaluation, "--task", task, "--out", f"out-{len(task)}", folder=tmp_path,
                environment=own)  # fmt: skip
    assert again.code == 0, again
