"""What a batch of environments costs, over the raw `mj_step` calls that it makes, on one thread.

The batch is stepped with random actions. Then the same models go through the same states in the
same data: recorded controls and resets are replayed, and only `mj_step` is timed. Both are done in
turn, `--repeats` times. Tasks that torch simulates are stepped alone, in CPU time; those whose
states can be counted also with these numbers in the place of observations.

python benchmarks/environment_speed.py [TASK ...] [--batch P] [--steps T] [--repeats 5]
"""

from __future__ import annotations

import argparse
import statistics
import time

import mujoco
import numpy as np
import torch

from epg import tasks
from epg.tasks.base import Batch
from epg.tasks.mujoco import MujocoBatch
from epg.tasks.numbered import Numbered

Recorded = list[tuple[np.ndarray, np.ndarray | None]]
"""For each step the controls [P, A], and after it the states [P, Q + V] if any episode began."""


def prepare(task: tasks.Task, p: int) -> MujocoBatch:
    batch = batched(task, p)
    assert isinstance(batch, MujocoBatch), f"{task.name} is not simulated by MuJoCo"
    return batch


def batched(task: tasks.Task, p: int) -> Batch:
    mdps = [task.draw(np.random.default_rng(i)) for i in range(p)]
    return task.batch(mdps, [np.random.default_rng([1, i]) for i in range(p)])


def time_making(task: tasks.Task, p: int) -> float:
    """Seconds to draw P MDPs and to make their models and data."""
    started = time.perf_counter()
    prepare(task, p)
    return time.perf_counter() - started


def time_batch(task: tasks.Task, actions: torch.Tensor) -> float:
    """Seconds for all steps."""
    batch = prepare(task, actions.shape[1])
    batch.reset()
    started = time.perf_counter()
    for action in actions:
        batch.step(action)
    return time.perf_counter() - started


def time_physics(task: tasks.Task, actions: torch.Tensor) -> float:
    """Seconds in `mj_step` alone, for the same."""
    batch = prepare(task, actions.shape[1])
    batch.reset()
    pairs = [(data.model, data) for data in batch.data]
    twin = prepare(task, actions.shape[1])  # lives through it first; its resets are copied
    twin.reset()
    step, frame_skip, seconds = mujoco.mj_step, batch.frame_skip, 0.0
    for action in actions:
        answer = twin.step(action)
        for data, ctrl in zip(batch.data, action.numpy(), strict=True):
            data.ctrl[:] = ctrl
        started = time.perf_counter()
        for model, data in pairs:
            step(model, data, frame_skip)
        seconds += time.perf_counter() - started
        for i in torch.nonzero(answer.terminated | answer.truncated).flatten().tolist():
            mujoco.mj_copyData(batch.data[i], batch.data[i].model, twin.data[i])
    return seconds


def show_native(task: tasks.Task, steps: int, p: int, repeats: int) -> None:
    """Environment steps per second of CPU."""
    generator = torch.Generator().manual_seed(0)
    shape, count = (steps, p), task.action_size
    actions = (
        torch.randint(count, shape, generator=generator)
        if task.discrete
        else torch.randn(*shape, count, generator=generator)
    )
    seen = {"": task, ", states as numbers": Numbered(task)} if task.states else {"": task}
    for how, each in seen.items():
        batch, rates = batched(each, p), []
        batch.reset()
        for _ in range(repeats):
            started = time.process_time()
            for action in actions:
                batch.step(action)
            rates.append(steps * p / (time.process_time() - started))
        print(
            f"{task.name}{how}, P = {p}: {statistics.median(rates):,.0f} steps a CPU-second "
            f"(median of {repeats}; {min(rates):,.0f} to {max(rates):,.0f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("tasks", nargs="*", default=["dir-hopper", "half-cheetah"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.tasks:
        task = tasks.make(name)
        if not isinstance(batched(task, 1), MujocoBatch):
            show_native(task, given.steps, given.batch, given.repeats)
            continue
        generator = torch.Generator().manual_seed(0)
        actions = torch.randn(given.steps, given.batch, task.action_size, generator=generator)
        pairs = [
            (time_batch(task, actions), time_physics(task, actions)) for _ in range(given.repeats)
        ]
        making = statistics.median(time_making(task, given.batch) for _ in range(given.repeats))
        ratios = [batch / physics for batch, physics in pairs]
        rate = given.steps * given.batch / statistics.median(physics for _, physics in pairs)
        print(
            f"{name}, P = {given.batch}: {statistics.median(ratios):.3f} × raw mj_step (median of "
            f"{given.repeats}; {min(ratios):.3f} to {max(ratios):.3f}); raw {rate:,.0f} steps/s; "
            f"made in {1000 * making:.0f} ms"
        )


if __name__ == "__main__":
    main()
