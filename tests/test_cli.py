"""The command line from outside: exit codes, one line for a mistake, nothing touched by it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.main import get_command

import epg as package
from epg import cli
from epg.registry import METHODS

Run = Callable[..., object]
COMMANDS = (
    "train", "submit", "status", "evaluate", "report", "inspect", "tune", "methods", "tasks",
    "bench", "doctor",
)  # fmt: skip


LONG = 300 * "x"
TOO_LARGE = ["of memory needed, most of it for ", "; found ", " GB ("]


def refused(said: object, *told: str) -> None:
    """Exit code 2, one line on stderr with all that it must tell, nothing on stdout."""
    assert said.code == 2, said
    assert said.out == ""
    assert said.err.startswith("epg: ") and said.err.count("\n") == 1 and said.err.endswith("\n")
    for words in told:
        assert words in said.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "epg --help"),
        (["trian"], "'trian'"),
        (["train"], "config"),
        (["train", "a.yaml", "--runs", "x"], "--runs"),
        (["train", "a.yaml", "--ranks", "1"], "--ranks"),
        (["train", "a.yaml", "--ranks", "two"], "--ranks"),
        (["evaluate"], "task"),
        (["evaluate", "a", "--task", "x", "--lifetimes", "-3"], "--lifetimes"),
        (["evaluate", "a", "--task", "x", "--alpha", "2"], "--alpha"),
    ],
)
def test_wrong_usage(command: Run, tmp_path: Path, arguments: list[str], told: str) -> None:
    refused(command("python", "-m", "epg", *arguments, folder=tmp_path), told)
    assert list(tmp_path.iterdir()) == []


def test_help_has_an_example_for_every_command(command: Run, tmp_path: Path) -> None:
    said = command("epg", "--help", folder=tmp_path)
    assert said.code == 0 and all(name in said.out for name in COMMANDS)
    for name in COMMANDS:
        said = command("epg", name, "--help", folder=tmp_path)
        assert said.code == 0 and f"Example: epg {name}" in said.out


def test_help_texts_say_what_they_are_about() -> None:
    for name, made in get_command(cli.app).commands.items():
        for parameter in made.params:
            words = (parameter.help or "").removeprefix("--farm: ").split()
            told = f"{name} {parameter.name}: {parameter.help}"
            assert words and words[-1].endswith((".", "…")), told
            assert words[0] not in ("As", "Of", "That", "To", "Where", "So"), told


def test_it_ends_without_taking_itself_apart(command: Run, tmp_path: Path) -> None:
    """Which lasts; what a user's code has left for the end is done."""
    code = (
        "import atexit, builtins, sys\n"
        "class Module:\n"
        "    def __del__(self): print('taken apart')\n"
        "builtins.left = Module()\n"
        "atexit.register(print, 'a handler')\n"
        "sys.argv = ['epg', '--version']\n"
        "from epg.cli import main\n"
        "main()\n"
    )
    said = command("python", "-c", code, folder=tmp_path)
    assert (said.code, said.out) == (0, f"epg {package.__version__}\na handler\n")


def test_version(command: Run, tmp_path: Path) -> None:
    said = command("epg", "--version", folder=tmp_path)
    assert (said.code, said.out) == (0, f"epg {package.__version__}\n")


