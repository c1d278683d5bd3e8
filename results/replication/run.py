"""A2C on CartPole-v1 that tunes its γ, as in "Replication: Meta-Gradient Reinforcement Learning"
(Kao, Tsai & Chang, of Xu, van Hasselt & Silver 2018, arXiv 1805.09801), beside A2C that does not.

    python results/replication/run.py                           # `make replication`
    python results/replication/run.py --line-11 literal --seeds 2 --iterations 50 --out DIR

Nine seeds of every setting learn side by side, each with the starts, resets and chance of its seed
whatever the setting. Writes iterations.csv and summary.csv, and by pictures.py figures and tables.
Shape letters: P agents, T steps, U iterations, R rows, K policy outputs.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pictures
import torch
from readings import GAMMA, OUTER_GAMMA, Agents, a2c
from torch import Tensor

from epg import tasks
from epg.agents.buffer import Transitions
from epg.lifetime import act, final_returns
from epg.seeds import LifetimeSeed, LifetimeSeeds, Purpose, Stream
from epg.tasks.base import draw_mdps, first_step

SEEDS = (0, 1, 2, 3, 4, 5, 6, 7, 9)
"""Nine, those that the text names."""
STARTS = (1.5, 1.1, 1.0, 0.99, 0.9, 0.8)
"""γ₀"""
STEPS, ITERATIONS, META_RATE = 30, 500, 1e-4
SOLVED = 475.0
FRESH = 20
"""Episodes by which the policy that an agent ended with is judged besides."""


@dataclass(frozen=True)
class Setting:
    """What agents have in common; way: how their γ moves, see WAYS in readings.py."""

    way: str
    starts: tuple[float, ...] = STARTS
    shown: tuple[float, ...] = STARTS
    """of which iterations are written"""
    joint: bool = False
    """whether both nets are clipped as one"""

    @property
    def name(self) -> str:
        return f"{self.way}, joint clip" if self.joint else self.way


ALONE = (OUTER_GAMMA,)
SETTINGS = (
    Setting("naive", shown=ALONE),
    Setting("definition"),
    Setting("formula"),
    Setting("literal"),
    Setting("second", ALONE, ()),
    Setting("naive", ALONE, (), joint=True),
    Setting("definition", ALONE, (), joint=True),
)
LEFT_OUT = {"both": (), "definition": ("literal", "second"), "literal": ("definition", "formula")}
"""By what is asked for."""


@dataclass
class Course:
    """What became of P agents; the rows of an agent count up to its end."""

    returns: np.ndarray
    """[P, U] mean return of the episodes that ended in an iteration's steps; NaN where none did"""
    gamma: np.ndarray
    """[P, U] with which an iteration was played"""
    error: np.ndarray
    """[P, U], as `cosine` and `scores`, of its steps and those before them; NaN in the first; see
    `Parts` in readings.py"""
    cosine: np.ndarray
    scores: np.ndarray
    end: np.ndarray
    """[P] iterations until it was solved, left the finite, or the last"""
    solved: np.ndarray
    finite: np.ndarray
    fresh: np.ndarray
    """[P] mean return of FRESH episodes of the policy it ended with"""


