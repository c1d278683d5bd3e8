"""Several losses, tasks and processes: the same numbers, nothing lost, nothing pooled."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from epg.config import Config
from epg.errors import UserError
from epg.evaluation import bootstrap, transfer
from epg.evaluation.evaluate import Evaluation, evaluate
from epg.evaluation.protocol import SavedFiles
from epg.evaluation.scores import Sample, Score, TaskScores, columns_of, remarks, rows_of
from epg.methods import saved

pytestmark = pytest.mark.xdist_group("several")  # one process makes what all of them need

OUTPUTS = ("evaluation.json", "returns.csv", "protocol.yaml")
ARGUMENTS = ("--task", "point-goal", "--lifetimes", "5", "--methods", "reinforce,random")
KILLED = """\
import os, signal
from epg.runs import journal
append = journal.Journal.append
def die(self, outcomes):
    append(self, outcomes)
    os.kill(os.getpid(), signal.{})
journal.Journal.append = die
"""


@pytest.fixture(scope="module")
def loss(finished: Path) -> Path:
    return finished / "best.safetensors"


@pytest.fixture(scope="module")
def seeds(loss: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Losses of three evolution seeds, one of another configuration, and one for larger tasks."""
    folder, found = tmp_path_factory.mktemp("seeds"), saved.load(loss)
    paths = []
    for name, seed, sigma in (("a", 0, 0.05), ("b", 1, 0.05), ("c", 2, 0.05), ("d", 0, 0.06)):
        method = found.config.method.replace(sigma=sigma).model_dump()
        config = found.config.replace(seed=seed, method=method)
        paths.append(folder / f"seed-{name}" / "best.safetensors")
        paths[-1].parent.mkdir()
        factor = 1 + seed + 10 * (sigma > 0.05)
        params = {name: factor * tensor for name, tensor in found.params.items()}
        replace(found, params=params, config=config).save(paths[-1])
    paths.append(folder / "large" / "best.safetensors")
    paths[-1].parent.mkdir()
    config = found.config.replace(seed=9)
    large = replace(found, config=config, sizes=(5, 2, False), tasks=("large",), task="large")
    zeroth = replace(large, config=config.replace(seed=0)).method().init()
    replace(large, params=zeroth).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def crossed(seeds: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """All of them on two tasks, of which one is too large for them."""
    return evaluated(
        seeds, ["point-goal", "random-cart-pole", {"name": "point-goal", "angle": [0.0, 1.0]}],
        lifetimes=4, methods=("ppo", "random"), out=tmp_path_factory.mktemp("out") / "crossed",
    )  # fmt: skip


def evaluated(*arguments: Any, **settings: Any) -> Evaluation:
    result = evaluate(*arguments, **settings)
    assert result is not None
    return result


@pytest.fixture(scope="module")
def undisturbed(
    epg: Callable[..., Any], loss: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    said = epg("evaluate", loss, *ARGUMENTS, "--out", "out", folder=folder)
    assert (said.code, said.err) == (0, "")
    return folder / "out"


def lived(out: Path) -> int:
    """Units, by the log of all starts."""
    return (out / "log" / "rank-0.log").read_text().count(" core-seconds")


def same(ours: Path, theirs: Path) -> bool:
    return all((ours / name).read_bytes() == (theirs / name).read_bytes() for name in OUTPUTS)


def test_under_mpi_the_numbers_are_the_same(
    epg: Callable[..., Any], loss: Path, undisturbed: Path, tmp_path: Path
) -> None:
    said = epg("evaluate", loss, *ARGUMENTS, "--out", "out", "--ranks", 3, "--json",
               folder=tmp_path)  # fmt: skip
    assert said.code == 0, said.err
    assert same(tmp_path / "out", undisturbed)
    assert json.loads(said.out.splitlines()[-1])["protocol"]["lifetimes"] == 5
    assert said.out.count("held-out lifetimes") == 1  # only the master speaks


def test_killed_in_the_middle_it_goes_on(
    epg: Callable[..., Any], loss: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Ended after each unit but the last; every unit is lived once."""
    started = ("evaluate", loss, *ARGUMENTS, "--out", "out")
    for name, code, count in (("SIGKILL", -9, 1), ("SIGUSR1", 75, 2)):
        said = epg(*started, folder=tmp_path, before=KILLED.format(name))
        assert said.code == code and "Traceback" not in said.err
        assert lived(tmp_path / "out") == count
    units = lived(undisturbed)
    for _ in range(2):  # the second time nothing is left to do
        said = epg(*started, folder=tmp_path)
        assert (said.code, said.err) == (0, "")
        assert same(tmp_path / "out", undisturbed)
        assert lived(tmp_path / "out") == units


def test_a_unit_that_raises_ends_it_and_the_same_command_goes_on(
    epg: Callable[..., Any], loss: Path, undisturbed: Path, tmp_path: Path
) -> None:
    broken = (
        "from epg.evaluation import entry\n"
        "run = entry.EntryRunner.run\n"
        "def fail(self, shared, unit):\n"
        "    if unit.entry == 1:\n"
        "        raise LookupError('a bug of mine')\n"
        "    return run(self, shared, unit)\n"
        "entry.EntryRunner.run = fail\n"
    )
    started = ("evaluate", loss, *ARGUMENTS, "--out", "out")
    said = epg(*started, folder=tmp_path, before=broken)
    assert said.code == 1 and said.err.count("\n") == 1
    assert said.err.startswith(
        "epg: point-goal, reinforce: LookupError: a bug of mine (1 units failed"
    )
    assert "Traceback" in (tmp_path / "out" / "log" / "rank-0.log").read_text()
    before = lived(tmp_path / "out")
    said = epg(*started, folder=tmp_path)
    assert said.code == 0 and lived(tmp_path / "out") == before + 1
    assert same(tmp_path / "out", undisturbed)


def test_another_evaluations_folder_is_refused(
    loss: Path, undisturbed: Path, tmp_path: Path, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    before = contents(undisturbed)
    for changes, found in (
        ({"lifetimes": 6}, "lifetimes: there 5, here 6"),
        ({"methods": ("random",)}, "methods: "),
        ({"seed": 1}, "seed: there 0, here 1"),
    ):
        settings = {
            "task": "point-goal", "lifetimes": 5, "out": undisturbed,
            "methods": ("reinforce", "random"),
        } | changes  # fmt: skip
        with pytest.raises(UserError, match=found):
            evaluate(loss, **settings)
    assert contents(undisturbed) == before
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds other files and no protocol\.yaml"):
        evaluate(loss, "point-goal", out=tmp_path)
    with pytest.raises(UserError, match="a file, expected a folder"):
        evaluate(loss, "point-goal", out=tmp_path / "thesis.tex")
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_evolution_seeds_are_one_row_with_one_number_each(crossed: Evaluation) -> None:
    task = crossed.tasks[0]
    methods = [row.method for row in task.rows]
    assert methods == ["3 seeds", "seed-a", "seed-b", "seed-c", "seed-d", "large", "ppo", "random"]
    together, *alone = task.rows
    assert (together.final_return.n, together.final_return.over) == (3, "evolution seeds")
    assert all((row.final_return.n, row.final_return.over) == (4, "lifetimes") for row in alone)
    means = [row.final_return.mean.value for row in alone[:3]]
    assert together.final_return.mean.value == pytest.approx(np.mean(means))
    assert together.final_return.median.value == pytest.approx(np.median(means))
    mean = together.final_return.mean
    assert min(means) <= mean.low <= mean.high <= max(means)
    beaten = [row.improvement.value for row in alone[:3] if row.improvement]
    assert together.improvement is not None
    assert together.improvement.value == pytest.approx(np.mean(beaten))
    assert "3 evolution seeds" in task.table()


def test_only_different_seeds_of_the_same_make_a_row(
    seeds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two checkpoints of one run are no two seeds; two families do not hide one another."""

    def without_activation(self: Config, **settings: Any) -> dict[str, Any]:
        plain = BaseModel.model_dump(self, **settings)
        del plain["agent"]["activation"]
        return plain

    found = [saved.load(path) for path in seeds[:3]]
    paths = []
    for name, loss, seed, pairs in (
        ("a0", found[0], 0, 4), ("a0-later", found[1], 0, 4), ("a1", found[2], 1, 4),
        ("b0", found[0], 0, 5), ("b1", found[1], 1, 5),
    ):  # fmt: skip
        method = loss.config.method.replace(pairs=pairs).model_dump()
        config = loss.config.replace(seed=seed, method=method)
        paths.append(tmp_path / f"{name}.safetensors")
        if name == "a1":  # as an older version saved it
            monkeypatch.setattr(Config, "model_dump", without_activation)
        replace(loss, config=config).save(paths[-1])
        monkeypatch.undo()
    families = SavedFiles(paths).families()
    assert list(families.values()) == [["a0", "a1"], ["b0", "b1"]]
    assert list(families) == ["2 seeds (a0, a1)", "2 seeds (b0, b1)"]
    assert SavedFiles(paths[:2]).families() == {}


def test_over_tasks_an_evolution_seed_is_still_one_number() -> None:
    """Its tasks are not resampled by themselves: they have the same loss."""
    levels = np.array([[0.0], [1.0], [2.0]])
    samples = {
        f"seed-{i}": Sample(np.full((4, 3), level), np.full((4, 3), level), 0)
        for i, [level] in enumerate(levels)
    }
    [together, *_] = rows_of(samples, {"all": list(samples)})
    alone = bootstrap.summarise(levels, "evolution seeds")
    assert together.final_return == alone


def test_an_area_without_a_scale_is_none(crossed: Evaluation) -> None:
    """Where PPO ends above a random policy but its curve lies below."""
    tasks = tuple(better_ppo(crossed.tasks[i]) for i in (0, 2))
    turned = []
    for score in tasks[0].scores:
        result = score.result
        if score.entry.method == "ppo":
            result = replace(result, episode_returns=result.episode_returns - 1000)
        turned.append(replace(score, result=result))
    found = replace(crossed, tasks=(replace(tasks[0], scores=tuple(turned)), tasks[1]))
    assert found.overall and all(row.area is None for row in found.overall)


def test_a_unit_that_two_starts_have_lived_counts_once(loss: Path, tmp_path: Path) -> None:
    settings = {"task": "point-goal", "lifetimes": 3, "methods": ("random",)}
    once = evaluated(loss, **settings, out=tmp_path / "out")
    journal = tmp_path / "out" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines, lines[-1], lines[1]]))
    again = evaluated(loss, **settings, out=tmp_path / "out")
    assert again.plain() == once.plain()


