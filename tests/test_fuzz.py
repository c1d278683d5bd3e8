"""Files that nobody sane would write: what comes of them is work, or one line and exit code 2.

Configurations, saved files, run directories and journals are changed as a whole, in their fields
(with checksums made anew) and in their bytes. Never a traceback or an escape sequence, and nothing
written outside of the folder at hand.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import evotorch.algorithms.functional  # noqa: F401 what is written when it is imported is not ours
import pytest
import torch
import typer
import yaml
from fuzzing import NAMES, VALUES, Draw, Place, changed, damaged, fuzzed
from hypothesis import note
from hypothesis import strategies as st
from safetensors.torch import save

from epg import cli
from epg.methods import saved
from epg.runs.files import seal, unseal

SMALL = """\
task: point-goal
steps: 1
method: {name: epg, pairs: 2, alpha: {start: 0.5, end: 0.0, generations: 1}}
agent: {hidden: [4], memory: 2}
lifetime: {updates: 1, steps_per_update: 16, final_episodes: 1}
learner: {buffer: 32, minibatch: 16}
validation: {every: 2, lifetimes: 2}
farm: {chunk: 2}
"""
TRAIN = ("train", "small.yaml", "--run", "run")
EVALUATE = (
    "evaluate", "run/best.safetensors", "--task", "point-goal", "--lifetimes", "2", "--methods",
    "ppo,random", "--out", "run/evaluation",
)  # fmt: skip
TUNE = ("tune", "small.yaml", "--lifetimes", "2", "--methods", "dpo")
KILL = """\
import os, signal
fsync = os.fsync
def kill(descriptor):
    fsync(descriptor)
    name = os.readlink(f"/proc/self/fd/{{descriptor}}")
    if name.endswith("journal.jsonl") and open(name).read().count('{}') == 2:
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = kill
"""
PUBLISHED = Path(__file__).parent.parent / "results" / "shared-skill" / "best.safetensors"


@pytest.fixture(scope="module")
def lived(epg: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, another that was killed in a step, and a killed tuning."""
    folder = tmp_path_factory.mktemp("lived")
    (folder / "small.yaml").write_text(SMALL)
    for arguments in (TRAIN, EVALUATE):
        said = epg(*arguments, folder=folder)
        assert (said.code, said.err) == (0, ""), said
    shutil.copytree(folder / "run", folder / "killed")
    for arguments, counted in (
        (("train", "small.yaml", "--run", "killed", "steps=2", "farm.chunk=1"), '"step":1'),
        (TUNE, '"purpose":'),
    ):
        place = {"EPG_CACHE": str(folder / "cache")}
        said = epg(*arguments, folder=folder, before=KILL.format(counted), environment=place)
        assert said.code == -signal.SIGKILL, said
    return folder


