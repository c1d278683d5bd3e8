"""Which GPU a worker uses. (Under a real SLURM: tests/slurm.)"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from epg.config import load
from epg.farm.gpu import gpu_of, visible_gpus
from epg.farm.isolated import IsolatedRunner
from epg.farm.rank import RankInfo
from epg.farm.work import Result, Shared, Unit
from epg.seeds import Purpose
from epg.tasks.base import Batch, Mdp
from epg.tasks.point_goal import PointGoal
from epg.training.runner import TrainingRunner


class Seen(PointGoal):
    """Point-goal that writes down which GPUs its process sees."""

    name = "seen"

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        Path(os.environ["SEEN"]).write_text(",".join(visible_gpus()))
        return super().batch(mdps, rngs, device, restart)


@pytest.mark.parametrize(
    ("visible", "device", "expected"),
    [
        ("0,1", "cuda", ["0", "1", "0", "1"]),
        ("3", "cuda", ["3", "3", "3", "3"]),
        ("GPU-a,GPU-b,GPU-c", "cuda", ["GPU-a", "GPU-b", "GPU-c", "GPU-a"]),
        ("0,1", "cuda:1", [None] * 4),
        ("0,1", "cpu", [None] * 4),
        ("", "cuda", [None] * 4),
        ("-1", "cuda", [None] * 4),
    ],
)
def test_the_workers_of_a_node_take_its_gpus_in_turn(
    monkeypatch: pytest.MonkeyPatch, visible: str, device: str, expected: list[str | None]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu_of(seat, device) for seat in range(4)] == expected


def test_the_process_that_runs_units_sees_its_own_alone(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    """Also the one that takes its place when it was given up."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    monkeypatch.setitem(sys.modules, "seen_task", sys.modules[__name__])
    runner = TrainingRunner(load(tiny, ["task=seen_task:Seen"]))
    isolated = IsolatedRunner(runner, lambda: None)
    isolated.gpu = "1"
    phi = {name: tensor.numpy() for name, tensor in runner.method.init().items()}
    try:
        for _ in range(2):
            isolated.begin(Shared(0, phi), Unit(Purpose.TRAINING, 0, 0, 1))
            assert isinstance(isolated.outcome(60), Result)
            assert (tmp_path / "seen").read_text() == "1"
            (tmp_path / "seen").unlink()
            isolated.give_up("for the test")
    finally:
        isolated.stop()
    assert visible_gpus() == ["0", "1"]


def test_the_log_says_who_sits_where(tiny: Path) -> None:
    assert str(RankInfo.of(load(tiny), 3, "GPU-b")).endswith(", GPU GPU-b")
    assert ", GPU" not in str(RankInfo.of(load(tiny), 0))
