"""What an environment step of MetaGenRL's agents costs, in CPU time on one thread.

python benchmarks/metagenrl.py              # 8 agents at 2 x 64, 32 pieces, updates every 4 steps
python benchmarks/metagenrl.py --published  # one agent at 2 x 350 with 100 pieces, half-cheetah
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from epg import tasks
from epg.config import Config, validate
from epg.farm.work import Shared
from epg.losses.objective_gradient import ObjectiveGradient
from epg.methods.base import make_method
from epg.methods.metagenrl import MetaGenRl

PUBLISHED = 3.1
"""Agent-steps per core-second of the released code, on another machine."""


def configuration(published: bool) -> Config:
    """Of a population that learns after one episode."""
    agents = {
        "batch": 100 if published else 32, "every": 1 if published else 2, "random_steps": 1000,
        "memory": 4000,
    }  # fmt: skip
    data = {
        "task": "half-cheetah",
        "method": {
            "name": "metagenrl",
            "loss": {"name": "lstm", "agents": agents},
            "population": 1 if published else 8,
            "together": 8,
        },
        "agent": {"hidden": [350, 350] if published else [64, 64]},
        "learner": {"buffer": 64, "minibatch": 64},
        "lifetime": {"steps_per_update": 64},
    }
    return validate(data, "benchmark")


def milliseconds(work: Callable[[], object], times: int) -> float:
    """CPU time of a call: the median of so many."""
    found = []
    for _ in range(times):
        begun = time.process_time()
        work()
        found.append(1000 * (time.process_time() - begun))
    return statistics.median(found)


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--times", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = configuration(options.published)
    method = make_method(config, tasks.make(config.task))
    assert isinstance(method, MetaGenRl)
    method.begin(method.init())
    [unit] = method.workload(0).units()

    def one_round(first: bool = False) -> None:
        arrays = method.shared(0) | {"round": np.array(0)}
        method.round([method.run(Shared(0, arrays | method.members() if first else arrays), unit)])

    one_round(first=True)
    population = method._populations[0]
    agents, steps = population.agents, method._steps
    while not agents.active.all():
        population.live(50)
    one_round()
    # a round, and what it is made of
    alpha, active = method.for_each(method.params(), unit.count, "cpu"), agents.active
    pieces = agents.draw_pieces(agents.settings.batch)
    both = agents.draw_pieces(2 * agents.settings.batch)
    noise = torch.zeros_like(pieces.actions)
    judge = ObjectiveGradient(agents.networks, method.loss.objective)
    teach = method.loss.teaches(alpha)

    def critic() -> None:
        with torch.no_grad():
            targets = agents._critic_loss.targets(agents.networks, agents.target, pieces, noise)
        loss = agents._critic_loss(agents.networks, agents.parameters, pieces, targets)
        agents.optimizers["critic"].descend(loss, active)

    def policy() -> None:
        loss = teach(agents.networks, agents.parameters, pieces)
        agents.optimizers["policy"].descend(loss, active)

    parts = {
        f"a round ({steps} steps of each agent)": one_round,
        "  living": lambda: population.live(steps),
        "  a critic's update": critic,
        "  a policy's update": policy,
        "  the objective's gradient": lambda: judge.gradient(alpha, agents.parameters, both, 1),
    }
    for name, work in parts.items():
        found = milliseconds(work, options.times)
        print(f"{name:40} {found:8.1f} ms")
        if work is one_round:
            rate = 1000 * unit.count * steps / found
            print(f"  {found / steps:.1f} ms a step; {rate:.1f} agent-steps per core-second")
            if options.published:
                print(f"  {rate / PUBLISHED:.1f} x the released code's {PUBLISHED}")


if __name__ == "__main__":
    main()
