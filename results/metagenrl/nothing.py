"""Returns of agents that do nothing: all actions 0. What learning must be above.

    python results/metagenrl/nothing.py

On the held-out starts of `epg evaluate --seed 100 --lifetimes 8`, first final episodes.
Shape letters: P agents.
"""

from __future__ import annotations

import torch

from epg import tasks
from epg.evaluation.bootstrap import LIFETIMES, summarise
from epg.seeds import LifetimeSeeds, Purpose, Stream
from epg.tasks.base import draw_mdps

TASKS = ("half-cheetah", "reacher", "point-goal", "gym:InvertedPendulum-v5")
LIVES = 8


def main() -> None:
    for name in TASKS:
        task, seeds = tasks.make(name), LifetimeSeeds.of(100, Purpose.EVALUATION, 0, LIVES)
        resets = [seed.rng(Stream.FINAL_RESET, 0) for seed in seeds.each()]
        batch = task.batch(draw_mdps(task, seeds), resets, restart=False)
        batch.reset()
        returns = torch.zeros(LIVES, dtype=torch.float64)  # [P]
        for _ in range(task.horizon):
            returns += batch.step(torch.zeros(LIVES, task.action_size)).reward
        mean = summarise(returns.numpy()[:, None], LIFETIMES).mean
        print(f"{name}: {mean.value:.2f} [{mean.low:.2f}, {mean.high:.2f}], n {LIVES}")


if __name__ == "__main__":
    main()