def test_over_tasks_random_is_0_and_ppo_1(crossed: Evaluation) -> None:
    """And a task that a loss does not fit has no row of it."""
    fits = [[row.method for row in task.rows] for task in crossed.tasks]
    assert fits[0] == fits[2] and fits[1] == ["large", "ppo", "random"]
    two = replace(crossed, tasks=tuple(better_ppo(crossed.tasks[i]) for i in (0, 2)))
    rows = {row.method: row.final_return for row in two.overall}
    assert list(rows) == fits[0]
    assert rows["random"].mean.value == pytest.approx(0, abs=1e-9)
    assert rows["ppo"].mean.value == pytest.approx(1)
    raw = [{s.entry.method: s.returns.mean() for s in task.scores} for task in two.tasks]
    scaled = [(m["seed-b"] - m["random"]) / (m["ppo"] - m["random"]) for m in raw]
    assert rows["seed-b"].mean.value == pytest.approx(np.mean(scaled))
    worse = replace(two, tasks=(two.tasks[0], better_ppo(two.tasks[1], -100)))
    assert worse.overall == [] and "no scores over all tasks" in worse.table()
    three = replace(crossed, tasks=tuple(map(better_ppo, crossed.tasks)))
    assert [row.method for row in three.overall] == ["large", "ppo", "random"]


