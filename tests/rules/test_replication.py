"""The script of results/replication: its decomposition against numbers computed apart from it, and
that it can be trusted to run again as it did."""

from __future__ import annotations

import csv
import importlib.util
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from vectors import GRADIENTS, close, control, eta_of, load, rollout_of

from epg.agents.optimizers import Sgd
from epg.rules.rule import Update

FOLDER = Path(__file__).parents[2] / "results" / "replication"
WRITTEN = {"iterations.csv", "summary.csv", *(f"figure{n}.png" for n in range(2, 8))}
SHORT = ("--seeds", "2", "--iterations", "4", "--meta-rate", "0.01")


@pytest.fixture(scope="module")
def run() -> ModuleType:
    sys.path.insert(0, str(FOLDER))  # as when it is run
    spec = importlib.util.spec_from_file_location("replication_run", FOLDER / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    sys.path.remove(str(FOLDER))
    return module


def test_the_decomposition_is_that_of_the_vectors(run: ModuleType) -> None:
    numbers = load("xu_control")
    rule, theta = control(numbers)
    eta = eta_of(numbers)
    first, second = (rollout_of(numbers, "in_", k) for k in (0, 1))
    after, _ = Update(rule, Sgd(float(numbers["alpha"])))(eta, theta, {}, first, graph=False)
    parts = sys.modules["readings"].decompose(rule, eta, theta, after, first, second)
    close(parts.error, numbers["decomp_error_mean"])
    close(parts.inner, numbers["decomp_inner"], GRADIENTS)
    close(parts.cosine, numbers["decomp_cosine"], GRADIENTS)


def test_it_writes_its_files_and_the_same_again(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    few = [replace(s, starts=(0.99,), shown=s.shown and (0.99,)) for s in run.SETTINGS]
    monkeypatch.setattr(run, "SETTINGS", few)
    run.main([*SHORT, "--out", str(first)])
    assert {path.name for path in first.iterdir()} == WRITTEN
    monkeypatch.setattr(run.pictures, "draw", lambda folder: None)
    run.main([*SHORT, "--out", str(again)])
    for name in ("iterations.csv", "summary.csv"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    with (first / "summary.csv").open() as file:
        ends = list(csv.DictReader(file))
    assert len(ends) == 2 * len(few)
    # what moves γ does, differently, and naive agents have the γ that they began with
    moved = {end["setting"]: end["final_gamma"] for end in ends}
    assert moved.pop("naive") == moved.pop("naive, joint clip") == "0.99"
    assert "0.99" not in moved.values() and len(set(moved.values())) == len(moved)


def test_naive_agents_are_those_whose_gamma_moves_by_nothing(run: ModuleType) -> None:
    naive, still, moving = (
        run.train(run.Setting(way, (0.99, 0.9)), (0, 1), 5, rate)
        for way, rate in (("naive", 1e-4), ("definition", 0.0), ("definition", 1e-2))
    )
    for field in fields(naive):
        np.testing.assert_array_equal(getattr(naive, field.name), getattr(still, field.name))
    assert (moving.gamma[:, -1] != naive.gamma[:, -1]).all()
    assert (moving.error[:, -1] != naive.error[:, -1]).all()
