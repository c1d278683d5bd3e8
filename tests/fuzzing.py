"""What `test_fuzz.py` needs: a place where commands are held to their promise, and strange data."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from epg import cli

Draw = Callable[[st.SearchStrategy[Any]], Any]
HANGS = 300.0
"""Seconds after which a command hangs."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_allowed: list[Path] = []
"""The folder in which files may be written just now; empty for everywhere."""


def fuzzed(few: int, many: int) -> Callable[[Callable[..., None]], Any]:
    """Make a test of some examples, always the same, and under `make soak` of many."""

    def decorate(test: Callable[..., None]) -> Any:
        @pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.soak)])
        def run(examples: int, place: Place) -> None:
            @settings(
                max_examples=examples, derandomize=True, deadline=None, database=None,
                phases=[Phase.generate], suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(st.data())
            def holds(data: st.DataObject) -> None:
                place.clear()
                test(place, data.draw)

            holds()

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


class Place:
    """A folder for an example, deep enough for `../..` to stay in sight."""

    def __init__(self, root: Path, lived: Path) -> None:
        """lived: a folder with sound files to begin with."""
        self.folder = root / "a" / "b" / "c"
        self.lived = lived

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def write(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)

    def copy(self, name: str, new: str) -> Path:
        """A copy of a sound folder."""
        return Path(shutil.copytree(self.lived / name, self.folder / new))

    def holds(self, *arguments: str) -> int:
        """Run a command here: it works, or says in a line why not. Its exit code."""
        out, err = io.StringIO(), io.StringIO()
        note(f"epg {' '.join(arguments)}")
        with _alone(self.folder, arguments), redirect_stdout(out), redirect_stderr(err):
            code = cli.run_command()
        said = err.getvalue()
        note(f"{code}: {said}")
        assert code in (0, 2), (code, said)
        if code == 2:
            assert said.startswith("epg: ") and said.endswith("\n") and said.count("\n") == 1, said
            assert len(said) < 1500, said
        assert all(line.isprintable() for line in (out.getvalue() + said).split("\n"))
        return code


class HangError(BaseException):
    """A command did not come to an end."""


@contextmanager
def _alone(folder: Path, arguments: tuple[str, ...]) -> Iterator[None]:
    """This process as one that runs a command in a folder; what that changes is put back."""
    here, argv, path, threads = Path.cwd(), sys.argv, sys.path[:], torch.get_num_threads()
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
    handlers = [signal.getsignal(number) for number in signals]
    signal.signal(signal.SIGUSR2, _hang)
    me = threading.get_ident()
    timer = threading.Timer(HANGS, lambda: signal.pthread_kill(me, signal.SIGUSR2))
    timer.start()
    os.chdir(folder)
    sys.argv = ["epg", *arguments]
    _allowed.append(folder.resolve())
    try:
        yield
    finally:
        _allowed.clear()
        timer.cancel()
        os.chdir(here)
        sys.argv, sys.path[:] = argv, path
        torch.set_num_threads(threads)
        for number, handler in zip(signals, handlers, strict=True):
            signal.signal(number, handler)


def _hang(number: int, frame: object) -> None:
    raise HangError


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: nothing is written outside of the folder that is allowed."""
    if not _allowed:
        return
    follows = False
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
        path, follows = arguments[0], not arguments[2] & os.O_NOFOLLOW
    elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.truncate"):
        path = arguments[0]
    elif event in ("os.rename", "os.link", "os.symlink"):
        path = arguments[1]
    else:
        return
    if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path) != os.devnull:
        named = Path(os.fsdecode(path))
        real = named.resolve() if follows else named.parent.resolve() / named.name
        assert real.is_relative_to(_allowed[0]), f"{event} of {real}"


sys.addaudithook(_watch)


# Strange data: no number among it that is allowed and means an hour's work or all memory


NUMBERS = (-1, 0, 1, 2, 3, 16, 2**31, 2**63, 2**64, 10**400, -(2**70), 0.5, -0.0, 1e-300, 1.5)
NAMES = (
    "", " ", "x", "\x1b]0;owned\x07", "a\nb", "\0", "\u2028", "\x9b2J", "φ🎲", "../../escaped",
    "x/../../../escaped", "evil:Class", "gym:", "gym:x:y", "gym:Nowhere-v9", ":", "os:path",
    "point-goal", "epg", "ppo", "adam", "pair", "temporal_conv", "cpu", "cuda:99999999999999999999",
    "relu", "nan", "1e400", "x" * 300, "y" * 70_000, "%s{}", "١",
)  # fmt: skip
DEEP: Any = json.loads("[" * 200 + "]" * 200)
OTHERS = (
    None, True, False, float("nan"), float("inf"), [], {}, [1], [[]], [1, 2], [2, 1], ["epg", 1],
    [None] * 40, {"": 0}, {"name": "epg"}, {"name": []}, {"x": {"y": {"z": 1}}},
    {"start": 1, "end": 1, "generations": 0}, DEEP,
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from((*NUMBERS, *NAMES, *OTHERS)),
    st.integers(-9, 9), st.floats(width=32), st.text(max_size=9),
)  # fmt: skip
"""Plain data of any kind."""


def changed(draw: Draw, tree: Any, values: st.SearchStrategy[Any] = VALUES) -> Any:
    """Dictionaries and lists that are other in up to three places."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
        ways = list(_ways(tree))
        if not ways or draw(st.integers(0, 29)) == 0:
            return draw(values)
        *above, key = draw(st.sampled_from(ways))
        at = tree
        for part in above:
            at = at[part]
        match draw(st.sampled_from(("like", "put", "put", "drop", "add", "wrap", "twice"))):
            case "like":
                at[key] = _like(draw, at[key])
            case "put":
                at[key] = draw(values)
            case "drop":
                del at[key]
            case "wrap":
                at[key] = draw(st.sampled_from(([at[key]], {"name": at[key]}, {str(key): at[key]})))
            case "add" if isinstance(at, dict):
                at[draw(st.sampled_from(NAMES))] = draw(values)
            case "twice" if isinstance(at, dict):
                at[f"{key}\0"] = draw(values)
    return tree


def _like(draw: Draw, value: Any) -> Any:
    """Something that may stand there, too."""
    match value:
        case bool():
            return not value
        case int() | float():
            return draw(st.sampled_from((1, 2, 4, 16, 32, 0.5, 0.25, 1e-3)))
        case str():
            return draw(st.sampled_from(NAMES))
    return value


def _ways(tree: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every key and item, but not to the bottom of what is deep."""
    items: Any = ()
    if len(above) < 20 and isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, below in items:
        yield (*above, key)
        yield from _ways(below, (*above, key))


def damaged(draw: Draw, content: bytes) -> bytes:
    """Bytes that are cut, other in a bit, more than they were, or partly there twice."""
    place = draw(st.integers(0, max(0, len(content) - 1)))
    match draw(st.sampled_from(("cut", "bit", "more", "twice"))):
        case "cut":
            return content[:place]
        case "bit" if content:
            flipped = content[place] ^ (1 << draw(st.integers(0, 7)))
            return content[:place] + bytes([flipped]) + content[place + 1 :]
        case "more":
            return content[:place] + draw(st.binary(max_size=9)) + content[place:]
    return content[:place] + content
