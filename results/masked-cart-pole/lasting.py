"""How far the loss is from PPO in lives of several lengths, in parts of PPO's mean.

    python results/masked-cart-pole/lasting.py

Reads lives-of-*/returns.csv; mean final return of the loss less PPO's, with its 95 % bootstrap
interval over lifetimes.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from epg.evaluation.bootstrap import difference


def main() -> None:
    for file in sorted(Path(__file__).parent.glob("lives-of-*/returns.csv"), key=steps_of):
        returns: dict[str, list[float]] = {}
        with file.open() as lines:
            for row in csv.DictReader(lines):
                returns.setdefault(row["method"], []).append(float(row["final_return"]))
        ours, ppo = (np.array(returns[name])[:, None] for name in ("learned loss", "ppo"))
        found = difference(ours, ppo)
        part = found.low / ppo.mean()
        print(f"{steps_of(file):,} steps, n {len(ours)}: {found}; at worst {part:+.1%} of PPO's")


def steps_of(file: Path) -> int:
    return int(file.parent.name.rpartition("-")[2])


if __name__ == "__main__":
    main()
