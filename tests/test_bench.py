"""The benches run and tell what they found; how fast anything is, is not tested."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_lifetimes(command: Run, tmp_path: Path) -> None:
    said = command("epg", "bench", "--lifetimes", "1,2", "--json", folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    found = json.loads(said.out.splitlines()[-1])
    assert (found["task"], found["threads"]) == ("dir-hopper", 1)
    assert [row["lifetimes"] for row in found["rows"]] == [1, 2]
    for row in found["rows"]:
        assert set(row) == {
            "lifetimes", "physics_steps_per_s", "environment_share", "acting_share",
            "lifetime_share", "lifetime_steps_per_s", "peak_memory_mb",
        }  # fmt: skip
        assert row["acting_share"] > row["lifetime_share"] > 0  # acting is a part of it
        assert row["environment_share"] > 0 and 50 < row["peak_memory_mb"] < 2000
        assert row["lifetime_steps_per_s"] > 0 and row["physics_steps_per_s"] > 0
    assert list(tmp_path.iterdir()) == []


def test_farm(command: Run, tmp_path: Path) -> None:
    said = command(
        "epg", "bench", "--farm", "--workers", 6, "--pairs", 12, "--seconds", 0.05,
        "--generations", 2, "--json", folder=tmp_path,
    )  # fmt: skip
    assert (said.code, said.err) == (0, "")
    found = json.loads(said.out.splitlines()[-1])
    assert (found["workers"], found["pairs"]) == (6, 12) and 9000 < found["phi"] < 11000
    assert found["generation_seconds"] > 2 * 0.05 and 0 < found["busy"] < 1
    assert found["chunks_per_s"] == pytest.approx(12 / found["generation_seconds"])
    assert found["master_share"] > 0 and found["master_memory_mb"] > 50
    assert found["bytes_per_generation"] > 6 * 4 * found["phi"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--task", "cart-pole"], "task cart-pole: no physics of MuJoCo's"),
        (["--task", "hoper"], "did you mean hopper"),
        (["--lifetimes", "0"], "--lifetimes: found '0'"),
        (["--lifetimes", "1;2"], "--lifetimes: found '1;2'"),
        (["--threads", "0"], "--threads"),
        (["--farm", "--workers", "1"], "--workers"),
        (["--farm", "--workers", "7"], "--workers: found 7, allowed: a multiple of 2"),
    ],
)
def test_bench_refuses(epg: Run, tmp_path: Path, arguments: list[str], told: str) -> None:
    said = epg("bench", *arguments, folder=tmp_path)
    assert said.code == 2 and said.out == "" and said.err.count("\n") == 1
    assert told in said.err


@pytest.mark.soak
def test_of_several_ranks_one_benches(command: Run, tmp_path: Path) -> None:
    arguments = ("epg", "bench", "--lifetimes", "1", "--json")
    said = command("mpirun", "-n", 2, *arguments, folder=tmp_path)
    assert said.code == 0 and said.out.count('"rows"') == 1
