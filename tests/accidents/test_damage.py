"""Files that were cut or changed on disk: a checkpoint and the journal, at every byte."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from accidents.site import check_same
from epg.config import load
from epg.farm.work import Result, Unit
from epg.methods.epg import Epg
from epg.runs.directory import Checkpoint, RunDirectory
from epg.runs.journal import Journal
from epg.seeds import Purpose

pytestmark = pytest.mark.xdist_group("damage")  # one process makes what all of them need

Run = Callable[..., object]
EPG = ("train", "config.yaml", "--run", "run")
MORE = ("steps=4", "method.pairs=3")
STOP_IN_THE_LAST_GENERATION = """\
import os, signal
fsync = os.fsync
def stop(descriptor):
    fsync(descriptor)
    try:
        journal = open("run/journal.jsonl").read()
    except FileNotFoundError:
        return
    if journal.count('"step":3') == 2:
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = stop
"""


def damaged(sound: bytes, which: int) -> tuple[str, bytes]:
    """A file cut at one of its bytes, or with one of its bits changed: 9 damages for each byte."""
    place, bit = divmod(which, 9)
    if bit == 8:
        return f"cut at {place}", sound[:place]
    content = bytearray(sound)
    content[place] ^= 1 << bit
    return f"bit {bit} of byte {place} changed", bytes(content)


def damages(sound: bytes, every: int) -> Iterator[tuple[str, bytes]]:
    """All of them; or every so manieth, of each byte others than of the next."""
    return (damaged(sound, which) for which in range(0, 9 * len(sound), every))


EVERY = pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.soak)])
"""Two or three damages of each byte; all of them."""


@EVERY
@pytest.mark.parametrize("name", ["00000002.json", "00000002.safetensors"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tiny: Path, tmp_path: Path, name: str, every: int
) -> None:
    directory = RunDirectory(tmp_path / "run", load(tiny), Epg.metrics, {"alpha": 0.0})
    with directory.held():
        directory.begin()
        for generation in (1, 2):
            tensors = {"center": torch.full((3,), 0.1 * generation)}
            directory.save(Checkpoint(generation, tensors, {"best_validation": 0.5 * generation}))
        path = directory.path / "checkpoint" / name
        for damage, content in damages(path.read_bytes(), every):
            path.write_bytes(content)
            found = directory.resume(tensors)
            assert found is not None and found.step == 1, damage
            assert found.totals == {"best_validation": 0.5}
            assert torch.equal(found.tensors["center"], torch.full((3,), 0.1))


@EVERY
def test_a_damaged_journal_keeps_the_lines_that_are_whole(tmp_path: Path, every: int) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, "abc", {"alpha": 0.0})
    journal.clear()
    for first in range(3):
        unit = Unit(Purpose.TRAINING, 0, first, 1)
        arrays = {"fitness": np.array([[0.1, first]]), "kl": np.zeros(1), "entropy": np.zeros(1)}
        journal.append([Result(unit, arrays, 96, 0, 0.1)])
    sound = path.read_bytes()
    lines = sound.splitlines(keepends=True)
    ends = np.cumsum([len(line) for line in lines])
    for damage, content in damages(sound, every):
        path.write_bytes(content)
        found = [outcome.unit.first for outcome in journal.read(0)]
        assert path.read_bytes() == b"".join([lines[0], *(lines[1 + first] for first in found)])
        if len(content) < len(sound):
            assert len(found) == max(0, int((ends <= len(content)).sum()) - 1), damage
        else:  # a lost end of a line makes one of two
            place = next(i for i, byte in enumerate(sound) if content[i] != byte)
            hit = int((ends <= place).sum())
            gone = {hit - 1, hit} if place + 1 == ends[hit] else {hit - 1}
            expected = set() if hit == 0 else set(range(3)) - gone
            assert set(found) == expected, damage


@pytest.fixture(scope="session")
def stopped(epg: Run, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was stopped in mid-generation, and with its undisturbed twin."""
    folder = tmp_path_factory.mktemp("stopped")
    shutil.copy(tiny, folder / "config.yaml")
    arguments = (*EPG, *MORE, "farm.chunk=1")
    said = epg(*arguments, folder=folder, before=STOP_IN_THE_LAST_GENERATION)
    assert said.code == -signal.SIGKILL, said
    (folder / "run").rename(folder / "stopped")
    assert epg(*arguments, folder=folder).code == 0
    (folder / "run").rename(folder / "twin")
    return folder


@pytest.mark.parametrize("what", ["journal.jsonl", "checkpoint"])
def test_a_whole_relaunch_with_some_of_these_damages(
    epg: Run, stopped: Path, tmp_path: Path, what: str
) -> None:
    rng = np.random.default_rng(0)
    for _ in range(3):
        shutil.copy(stopped / "config.yaml", tmp_path)
        shutil.copytree(stopped / "stopped", tmp_path / "run")
        path = tmp_path / "run" / what
        if what == "checkpoint":
            path = path / str(rng.choice(["00000003.json", "00000003.safetensors"]))
        damage, content = damaged(path.read_bytes(), rng.integers(9 * path.stat().st_size))
        path.write_bytes(content)
        said = epg(*EPG, *MORE, folder=tmp_path)
        assert (said.code, said.err) == (0, ""), (path.name, damage, said)
        assert ("00000003.json: broken checkpoint" in said.out) == (what == "checkpoint")
        check_same(tmp_path / "run", stopped / "twin")
        shutil.rmtree(tmp_path / "run")
