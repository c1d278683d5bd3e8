"""Lives of this version beside those of another: the share of raw physics that they reach, in turn.

    git worktree add ../before COMMIT
    python benchmarks/beside_version.py ../before --task dir-hopper half-cheetah

Each figure is `epg bench`'s own (64 lifetimes, one thread); a share is of `mj_step` timed in the
same seconds, so that a machine whose pace drifts gives the same. Ratios above 1: this version is
faster.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[1]


def share(checkout: Path, task: str) -> float:
    """The share of raw physics that 64 lifetimes of a checkout reach."""
    said = subprocess.run(
        [sys.executable, "-m", "epg", "bench", "--task", task, "--lifetimes", "64", "--json"],
        env=os.environ | {"PYTHONPATH": str(checkout)}, cwd=checkout, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    return float(json.loads(said.stdout.splitlines()[-1])["rows"][0]["lifetime_share"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="a checkout of the other version")
    parser.add_argument("--task", nargs="+", default=["dir-hopper", "half-cheetah"])
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    for task in asked.task:
        pairs = [
            (share(HERE, task), share(asked.before.resolve(), task)) for _ in range(asked.repeats)
        ]
        ratios = [now / before for now, before in pairs]
        print(
            f"{task}: now {statistics.median(now for now, _ in pairs):.3f}, before "
            f"{statistics.median(before for _, before in pairs):.3f}, ratio "
            f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