def better_ppo(task: TaskScores, by: float = 100.0) -> TaskScores:
    """Four lifetimes of 64 steps say little of which is better."""

    def better(score: Score) -> Score:
        result = replace(
            score.result,
            final_return=score.result.final_return + by,
            episode_returns=score.result.episode_returns + by,
        )
        return replace(score, result=result)

    scores = (better(s) if s.entry.method == "ppo" else s for s in task.scores)
    return replace(task, scores=tuple(scores))


def test_the_table_of_transfer_has_the_papers_shape(crossed: Evaluation) -> None:
    lines = crossed.table().splitlines()
    begins = [i for i, line in enumerate(lines) if line.startswith("trained on")]
    heads = [lines[begin].split()[4:] for begin in begins]
    assert heads == [["point-goal", "random-cart-pole"], ["point-goal(angle=0.0..1.0)"]]
    first, second = (lines[begin + 1 : begin + 12] for begin in begins)
    names = [row.partition("  " if row[0] != " " else "[")[0].split() for row in first]
    assert first[0] == "point-goal" and first[6] == "large" and first[8] == "not learned"
    ours = [*range(1, 6), 7, 9, 10]
    assert [" ".join(names[i][: 2 if i == 1 else 1]) for i in ours] == [
        "3 seeds", "seed-a", "seed-b", "seed-c", "seed-d", "large", "ppo", "random",
    ]  # fmt: skip
    assert [first[i].count("°") for i in ours] == [0] * 5 + [2, 0, 0]
    assert [second[i].count("°") for i in ours] == [1] * 6 + [0, 0]  # the narrower task
    assert [transfer.MISSING in first[i] for i in ours] == [True] * 5 + [False] * 3


