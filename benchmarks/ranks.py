"""Two worker ranks against two processes that know nothing of each other, on real lifetimes.

In turn, `--repeats` times: `mpirun` with a master and two workers on 128 pairs, and two serial runs
at once on 64 pairs each, which also have their own evolution. Prints the ratio of the steps per
second, and the master's overhead: the share of the workers' time that went into no lifetime.

python benchmarks/ranks.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

CONFIG = """\
task: dir-hopper
steps: 4
method: {name: epg, pairs: 128, alpha: 0.5}
lifetime: {updates: 8}
validation: {every: 1000, lifetimes: 2}
farm: {chunk: 32}
"""


def start(folder: Path, name: str, *more: str) -> subprocess.Popen[bytes]:
    """A run in `folder`/`name`."""
    command = [sys.executable, "-m", "epg", "train", "config.yaml", "--run", name, *more]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)


def rates(run: Path) -> tuple[float, float]:
    """Steps per second and core-seconds per second, medians over generations but the first."""
    with open(run / "metrics.csv", newline="") as file:
        rows = [{k: float(v or "nan") for k, v in row.items()} for row in csv.DictReader(file)]
    speeds, cores = [], []
    for before, row in pairwise(rows):
        steps = row["environment_steps"] - before["environment_steps"]
        seconds = steps / row["steps_per_second"]
        speeds.append(row["steps_per_second"])
        cores.append((row["core_seconds"] - before["core_seconds"]) / seconds)
    return statistics.median(speeds), statistics.median(cores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    ratios, overheads = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "config.yaml").write_text(CONFIG)
            start(folder, "ranks", "--ranks", "3").wait()
            alone = [start(folder, f"alone{i}", "method.pairs=64", f"seed={i}") for i in (1, 2)]
            for process in alone:
                process.wait()
            together, cores = rates(folder / "ranks")
            apart = sum(rates(folder / f"alone{i}")[0] for i in (1, 2))
        ratios.append(together / apart)
        overheads.append(1 - cores / 2)
        print(
            f"{together:,.0f} steps/s, alone {apart:,.0f}; overhead {overheads[-1]:.4f}", flush=True
        )
    for name, found in (("2 ranks / 2 processes", ratios), ("master's overhead", overheads)):
        print(
            f"{name}: {statistics.median(found):.3f} (median of {repeats}; "
            f"{min(found):.3f} to {max(found):.3f})"
        )


if __name__ == "__main__":
    main()
