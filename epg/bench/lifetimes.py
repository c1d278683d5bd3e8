"""A batch of lifetimes, its acting and its environments, over the physics that they make.

One batch of lifetimes goes on; after some of its updates the same controls and resets are replayed,
in the same models, by a batch of environments and by `mj_step` alone. So all that is compared was
done within seconds, and the states are the same to the last bit.
"""

from __future__ import annotations

import multiprocessing
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from epg import tasks
from epg.agents.base import Agents
from epg.config import Config
from epg.errors import UserError
from epg.lifetime import LifetimeMetrics, act, live
from epg.methods.base import make_method
from epg.seeds import LifetimeSeeds, Purpose, Stream
from epg.tasks.base import Task, draw_mdps, first_step

REPEATS = 5
MANY = 64
"""Up to so many, several updates are timed at once, so that caches are as warm as they get."""


@dataclass(frozen=True)
class Row:
    """What was measured with P lifetimes; shares are of raw physics, 1 being its pace."""

    lifetimes: int
    physics_steps_per_s: float
    environment_share: float
    acting_share: float
    """acting and environments, without learning"""
    lifetime_share: float
    """acting, environments and learning, without final episodes"""
    lifetime_steps_per_s: float
    peak_memory_mb: float
    """of a process that lives P lifetimes, final episodes included"""


def measure(name: tasks.Spec, lifetimes: int, threads: int = 1) -> Row:
    """One row, in processes of its own."""
    memory = _apart(_peak_memory, name, lifetimes, threads)
    seconds = _apart(_seconds, name, lifetimes, threads)
    physics, environment, acting, lifetime = np.array(seconds).T
    return Row(
        lifetimes=lifetimes,
        physics_steps_per_s=lifetimes / float(np.median(physics)),
        environment_share=float(np.median(physics / environment)),
        acting_share=float(np.median(physics / acting)),
        lifetime_share=float(np.median(physics / lifetime)),
        lifetime_steps_per_s=lifetimes / float(np.median(lifetime)),
        peak_memory_mb=memory,
    )


def _apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a fresh process, which leaves Ctrl-C to this one."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        return pool.apply(function, arguments)


def check(name: tasks.Spec) -> None:
    """Raise `UserError` if a task has no physics of MuJoCo's to compare with."""
    task = tasks.make(name)
    rng = np.random.default_rng(0)
    if not hasattr(task.batch([task.draw(rng)], [rng]), "data"):
        raise UserError(f"task {tasks.label(name)}: no physics of MuJoCo's to compare it with")


def _agents(config: Config, task: Task, seeds: LifetimeSeeds) -> Agents:
    """That go down EPG's loss, with as much of PPO."""
    method = make_method(config, task)
    return method.agents(method.init(), seeds)


def _config(name: tasks.Spec, **lifetime: int) -> Config:
    """EPG's defaults, half PPO."""
    method = {"name": "epg", "alpha": 0.5}
    return Config.model_validate({"task": name, "method": method, "lifetime": lifetime})


def _peak_memory(name: tasks.Spec, lifetimes: int, threads: int) -> float:
    """MB, of a lifetime whose buffer comes to be full."""
    torch.set_num_threads(threads)
    usual = _config(name)
    filling = usual.learner.buffer // usual.lifetime.steps_per_update
    config, task = _config(name, updates=filling + 1), tasks.make(name)
    seeds = LifetimeSeeds.of(0, Purpose.ESTIMATE, 0, lifetimes)
    live(task, draw_mdps(task, seeds), _agents(config, task, seeds), seeds, config.lifetime)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _seconds(name: tasks.Spec, lifetimes: int, threads: int) -> list[list[float]]:
    """Seconds per step of physics, environments, acting and all, for each repeat."""
    torch.set_num_threads(threads)
    config, task = _config(name), tasks.make(name)
    seeds = LifetimeSeeds.of(0, Purpose.ESTIMATE, 0, lifetimes)
    mdps, steps = draw_mdps(task, seeds), config.lifetime.steps_per_update

    def environments() -> Any:
        return task.batch(mdps, [seed.rng(Stream.RESET) for seed in seeds.each()])

    main, twin, physics = environments(), environments(), _Physics(environments())
    agents, notes = _agents(config, task, seeds), LifetimeMetrics(lifetimes, "cpu")
    step = first_step(main.reset())
    twin.reset()
    filling = config.learner.buffer // steps
    updates = 4 if lifetimes <= MANY else 1
    rows = []
    for repeat in range(-1, REPEATS):  # the one before fills the buffer
        acting = whole = 0.0
        lived = []
        for _ in range(filling if repeat < 0 else updates):
            started = time.perf_counter()
            new, step = act(agents.policy(), main, step, steps)
            acting += time.perf_counter() - started
            notes.add(new, agents.learn(new))
            whole += time.perf_counter() - started
            lived.append(new)
        controls = torch.cat([new.actions for new in lived], 1).transpose(0, 1).contiguous()
        ended = torch.cat([new.terminated | new.truncated for new in lived], 1).T
        started = time.perf_counter()
        for actions in controls:
            twin.step(actions)
        environment = time.perf_counter() - started
        raw = physics.replay(controls.numpy(), ended.numpy())
        if repeat >= 0:
            rows.append([seconds / len(controls) for seconds in (raw, environment, acting, whole)])
    return rows


class _Physics:
    """A batch of environments of which only `mj_step` is timed."""

    def __init__(self, batch: Any) -> None:
        batch.reset()
        self._batch = batch

    def replay(self, actions: np.ndarray, ended: np.ndarray) -> float:
        """Seconds for controls [T, P, A], after each of which some episodes ended, [T, P]."""
        import mujoco

        step, frame_skip, seconds = mujoco.mj_step, self._batch.frame_skip, 0.0
        pairs = [(data.model, data) for data in self._batch.data]
        for controls, over in zip(actions, ended, strict=True):
            for (_, data), control in zip(pairs, controls, strict=True):
                data.ctrl[:] = control
            started = time.perf_counter()
            for model, data in pairs:
                step(model, data, frame_skip)
            seconds += time.perf_counter() - started
            if over.any():
                self._batch.begin(np.flatnonzero(over))
        return seconds


def table(name: str, threads: int, rows: list[Row]) -> str:
    """For people."""
    lines = [
        f"{name}, {threads} thread{'s' * (threads > 1)}; EPG's defaults, buffer full; "
        f"shares of raw mj_step, medians of {REPEATS}",
        f"{'P':>5} {'physics/s':>11} {'environment':>12} {'+ acting':>9} {'lifetime':>9} "
        f"{'lifetime/s':>11} {'memory':>9}",
    ]
    for r in rows:
        lines.append(
            f"{r.lifetimes:>5} {r.physics_steps_per_s:>11,.0f} {r.environment_share:>12.3f} "
            f"{r.acting_share:>9.3f} {r.lifetime_share:>9.3f} {r.lifetime_steps_per_s:>11,.0f} "
            f"{r.peak_memory_mb:>6,.0f} MB"
        )
    return "\n".join(lines)
