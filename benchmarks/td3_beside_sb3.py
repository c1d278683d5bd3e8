"""Our TD3 beside Stable-Baselines3's, with settings made equal: is one of the two a straw man?

    python benchmarks/td3_beside_sb3.py [hopper half-cheetah] [--out FOLDER]

30,016 steps, layers of 64, batches of 100, 1,000 random steps; 16 lives of ours, 8 of the
library's, whose networks have no layer norms: the ratio of mean final returns with its 95 %
bootstrap interval.
Under mpirun it takes all ranks. The same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import numpy as np
import stable_baselines3

from epg import tasks
from epg.config import Config
from epg.evaluation.bootstrap import LIFETIMES, summarise
from epg.evaluation.entry import EntryRunner, entry_of
from epg.farm import Farm
from epg.farm.run import run_on_ranks
from epg.methods import sb3_agents
from epg.methods.base import make_algorithm
from epg.methods.td3 import Td3
from epg.runs.journal import Journal
from epg.runs.lock import Lock
from epg.seeds import Purpose

LIVES = {"td3": 16, "sb3-td3": 8}
HIDDEN, STEPS, EACH = (64, 64), 30_016, 64
WANTED = 0.8
"""The lower end of the ratio, at least."""
OURS = Td3.settings
sb3_agents.TD3 = functools.partial(  # type: ignore[misc, assignment]
    stable_baselines3.TD3, policy_kwargs={"net_arch": list(HIDDEN)}, batch_size=OURS.batch,
    learning_starts=OURS.random_steps, learning_rate=OURS.learning_rate, tau=OURS.speed,
    policy_delay=OURS.delay, target_policy_noise=OURS.smoothing,
)  # fmt: skip


def ratio(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """Of means, and the ends of its interval."""
    rng = np.random.default_rng(0)

    def means(returns: np.ndarray) -> np.ndarray:
        drawn = rng.integers(0, len(returns), (10_000, len(returns)))
        return np.asarray(returns[drawn].mean(1))

    low, high = np.quantile(means(ours) / means(theirs), (0.025, 0.975))
    return float(ours.mean() / theirs.mean()), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", nargs="*", default=["hopper", "half-cheetah"])
    parser.add_argument("--out", type=Path, default=Path("td3-beside-sb3"))
    options = parser.parse_args()
    config = Config(task="hopper")
    setup = config.setup.change(updates=STEPS // EACH, steps_per_update=EACH, hidden=HIDDEN)
    for method, lives in LIVES.items():
        folder = options.out / method
        folder.mkdir(parents=True, exist_ok=True)
        entries = [
            entry_of(method, make_algorithm(method), tasks.make(name), setup)
            for name in options.tasks
        ]
        runner = EntryRunner(config, entries, 0, Purpose.EVALUATION)
        journal = Journal(folder / "journal.jsonl", repr(options.tasks), {})

        def lead(farm: Farm, runner=runner, lives=lives, journal=journal, folder=folder) -> None:  # type: ignore[no-untyped-def]
            with Lock(folder / "lock") as lock:
                results = runner.collect(farm, lives, journal, lock)
            for name, result in zip(options.tasks, results, strict=True):
                np.save(folder / f"{name}.npy", result.final_return)

        run_on_ranks(runner, folder / "log", lead)
    for name in options.tasks:
        found = {method: np.load(options.out / method / f"{name}.npy") for method in LIVES}
        print(f"{name}: {STEPS:,} steps")
        for method, returns in found.items():
            mean = summarise(returns[:, None], LIFETIMES).mean
            print(f"  {method:<8} {mean}, n {len(returns)}")
        value, low, high = ratio(found["td3"], found["sb3-td3"])
        print(f"  ratio {value:.2f} [{low:.2f}, {high:.2f}] (wanted: at least {WANTED} there)")


if __name__ == "__main__":
    main()