@pytest.fixture
def place(lived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(cli, "app", typer.main.get_command(cli.app))  # made once for all examples
    place = Place(tmp_path, lived)
    monkeypatch.setenv("EPG_CACHE", str(place.folder / "cache"))
    return place


# Configurations


SCALARS = (
    '!!int ""', "!!int x", '!!float ""', "!!float x", "!!bool x", "!!timestamp x", "!!binary x",
    "!!binary aGk=", "!!null x", "!!str 5", "!!set {a}", "!!omap [a: 1]", "!!omap 3",
    "!!pairs [a: 1]", "!!pairs x", "!!python/object/apply:os.system [x]", "!x y", "2001-01-01",
    "2001-99-99", "1:30", "0x1f", "0b2", "1_000", ".inf", "-.inf", ".nan", "yes", "~", "1e400",
    "-1e400", "9" * 5000, r'"\e]0;x\a"', r'"\ud800"', r'"\0"', "&a [*a]", "&b {x: *b}", "*none",
    "{? [a] : 1}", "{<<: {name: epg}}", "{<<: [1]}", "{<<: 3}", "{1: 2}", "{null: 2}", "[", "}",
    "[1, 2", "'", "@x", "`", "%", "? x", "- x", "|", "a: b: c", "\t", "[" * 3000,
    "[" * 3000 + "]" * 3000, "{a: " * 400 + "1" + "}" * 400, "[&x [1, 1, 1], *x, *x]",
    "!!map [1]", "!!seq {a: 1}",
)  # fmt: skip


class Raw(str):
    """Text that goes into YAML as it is."""


YAML = st.one_of(st.sampled_from([Raw(text) for text in SCALARS]), VALUES)


def dumped(tree: Any) -> str:
    """In YAML's flow style, keys as often as they stand there."""
    if isinstance(tree, Raw):
        return str(tree)
    if isinstance(tree, dict):
        pairs = (f"{json.dumps(k.removesuffix(chr(0)))}: {dumped(v)}" for k, v in tree.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(dumped, tree)) + "]"
    if isinstance(tree, float) and not math.isfinite(tree):
        return {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}[str(tree)]
    return json.dumps(tree)


def configuration(draw: Draw) -> bytes:
    if draw(st.integers(0, 4)) == 0:
        return damaged(draw, SMALL.encode())
    tree = changed(draw, yaml.safe_load(SMALL), YAML)
    text = dumped(tree)
    if isinstance(tree, dict) and draw(st.booleans()):
        text = "\n".join(f"{key}: {dumped(value)}" for key, value in tree.items())
    return text.encode(errors="surrogatepass")


@fuzzed(100, 4_000)
def test_configurations(place: Place, draw: Draw) -> None:
    place.write("config.yaml", configuration(draw))
    goes_on = draw(st.booleans())
    if place.holds("submit", "config.yaml", "--print") == 0 and goes_on:
        place.holds("train", "config.yaml", "--run", "run")


# Saved files


def saved_file(draw: Draw, path: Path) -> bytes:
    """A saved file that is not as it was, with a checksum that is right where there can be one."""
    if draw(st.integers(0, 4)) == 0:
        return damaged(draw, path.read_bytes())
    about: Any
    about, tensors = saved._read(path)
    if draw(st.integers(0, 4)) == 0:
        tensors = other_tensors(draw, tensors)
    else:
        about = changed(draw, about)
    if isinstance(about, dict):
        with suppress(KeyError, TypeError, ValueError):
            if about["format"] == 1:
                tensors = saved._in_order_of_format_1(about, tensors)
        about["sha256"] = "none"
        with suppress(KeyError, TypeError, ValueError):
            del about["sha256"]
            about["sha256"] = saved._digest(about, tensors)
    text = json.dumps(about)
    return save(tensors, {"epg": "[" * 100_000 if draw(st.integers(0, 99)) == 50 else text})


def other_tensors(draw: Draw, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Some other in type, shape, name or number."""
    tensors = dict(tensors)
    name = draw(st.sampled_from(sorted(tensors)))
    tensor = tensors[name]
    match draw(st.sampled_from(("type", "shape", "name", "gone", "more", "number"))):
        case "type":
            types = (torch.float8_e4m3fn, torch.bfloat16, torch.float64, torch.int64, torch.bool)
            tensors[name] = tensor.to(draw(st.sampled_from(types)))
        case "shape":
            shapes = (tensor.flatten(), tensor[None], tensor[:0], torch.zeros(()))
            tensors[name] = shapes[draw(st.integers(0, 3))].contiguous()
        case "name":
            tensors[draw(st.sampled_from(NAMES))] = tensors.pop(name)
        case "gone":
            del tensors[name]
        case "more":
            tensors[draw(st.sampled_from(NAMES))] = torch.zeros(2)
        case "number":
            tensors[name] = torch.full_like(tensor, draw(st.sampled_from((torch.nan, 1e38, 0))))
    return tensors


@fuzzed(100, 4_000)
def test_saved_files(place: Place, draw: Draw) -> None:
    """Of today, and of version 0.1."""
    old = draw(st.booleans())
    source = PUBLISHED if old else place.lived / "run" / "best.safetensors"
    place.write("loss.safetensors", saved_file(draw, source))
    place.write("small.yaml", SMALL.encode())
    task = ("--task", "random-cart-pole" if old else "point-goal", "--lifetimes", "2")
    how = draw(st.sampled_from(("evaluate",) * 4 + ("inspect", "train")))
    if how == "inspect" and not old:
        place.holds("inspect", "loss.safetensors", *task)
    elif how == "train":
        place.holds(*TRAIN, "--from", "loss.safetensors")
    else:
        more = ("--updates", "1", "--methods", "untrained", "--out", "out")
        place.holds("evaluate", "loss.safetensors", *task, *more)


# Run directories, and the journals in them


FILES = (
    "config.yaml", "metrics.csv", "journal.jsonl", "state.json", "DONE", "best.safetensors",
    "loss.safetensors", "checkpoint/00000001.json", "checkpoint/00000001.safetensors", "checkpoint",
    "log", "log/rank-0.log", "lock", "job.json", "report", "report.html", "report/health.png",
    "evaluation/protocol.yaml", "evaluation/journal.jsonl", "evaluation/evaluation.json",
    "evaluation/log", "evaluation/lock", "evaluation/point-goal.png", "evaluation",
)  # fmt: skip
COMMANDS = (
    *[("status", "run")] * 9, ("status", "."), *[TRAIN] * 9, *[(*TRAIN, "steps=2")] * 16,
    *[EVALUATE] * 12, ("report", "run"),
)  # fmt: skip


def sealed(draw: Draw, line: bytes) -> bytes:
    """A line of a journal, or a checkpoint's manifest, other than it was, with a checksum."""
    entry = changed(draw, unseal(line))
    try:
        return seal(entry)
    except TypeError:  # what JSON cannot say
        return line


def other_file(draw: Draw, path: Path) -> None:
    """Something else at a file's place."""
    content = path.read_bytes() if path.is_file() else b""
    kinds = ("folder", "link", "pipe", *(("gone", "bytes", "fields", "fields") if content else ()))
    kind = draw(st.sampled_from(kinds))
    note(f"{path.name}: {kind}")
    new = None
    if kind == "bytes":
        new = draw(st.sampled_from((b"", b"{}", b"[]", b"null", b"\xff\xfe", b"\0" * 99)))
        if draw(st.booleans()):
            new = damaged(draw, content)
    elif kind == "fields":
        new = other_fields(draw, path, content)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if new is not None:
        path.write_bytes(new)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(draw(st.sampled_from(("nowhere", path.name, "/nowhere/at/all", "."))))
    elif kind == "pipe":
        os.mkfifo(path)


def other_fields(draw: Draw, path: Path, content: bytes) -> bytes:
    if path.suffix == ".yaml":
        return dumped(changed(draw, yaml.safe_load(content), YAML)).encode()
    if path.suffix == ".csv":
        rows = [line.split(",") for line in content.decode().splitlines()]
        cells = changed(draw, rows)
        rows = cells if isinstance(cells, list) else [cells]
        lines = [",".join(map(str, row)) if isinstance(row, list) else str(row) for row in rows]
        return ("\n".join(lines) + "\n").encode(errors="replace")
    if path.suffix == ".safetensors":
        return saved_file(draw, path) if path.stem in ("best", "loss") else damaged(draw, content)
    if path.suffix == ".jsonl" or path.parent.name == "checkpoint":
        first, *lines = content.splitlines(keepends=True)
        return b"".join([sealed(draw, first), *lines])
    if path.suffix == ".json" or path.name == "DONE":
        return json.dumps(changed(draw, json.loads(content))).encode()
    return damaged(draw, content)


@fuzzed(60, 3_000)
def test_run_directories(place: Place, draw: Draw) -> None:
    place.write("small.yaml", SMALL.encode())
    run = place.copy("run", "run")
    (run / "job.json").write_text('{"job": "12", "seeds": null}\n')
    for name in draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=2, unique=True)):
        if (run / name).parent.is_dir():
            other_file(draw, run / name)
    place.holds(*draw(st.sampled_from(COMMANDS)))


@fuzzed(30, 1_500)
def test_journals(place: Place, draw: Draw) -> None:
    """Of an evaluation, of a step of training, of a tuning."""
    place.write("small.yaml", SMALL.encode())
    kind = draw(st.sampled_from(("evaluation",) * 2 + ("training",) * 7 + ("tuning",)))
    if kind == "evaluation":
        path, command = place.copy("run", "run") / "evaluation" / "journal.jsonl", EVALUATE
    elif kind == "training":
        path = place.copy("killed", "run") / "journal.jsonl"
        command = (*TRAIN, "steps=2", "farm.chunk=1")
    else:
        [path] = place.copy("cache", "cache").glob("tuning-*/journal.jsonl")
        command = TUNE
    lines = path.read_bytes().splitlines(keepends=True)
    lines = [sealed(draw, line) if draw(st.booleans()) else line for line in lines]
    content = b"".join(lines)
    path.write_bytes(content if draw(st.booleans()) else damaged(draw, content))
    place.holds(*command)
