"""Steps per second of a batch of lifetimes on one thread, final episodes not counted.

python benchmarks/lifetime_speed.py [--task NAME] [--lifetimes P] [--updates U] [--repeats 5]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from epg import tasks
from epg.agents.agents import bear
from epg.chunk import draw_mdp
from epg.config import Lifetime
from epg.lifetime import InnerAdam, act, body_of, draw_minibatches, learn
from epg.losses.mixture import Mixture
from epg.losses.ppo import Ppo
from epg.losses.temporal_conv import Architecture, TemporalConvLoss
from epg.seeds import Fate, Fates, Purpose, Stream


def measure(task_name: str, lifetimes: int, updates: int) -> float:
    """Environment steps per second of EPG's defaults: M 64, N 512, minibatch 32, PPO mixing 0.5.

    The buffer is filled first, so that every timed update costs what it costs in a long lifetime.
    """
    task, life = tasks.make(task_name), Lifetime(updates=updates)
    body = body_of(task, life)
    architecture = Architecture(body)
    fates = Fates([Fate(0, Purpose.ESTIMATE, 0, i) for i in range(lifetimes)], range(lifetimes))
    phi = torch.stack([architecture.draw(np.random.default_rng(i)) for i in range(lifetimes)])
    loss = Mixture([(0.5, TemporalConvLoss(architecture, phi, life.buffer)), (0.5, Ppo())])
    mdps = [draw_mdp(task, fate) for fate in fates.each()]
    environments = task.batch(mdps, [fate.rng(Stream.RESET) for fate in fates.each()])
    agents = bear(body, fates, life.train_memory)
    adam, buffer = InnerAdam(agents, life.learning_rate), agents.buffer(life.buffer)
    observation = environments.reset()
    warm = life.buffer // life.steps_per_update
    for update in range(warm + updates):
        if update == warm:
            started = time.perf_counter()
        new, observation = act(agents, environments, observation, fates, life.steps_per_update)
        experience = agents.remember(buffer, new)
        learn(agents, adam, loss, experience, draw_minibatches(fates, life))
    return lifetimes * life.steps / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--task", default="dir-hopper")
    parser.add_argument("--lifetimes", type=int, default=64)
    parser.add_argument("--updates", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rates = [measure(given.task, given.lifetimes, given.updates) for _ in range(given.repeats)]
    print(
        f"{given.task}, P = {given.lifetimes}, one thread: {statistics.median(rates):,.0f} steps/s "
        f"(median of {given.repeats}; {min(rates):,.0f} to {max(rates):,.0f})"
    )


if __name__ == "__main__":
    main()
