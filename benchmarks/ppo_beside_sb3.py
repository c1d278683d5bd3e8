"""Our PPO beside Stable-Baselines3's, with equal settings: is one of the two misunderstood?

    python benchmarks/ppo_beside_sb3.py [--lifetimes 128] [--out FOLDER]

On hopper and cart-pole, at the same environment steps, initial agents and starts: the difference
of mean final returns with its 95 % bootstrap interval. Under mpirun it takes all ranks. The same
command goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from epg import tasks
from epg.config import Config
from epg.evaluation.bootstrap import LIFETIMES, difference, summarise
from epg.evaluation.entry import EntryRunner, entry_of
from epg.farm import Farm
from epg.farm.run import run_on_ranks
from epg.methods.base import make_algorithm
from epg.runs.journal import Journal
from epg.runs.lock import Lock
from epg.seeds import Purpose

TASKS = {
    "hopper": {"updates": 64, "minibatch": 32, "passes": 5, "learning_rate": 1e-3},
    "cart-pole": {"updates": 64, "minibatch": 32, "passes": 5, "learning_rate": 1e-3},
}
METHODS = ("ppo", "sb3-ppo")
WANTED = 0.15
"""Half the interval's width over the mean, at most."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lifetimes", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("ppo-beside-sb3"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    config = Config(task="hopper")
    entries = [
        entry_of(method, make_algorithm(method), tasks.make(name), config.setup.change(**settings))
        for name, settings in TASKS.items()
        for method in METHODS
    ]
    runner = EntryRunner(config, entries, 0, Purpose.EVALUATION)
    journal = Journal(options.out / "journal.jsonl", repr(TASKS), {})

    def lead(farm: Farm) -> None:
        with Lock(options.out / "lock") as lock:
            results = runner.collect(farm, options.lifetimes, journal, lock)
        for name in TASKS:
            ours, theirs = (
                result.final_return[:, None]
                for entry, result in zip(entries, results, strict=True)
                if entry.task.name == name
            )
            found = difference(ours, theirs)
            middle = (ours.mean() + theirs.mean()) / 2
            half = (found.high - found.low) / 2 / middle
            print(
                f"{name}: {entries[0].setup.lifetime.steps:,} steps, n = {options.lifetimes} each"
            )
            for method, returns in zip(METHODS, (ours, theirs), strict=True):
                print(f"  {method:<8} {summarise(returns, LIFETIMES).mean}")
            print(
                f"  difference {found}: {'contains' if found.low <= 0 <= found.high else 'MISSES'} "
                f"0, ± {half:.1%} of the mean (wanted: at most {WANTED:.0%})"
            )

    run_on_ranks(runner, options.out / "log", lead)


if __name__ == "__main__":
    main()
