"""Where γ and λ of each state end on two chains: high where what follows is worth counting.

    python results/within-a-life/chains.py

On signal-chain γ(s) is learned, with λ = 1: what follows even states is a reward, what follows odd
ones is noise. On aliased-chain λ(s) is learned, with γ = 1: odd states look alike, so that their
value says little, and λ must be higher there than in even ones, whose value is exact (after an idea
of Xu, van Hasselt & Silver 2018, arXiv 1805.09801; the layout is ours). Exact traces, and for
comparison truncated ones. Shape letters: P lives, T steps.
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

import numpy as np
import torch

from epg import tasks
from epg.agents.optimizers import Adam, Sgd
from epg.evaluation.bootstrap import LIFETIMES, summarise
from epg.lifetime import act
from epg.rules.agents import drawn
from epg.rules.online import Online, Tuning
from epg.rules.prediction import Prediction
from epg.rules.rollout import Rollout
from epg.rules.rule import Update
from epg.rules.trace import Tracer
from epg.seeds import LifetimeSeeds, Purpose, Stream
from epg.tasks.base import Step, draw_mdps, first_step

LENGTH, LIVES = 10, 32
RATE = 0.1
"""Of values, a state and visit; a loss is a mean over the chain."""
META_RATE = 0.01
TRACES = {"exact": Tracer(), "truncated": Tracer(0.0)}
CHAINS = {"signal-chain": "discount", "aliased-chain": "smoothing"}
"""What is learned on each."""


class Onwards:
    """The only policy that there is."""

    def act(self, step: Step) -> torch.Tensor:
        return torch.zeros(len(step.observation), dtype=torch.int64)


def ends(chain: str, tracer: Tracer, episodes: int) -> np.ndarray:
    """[P, states] where γ or λ of each state has come after so many episodes."""
    task, seeds = tasks.make(chain), LifetimeSeeds.of(0, Purpose.EVALUATION, 0, LIVES)
    resets = [seed.rng(Stream.RESET) for seed in seeds.each()]
    environments = task.batch(draw_mdps(task, seeds), resets)
    # a number for each state that is entered, the last one where the chain ends
    learned = CHAINS[chain]
    rule = Prediction(
        task.observation_size, learned=(learned,), start=0.0, states=torch.arange(1, LENGTH + 1)
    )
    update = Update(rule, Sgd(RATE * LENGTH))
    tuning = Tuning(Adam(META_RATE), tracer=tracer)
    theta, eta = drawn(seeds, Stream.AGENT, rule.init), drawn(seeds, Stream.LOSS, rule.init_eta)
    online = Online(update, tuning, theta, eta)
    step = first_step(environments.reset())
    for _ in range(episodes):
        new, step = act(Onwards(), environments, step, LENGTH)
        online.learn(Rollout.of(new))
    return torch.sigmoid(online.eta[learned])[:, 1:LENGTH].detach().numpy()


def main(episodes: int) -> None:
    here = Path(__file__).parent
    with (here / "chains.csv").open("w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("chain", "trace", "life", *(f"state {s}" for s in range(1, LENGTH))))
        for chain in CHAINS:
            for name, tracer in TRACES.items():
                began = time.process_time()
                found = ends(chain, tracer, episodes)
                for life, row in enumerate(found):
                    writer.writerow((chain, name, life, *(f"{x:.4f}" for x in row)))
                odd, even = found[:, 0::2].mean(1), found[:, 1::2].mean(1)
                wanted = even > odd if chain == "signal-chain" else odd > even
                shown = [summarise(x[:, None], LIFETIMES).mean for x in (even, odd)]
                print(
                    f"{chain}, {CHAINS[chain]}, {name}: "
                    + ", ".join(
                        f"{which} states {i.value:.3f} [{i.low:.3f}, {i.high:.3f}]"
                        for which, i in zip(("even", "odd"), shown, strict=True)
                    )
                    + f"; in the order expected in {int(wanted.sum())} of {LIVES} lives; "
                    f"{time.process_time() - began:.0f} s of CPU"
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 6000)