def test_methods(epg: Run, tmp_path: Path) -> None:
    said = epg("methods", "--json", folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    *text, last = said.out.splitlines()
    methods = {method["name"]: method for method in json.loads(last)["methods"]}
    assert list(methods) == list(METHODS)
    for name, method in methods.items():
        assert any(line.startswith(f"{name}: {method['summary']}") for line in text)
        assert all(method.values())
    assert (methods["epg"]["how"], methods["ppo"]["how"]) == ("evolved", "by hand")
    assert "module:Class" in text[-1]


def test_tasks(epg: Run, tmp_path: Path) -> None:
    said = epg("tasks", "--json", folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    *text, last = said.out.splitlines()
    tasks = {task["name"]: task for task in json.loads(last)["tasks"]}
    assert set(tasks) >= {"cart-pole", "random-cart-pole", "point-goal", "dir-hopper"}
    assert all(any(line.startswith(f"{name}:") for line in text) for name in tasks)
    cart_pole = tasks["random-cart-pole"]
    assert (cart_pole["observation_size"], cart_pole["action_size"]) == (4, 1)
    assert not cart_pole["discrete"] and cart_pole["horizon"] == 200
    force = {"name": "force", "low": 5.0, "high": 15.0, "unit": "N", "allowed": [0.0, 1000.0]}
    assert any(force.items() <= varied.items() for varied in cart_pole["varied"])
    assert "gym:ID" in said.out and "module:Class" in said.out


def test_tasks_tells_of_those_that_are_named(epg: Run, tmp_path: Path) -> None:
    narrow = "{name: random-hopper, gravity: -9.81}"
    said = epg("tasks", narrow, "[hopper, reacher]", "gym:Pendulum-v1", folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    for words in ("gravity: -9.81 to -9.81", "hopper + reacher: a mixture", "reacher: Gym", "gym:"):
        assert words in said.out
    assert said.out.count("as released") == 3  # not of the range that was given
    assert "cart-pole" not in said.out
    refused(epg("tasks", "gym:CarRacing-v3", folder=tmp_path), "gym:CarRacing-v3", "no pixels")


def test_what_mujoco_says_of_gymnasiums_files_is_not_for_users(
    command: Run, tmp_path: Path
) -> None:
    """It would leave a warning on stderr and a log beside them."""
    said = command("epg", "tasks", "gym:HalfCheetah-v5", folder=tmp_path)
    assert (said.code, said.err) == (0, "") and "observation 17" in said.out
    assert list(tmp_path.iterdir()) == []


def test_without_an_extra_the_others_are_still_told(epg: Run, tmp_path: Path) -> None:
    """As where Box2D is not installed."""
    before = "import sys; sys.modules['Box2D'] = None"
    said = epg("tasks", "--json", folder=tmp_path, before=before)
    assert (said.code, said.err) == (0, "")
    told = {task["name"]: task for task in json.loads(said.out.splitlines()[-1])["tasks"]}
    assert "needs Box2D" in told["lunar-lander-continuous"].pop("missing")
    assert told.pop("lunar-lander-continuous") == {"name": "lunar-lander-continuous"}
    assert told and not any("missing" in task for task in told.values())
    assert "lunar-lander-continuous: not here: " in said.out and "'epg[box2d]'" in said.out
    assert "walker2d: Gym" in said.out
    said = epg("tasks", "lunar-lander-continuous", folder=tmp_path, before=before)
    refused(said, "task lunar-lander-continuous: needs Box2D: pip install 'epg[box2d]'")
    refused(epg("tasks", "gym:LunarLander-v3", folder=tmp_path, before=before), "gymnasium[box2d]")


def test_an_old_override_works_and_says_the_new_name_once(
    command: Run, epg: Run, tiny: Path, tmp_path: Path
) -> None:
    """Alone, under `--ranks`, and of all ranks of an mpirun on one."""
    line = "epg: evolution.generations is now called steps\n"
    arguments = ("train", tiny, "evolution.generations=1", "--run")
    said = epg(*arguments, "alone", folder=tmp_path)
    assert (said.code, said.err) == (0, line)
    said = epg(*arguments, "ranks", "--ranks", "2", folder=tmp_path)
    assert (said.code, said.err) == (0, line)
    said = command("mpirun", "-n", "2", "epg", *arguments, "mpirun", folder=tmp_path)
    assert said.code == 0 and said.err.count("is now called") == 1
    for run in ("alone", "ranks", "mpirun"):
        assert json.loads((tmp_path / run / "DONE").read_text())["generations"] == 1


# What `epg train` refuses


@pytest.fixture
def place(tmp_path: Path, tiny: Path, finished: Path) -> Path:
    """A folder with tiny.yaml, a finished run, and files that are no losses."""
    shutil.copy(tiny, tmp_path / "tiny.yaml")
    shutil.copytree(finished, tmp_path / "run")
    loss = (finished / "loss.safetensors").read_bytes()
    broken = bytearray(loss)
    broken[-7] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(broken)
    (tmp_path / "cut.safetensors").write_bytes(loss[:-100])
    (tmp_path / "text.safetensors").write_text("not a loss at all\n")
    (tmp_path / "empty.safetensors").touch()
    save_file({"weight": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    (tmp_path / "typo.yaml").write_text("task: point-goal\nmethod: {name: epg, pair: 3}\n")
    (tmp_path / "both.yaml").write_text(tiny.read_text() + "alpha: 0.5\n")
    (tmp_path / "empty.yaml").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["typo.yaml"], ["typo.yaml", "'method.pair'", "did you mean 'pairs'"]),
        (["both.yaml"], ["both.yaml: alpha is now called method.alpha, and both are given"]),
        (["empty.yaml"], ["empty.yaml: empty"]),
        (["none.yaml"], ["none.yaml: no such configuration file"]),
        (
            ["quikstart"],
            ["quikstart: no such", "these come with epg: cheetah-hopper, ", "quickstart"],
        ),
        (["other"], ["other: Is a directory"]),
        (["tiny.yaml", "learner.minibatch=24"], ["steps_per_update (32)", "minibatch (24)"]),
        (["tiny.yaml", "task=pointgoal"], ["tiny.yaml", "did you mean point-goal"]),
        (["tiny.yaml", "device=cuda:99"], ["device", "cuda:99"]),
        (["tiny.yaml", "seed=1", "--run", "run"], ["run: ", "seed: there 0, here 1", "--run"]),
        (["tiny.yaml", "--run", "text.safetensors"], ["text.safetensors: a file"]),
        (["tiny.yaml", "--run", "text.safetensors/run"], ["text.safetensors/run: Not a dir"]),
        (["tiny.yaml", "--run", "other"], ["other: holds other files"]),
        (["tiny.yaml", "start_from=abc"], ["start_from", "abc", "--from"]),
        (["tiny.yaml", "--from", "none"], ["none: no such loss", "come with epg: cheetah-hopper"]),
        (["tiny.yaml", "--from", "cut.safetensors"], ["cut.safetensors", "truncated"]),
        (["tiny.yaml", "--from", "empty.safetensors"], ["empty.safetensors"]),
        (["tiny.yaml", "--from", "text.safetensors"], ["text.safetensors", "not a loss file"]),
        (["tiny.yaml", "--from", "foreign.safetensors"], ["foreign.safetensors", "epg"]),
        (["tiny.yaml", "--from", "flipped.safetensors"], ["flipped.safetensors", "checksum"]),
        (
            ["tiny.yaml", "task=random-cart-pole", "--from", "run/loss.safetensors"],
            ["run/loss.safetensors: does not fit task random-cart-pole", "size is 2, needed 4"],
        ),
        (
            ["tiny.yaml", "agent.memory=5", "--from", "run/loss.safetensors"],
            ["run/loss.safetensors", "memory is 4, needed 5"],
        ),
        (["tiny.yaml", "task={name: point-goal, angle: 7}"], ["angle: found 7", "0 to 6.28319"]),
        (["tiny.yaml", "task=[point-goal]"], ["task point-goal: in a mixture", "epg tune CONFIG"]),
        (["tiny.yaml", "task=7"], ["task: found 7", "allowed: NAME"]),
        (["tiny.yaml", "--run", LONG], ["run: found xxx", "300 bytes; allowed: 255"]),
        (["tiny.yaml", "--run", "x\udcff"], ["run: found x?, which is not UTF-8"]),
        (["tiny.yaml", "--run", "x/" * 3000], ["run: found x/x/", "path of 5999 bytes"]),
        (["tiny.yaml", "--ranks", "2", "--run", LONG], ["300 bytes; allowed: 255"]),
        (["tiny.yaml", "--from", LONG], ["start_from: found xxx", "300 bytes"]),
        (["tiny.yaml", "agent.hidden=[1000000,1000000]"], ["a lifetime: ", *TOO_LARGE]),
        (["tiny.yaml", "agent.memory=10000000", "farm.chunk=999", "method.pairs=999"], TOO_LARGE),
        (
            ["tiny.yaml", "learner.buffer=10000000", "farm.chunk=9999", "method.pairs=9999"],
            ["19998 lifetimes at once", "learner.buffer 10000000", *TOO_LARGE],
        ),
        (
            ["tiny.yaml", "method.pairs=10000000", "agent.memory=10000"],
            ["the master: ", "method.pairs 10000000", *TOO_LARGE],
        ),
        (["tiny.yaml", "method=egp"], ["method: unknown name 'egp'; did you mean epg?"]),
        (["tiny.yaml", "method=ppo"], ["method: found ppo, which learns within a life"]),
        (["tiny.yaml", "method.shaping=centered_rank"], ["centered_rank", "task_draw generation"]),
        (
            ["tiny.yaml", "lifetime.steps_per_update=16", "learner.buffer=16"],
            ["learner.buffer: found 16", "at least 21"],
        ),
    ],
)
def test_train_refuses(
    epg: Run, place: Path, contents: Run, arguments: list[str], told: list[str]
) -> None:
    before = contents(place)
    refused(epg("train", *arguments, folder=place), *told)
    assert contents(place) == before


@pytest.mark.parametrize("rank", [0, 1])
def test_a_launcher_that_is_not_of_this_mpi(
    epg: Run, place: Path, contents: Run, rank: int
) -> None:
    before = contents(place)
    launched = {"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": str(rank)}
    said = epg("train", "tiny.yaml", "--run", "new", folder=place, environment=launched)
    if rank == 0:
        refused(said, "started 3 ranks", "MPI sees 1", "mpirun", "do not belong together")
    else:
        assert (said.code, said.out, said.err) == (2, "", "")
    assert contents(place) == before


def test_a_mistake_is_said_once_and_not_once_per_rank(
    command: Run, place: Path, contents: Run
) -> None:
    before = contents(place)
    for arguments, told in (
        (["train", "tiny.yaml", "--run"], "--run"),
        (["train", "typo.yaml"], "'method.pair'"),
        (["train", "tiny.yaml", "seed=1", "--run", "run"], "seed: there 0, here 1"),
    ):
        said = command("mpirun", "-n", "2", "python", "-m", "epg", *arguments, folder=place)
        refused(said, told)
    assert contents(place) == before


# What `epg evaluate` refuses


@pytest.fixture(scope="module")
def with_policy(epg: Run, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loss that was evolved together with the policy's initialisation."""
    folder = tmp_path_factory.mktemp("with-policy")
    more = ("method.evolve_policy_init=true", "steps=1")
    said = epg("train", tiny, "--run", "run", *more, folder=folder)
    assert (said.code, said.err) == (0, "")
    return folder / "run" / "loss.safetensors"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none"], ["none: no such loss"]),
        (["text.safetensors"], ["text.safetensors"]),
        (["flipped.safetensors"], ["flipped.safetensors", "checksum"]),
        (["run"], ["run: not a file, expected a saved loss, such as run/best.safetensors"]),
        (
            ["run/loss.safetensors", "--task", "random-cart-pole"],
            ["4 observations and 1 actions, the loss is made for 2 and 2", "zeros can pad tasks"],
        ),
        (["run/loss.safetensors", "--task", "mountain-car"], ["its actions are discrete"]),
        (["run/loss.safetensors", "--task", "[[point-goal]]"], ["one at a time"]),
        (["run/loss.safetensors", "--task", "{name: cart-pole"], ["--task", "broken YAML"]),
        (["run/loss.safetensors", "--task", "{name: point-goal, x: 1}"], ["parameter 'x'"]),
        (["run/loss.safetensors", "--task", "pole"], ["'pole'", "did you mean cart-pole?"]),
        (["run/loss.safetensors", "--baselines", "ppo,a2d"], ["'a2d'", "allowed: epg, ppo"]),
        (["run/loss.safetensors", "--methods", "ppo,a2d"], ["'a2d'", "module:Class"]),
        (["run/loss.safetensors", "--methods", "epg"], ["method epg", "name its file"]),
        (["run/loss.safetensors", "--hidden", "8;8"], ["--hidden", "'8;8'", "64,64"]),
        (["run/loss.safetensors", "--hidden", "²"], ["--hidden"]),
        (["run/loss.safetensors", "--hidden", "1000000,1000000"], ["hidden 1000000", *TOO_LARGE]),
        (["run/loss.safetensors", "--hidden", 5000 * "9"], ["--hidden: found '999", "as 64,64"]),
        (["run/loss.safetensors", "--hidden", "99999999"], ["hidden.0: input should be less"]),
        (
            ["run/loss.safetensors", "--lifetimes", "9999999", "--updates", "9999999"],
            ["all lifetimes: ", *TOO_LARGE],
        ),
        (["run/loss.safetensors", "--out", LONG], ["out: found xxx", "300 bytes; allowed: 255"]),
        (["run/loss.safetensors", "--out", "x\udcff"], ["out: found x?, which is not UTF-8"]),
        ([LONG], ["losses: found xxx", "300 bytes; allowed: 255"]),
        (["run/loss.safetensors", "--alpha", "nan"], ["--alpha"]),
        (["run/loss.safetensors", "--learning-rate", "1e31"], ["learner.learning_rate: ", "1e+31"]),
        (["run/loss.safetensors", "--out", "tiny.yaml"], ["tiny.yaml: a file"]),
    ],
)
def test_evaluate_refuses(
    epg: Run, place: Path, contents: Run, arguments: list[str], told: list[str]
) -> None:
    before = contents(place)
    # The first task is in order: that of the second is noticed before anything is lived.
    refused(epg("evaluate", "--task", "point-goal", *arguments, folder=place), *told)
    assert contents(place) == before


def test_evaluate_refuses_other_sizes_for_an_evolved_policy(
    epg: Run, with_policy: Path, tmp_path: Path
) -> None:
    arguments = ("evaluate", with_policy, "--task", "point-goal", "--lifetimes", 2)
    refused(epg(*arguments, "--hidden", "8,8", folder=tmp_path), "tanh layers 8; tanh layers 8,8")
    refused(epg(*arguments, "--activation", "relu", folder=tmp_path), "relu layers 8 do not fit")
    assert list(tmp_path.iterdir()) == []
    assert epg(*arguments, "--hidden", "8", folder=tmp_path).code == 0


def test_evaluate_says_and_writes_what_came_out(epg: Run, finished: Path, tmp_path: Path) -> None:
    said = epg(
        "evaluate", finished / "best.safetensors", "--task", "point-goal", "--lifetimes", 3,
        "--json", "--out", "out", folder=tmp_path,
    )  # fmt: skip
    assert (said.code, said.err) == (0, "")
    told = json.loads(said.out.splitlines()[-1])
    assert told == json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert "learned loss" in said.out and "ppo" in said.out and "written to out" in said.out
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "evaluation.json", "journal.jsonl", "log", "point-goal.png", "protocol.yaml", "returns.csv"
    }  # fmt: skip


def test_inspect_says_and_writes_what_it_saw(epg: Run, finished: Path, tmp_path: Path) -> None:
    said = epg(
        "inspect", finished / "loss.safetensors", "--task", "point-goal", "--lifetimes", 2,
        "--json", "--out", "out", folder=tmp_path,
    )  # fmt: skip
    assert (said.code, said.err) == (0, "")
    told = json.loads(said.out.splitlines()[-1])
    assert told == json.loads((tmp_path / "out" / "anatomy-point-goal.json").read_text())
    assert "cosine with PPO's gradient" in said.out
    other = ("inspect", finished / "loss.safetensors", "--task", "random-cart-pole")
    refused(epg(*other, folder=tmp_path), "does not fit task random-cart-pole")