def train(setting: Setting, runs: Sequence[int], iterations: int, meta_rate: float) -> Course:
    """P = γ₀ × seeds agents of a setting, each until an iteration's return is above SOLVED."""
    task = tasks.make("cart-pole")
    # all γ₀ of a seed share its start, resets and chance
    each = [LifetimeSeed(run, Purpose.EVALUATION, 0, 0) for run in runs]
    seeds = LifetimeSeeds(each, [i for _ in setting.starts for i in range(len(runs))])
    mdps = draw_mdps(task, seeds)
    environments = task.batch(mdps, [seed.rng(Stream.RESET) for seed in seeds.each()])
    starts = torch.tensor(setting.starts).repeat_interleave(len(runs))
    rule = a2c(task.observation_size)
    agents = Agents(rule, setting.way, setting.joint, meta_rate, seeds, starts)
    # an agent that has ended goes on in the batch, but nothing is noted of it
    size = len(seeds)
    names = ("returns", "gamma", "error", "cosine", "scores")
    noted = {name: np.full((size, iterations), np.nan) for name in names}
    end, solved, ended = np.full(size, iterations), np.zeros(size, bool), np.zeros(size, bool)
    last, running = agents.theta, np.zeros(size)
    step = first_step(environments.reset())
    for i in range(iterations):
        playing, gamma = agents.theta, agents.eta[GAMMA]
        new, step = act(agents.policy(), environments, step, STEPS)
        running, returned = episodes(running, new)
        told = {"returns": returned, "gamma": gamma, **agents.learn(new)}
        for name, numbers in told.items():
            noted[name][:, i] = numbers
        # who ends here keeps the θ that played
        stops = ~ended & ((returned > SOLVED) | agents.failed.numpy())
        solved |= stops & (returned > SOLVED)
        end[stops], ended = i + 1, ended | stops
        still = torch.from_numpy(~ended | stops)
        last = {n: torch.where(_like(still, p), playing[n], p) for n, p in last.items()}
        if ended.all():
            break
    agents.stand(last)
    fresh, _, _ = final_returns(agents, task, mdps, seeds, FRESH)
    return Course(**noted, end=end, solved=solved, finite=solved | ~ended, fresh=fresh.numpy())


def episodes(running: np.ndarray, new: Transitions) -> tuple[np.ndarray, np.ndarray]:
    """Return so far of the episodes that go on [P], and the mean of those that ended [P]."""
    total, count = np.zeros_like(running), np.zeros_like(running)
    done = (new.terminated | new.truncated).numpy()
    for reward, over in zip(new.rewards.numpy().T, done.T, strict=True):
        running = running + reward
        total, count = total + over * running, count + over
        running = running * ~over
    return running, np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _like(which: Tensor, leaf: Tensor) -> Tensor:
    return which.reshape(-1, *[1] * (leaf.ndim - 1))


def rounded(number: float, digits: int = 5) -> str:
    """Nothing for NaN."""
    return "" if math.isnan(number) else f"{number:.{digits}g}"


def names_of(setting: Setting, runs: Sequence[int]) -> list[tuple[str, str, str]]:
    """[P] setting, γ₀ and seed."""
    return [(setting.name, f"{start:g}", str(run)) for start in setting.starts for run in runs]


def iterations(course: Course, p: int) -> Iterator[tuple[str, ...]]:
    """Rows of an agent, up to its end."""
    parts = (course.error, course.cosine, course.scores)
    for i in range(course.end[p]):
        moved = rounded(course.returns[p, i]), rounded(course.gamma[p, i])
        yield str(i + 1), *moved, *(rounded(each[p, i], 3) for each in parts)


def summary(course: Course, p: int) -> tuple[str, ...]:
    """What became of an agent."""
    gamma = course.gamma[p, : course.end[p]]
    numbers = (gamma[-1], gamma.min(), gamma.max(), course.fresh[p])
    solved, finite = bool(course.solved[p]), int(course.finite[p])
    return str(course.end[p]) if solved else "", *map(rounded, numbers), str(finite)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--line-11", choices=tuple(LEFT_OUT), default="both")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="nine, and then others")
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--meta-rate", type=float, default=META_RATE)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    runs = (*SEEDS, 8, *range(10, options.seeds))[: options.seeds]
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        (options.out / "iterations.csv").open("w") as courses,
        (options.out / "summary.csv").open("w") as ends,
    ):
        rows, agents = (csv.writer(file, lineterminator="\n") for file in (courses, ends))
        rows.writerow(pictures.ITERATIONS)
        agents.writerow(pictures.SUMMARY)
        for setting in SETTINGS:
            if setting.way in LEFT_OUT[options.line_11]:
                continue
            began = time.process_time()
            course = train(setting, runs, options.iterations, options.meta_rate)
            for p, name in enumerate(names_of(setting, runs)):
                agents.writerow((*name, *summary(course, p)))
                if float(name[1]) in setting.shown:
                    rows.writerows((*name, *row) for row in iterations(course, p))
            print(f"{setting.name}: {time.process_time() - began:.0f} s of CPU", flush=True)
    pictures.draw(options.out)
    print("\n".join(pictures.tables(pictures.Results(options.out))))


if __name__ == "__main__":
    main()
