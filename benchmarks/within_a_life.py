"""What an update of a method that tunes itself costs beside its plain one, in CPU time, one thread.

python benchmarks/within_a_life.py             # all methods, 64 lives at once and 1

Catch, two layers of 64, rollouts of 20 steps that stay the same: updates alone, no environment.
Medians of 5 rounds, methods in turn within each. Shape letters: P lives.
"""

from __future__ import annotations

import statistics
import time

import torch

from epg import tasks
from epg.agents.base import Agents
from epg.agents.buffer import Transitions
from epg.config import Setup
from epg.lifetime import act
from epg.methods.base import make_algorithm
from epg.seeds import LifetimeSeeds, Purpose, Stream
from epg.tasks.base import draw_mdps, first_step

PLAIN = {
    "a2c": ("xu-discount", "xu", "xu-outer-value", "frodo", "bmg", "meta-entropy", "lirpg"),
    "vtrace": ("stac-return", "stac", "stacx"),
}
"""What tunes itself, by the method that it is without."""
SETUP = Setup().change(updates=1000, steps_per_update=20, hidden=(64, 64), buffer=20, minibatch=20)
ROUNDS = 5


class Learner:
    """P agents of a method, and a rollout."""

    def __init__(self, method: str, lives: int) -> None:
        task, seeds = tasks.make("catch"), LifetimeSeeds.of(0, Purpose.EVALUATION, 0, lives)
        self.lives = lives
        self.agents: Agents = make_algorithm(method).agents(task, SETUP, seeds)
        resets = [seed.rng(Stream.RESET) for seed in seeds.each()]
        batch = task.batch(draw_mdps(task, seeds), resets)
        self.new: Transitions = act(self.agents.policy(), batch, first_step(batch.reset()), 20)[0]
        self.milliseconds: list[float] = []

    def round(self, updates: int) -> None:
        """So many updates, timed."""
        begun = time.process_time()
        for _ in range(updates):
            self.agents.learn(self.new)
        self.milliseconds.append(1000 * (time.process_time() - begun) / updates)

    @property
    def median(self) -> float:
        """Milliseconds of an update of all lives."""
        return statistics.median(self.milliseconds)


def main() -> None:
    torch.set_num_threads(1)
    methods = [name for plain, tuning in PLAIN.items() for name in (plain, *tuning)]
    learners = {(name, lives): Learner(name, lives) for name in methods for lives in (1, 64)}
    for learner in learners.values():
        learner.round(16)
        learner.milliseconds.clear()
    for _ in range(ROUNDS):
        for learner in learners.values():
            learner.round(48)  # whole windows of every method
    print("method          ms of an update   of 64 lives   a life: of 64 / alone   beside plain")
    for plain, tuning in PLAIN.items():
        for name in (plain, *tuning):
            alone, many = (learners[name, lives].median for lives in (1, 64))
            beside = many / learners[plain, 64].median
            print(f"{name:<16}{alone:>14.2f}{many:>14.2f}{many / 64 / alone:>23.3f}{beside:>15.2f}")


if __name__ == "__main__":
    main()