def test_tables_are_read_in_80_columns_with_one_precision_in_each(crossed: Evaluation) -> None:
    table = crossed.table(published=True)
    assert max(map(len, table.splitlines())) <= 80
    for task in crossed.tasks:
        columns = columns_of(task.rows)
        assert list(columns) == ["mean", "IQM", "P(> ppo)", "median", "area, IQM"]
        for cells in columns.values():
            assert all(cell in table for cell in cells)
            numbers = [n for cell in cells for n in re.findall(r"[0-9.]+", cell)]
            assert len({len(number.partition(".")[2]) for number in numbers}) == 1
            largest = max(numbers, key=float)
            assert 3 <= len(largest.replace(".", "").lstrip("0")) <= 4
    assert "3 seeds: 3 evolution seeds" in table
    assert "with 3 the interval is their minimum and maximum" in " ".join(table.split())


def test_more_seeds_have_an_interval_of_their_own(crossed: Evaluation) -> None:
    """Of four, the lowest alone fills a resample too seldom to matter."""
    scores = {score.entry.method: score for score in crossed.tasks[0].scores}
    names = [f"seed-{name}" for name in "abcd"]
    task = replace(
        crossed.tasks[0], scores=tuple(scores[name] for name in names), families={"4": names}
    )
    row = rows_of(task.samples(), task.families)[0]
    means = [scores[name].returns.mean() for name in names]
    assert min(means) < row.final_return.mean.low and row.final_return.mean.high < max(means)
    assert "minimum" not in remarks(row)
    three = rows_of(task.samples(), {"3": names[:3]})[0]
    assert three.final_return.mean.low == pytest.approx(min(means[:3]))
    assert three.final_return.mean.high == pytest.approx(max(means[:3]))
    assert "with 3 the interval is their minimum and maximum" in remarks(three)


def test_published_figures_stand_beside_ours_and_are_marked(crossed: Evaluation) -> None:
    named = replace(crossed, tasks=tuple(
        replace(task, task=name)
        for task, name in zip(crossed.tasks, ("hopper", "half-cheetah", "point-goal"), strict=True)
    ))  # fmt: skip
    table = named.table(published=True)
    assert "2363*" in table and "2552*" in table
    assert "1,000,000 environment steps a lifetime" in table
    assert "here 64" in table and "point-goal: not among theirs" in table
    assert "2363" not in named.table()


def test_the_published_table_is_the_papers() -> None:
    """Mean returns of the rows that REFERENCE and the paper single out."""
    rows = {(row["trained_on"], row["method"]): row for row in transfer.read()}
    assert len(rows) == 13
    unseen = "half-cheetah + lunar-lander-continuous"
    figures = {
        (unseen, "MetaGenRL"): "2363", (unseen, "EPG"): "8", (unseen, "RL²"): "5",
        ("", "PPO"): "1894", ("", "on-policy REINFORCE (GAE)"): "565", ("", "DDPG / TD3"): "2718",
    }  # fmt: skip
    assert {key: rows[key]["hopper"] for key in figures} == figures


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "random-cart-pole"}, "it has 4 observations and 1 actions, the loss is made for "
         "2 and 2; zeros can pad tasks up to that size, not a loss"),
        ({"task": "cart-pole"}, "its actions are discrete, the loss is made for continuous ones"),
        ({"task": ["point-goal", "point-goal"]}, "task point-goal: found twice"),
        ({"methods": ("pop",)}, "method: unknown name 'pop'; did you mean ppo or dpo? allowed: "
         "epg, ppo, dpo, reinforce, random, "),
        ({"methods": ("ppo", "ppo")}, "method ppo: found twice"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated(
    loss: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        evaluate(loss, **({"task": "point-goal", "out": tmp_path / "out"} | changes))
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []
