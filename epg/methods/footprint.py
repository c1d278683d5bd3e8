"""What lifetimes take of memory, at least: known before anything is allocated.

A bound from below: what it refuses cannot fit, what it lets pass may still not fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from epg.agents.off_policy import OffPolicySettings, check_pieces
from epg.agents.sampling import NOISE_AHEAD
from epg.agents.spec import AgentSpec, Shapes
from epg.config import Setup
from epg.errors import UserError
from epg.process.machine import memory_limit
from epg.tasks.base import Task

FLOAT, DOUBLE = 4, 8
"""Bytes of a number."""


def footprint(
    setup: Setup, task: Task, lifetimes: int, learned: Shapes | None = None
) -> dict[str, int]:
    """Bytes that so many lifetimes take at once, at least, by what takes them.

    learned: the shapes of what each of them learns by.
    """
    agent, life, learner = setup.agent, setup.lifetime, setup.learner
    spec = AgentSpec.of(task, agent)
    action = 1 if spec.discrete else spec.action_size
    row = spec.observation_size + action + 2  # with the reward, and whether the episode ended
    units = ",".join(map(str, agent.hidden))
    each = {
        # with Adam's two moments
        f"networks (agent.hidden {units}; agent.memory {agent.memory})": 3 * FLOAT
        * numbers_in(spec.shapes()),
        # as lived, and normalised
        f"their newest steps (learner.buffer {learner.buffer})": 2 * FLOAT * learner.buffer * row,
        f"minibatches (learner.passes {learner.passes})": DOUBLE * learner.passes
        * life.steps_per_update,
        f"returns (lifetime.updates {life.updates})": DOUBLE * life.updates,
        f"final episodes (lifetime.final_episodes {life.final_episodes})": FLOAT * NOISE_AHEAD
        * life.final_episodes * action,
        "what they learn by": FLOAT * numbers_in(learned or {}),
    }  # fmt: skip
    return {name: lifetimes * size for name, size in each.items()}


def check_replay(settings: OffPolicySettings, task: Task, lifetimes: int, steps: int) -> None:
    """Raise `UserError` where so many agents cannot learn from what they remember of a task in a
    life of so many steps, or cannot remember it."""
    check_pieces(settings, task)
    remembered = {f"memories of {settings.memory} steps": replay_bytes(settings, task, steps)}
    what = "a lifetime" if lifetimes == 1 else f"{lifetimes} lifetimes at once"
    check_memory(what, {name: lifetimes * size for name, size in remembered.items()})


def replay_bytes(settings: OffPolicySettings, task: Task, steps: int) -> int:
    """Bytes of what an agent remembers of a life."""
    # both observations, the action, the reward, whether nothing followed
    row = 2 * task.observation_size + task.action_size + 2
    return FLOAT * min(settings.memory, steps) * row


def numbers_in(shapes: Shapes) -> int:
    """How many numbers tensors of such shapes hold."""
    return sum(math.prod(shape) for shape in shapes.values())


def check_memory(what: str, parts: Mapping[str, int]) -> None:
    """Raise `UserError` if `parts`, bytes by what takes them, are more than this process can have.

    what: whose they are.
    """
    needed = sum(parts.values())
    limit, whose = memory_limit()
    if needed > limit:
        most = max(parts, key=lambda name: parts[name])
        raise UserError(
            f"{what}: at least {_gigabytes(needed)} of memory needed, most of it for {most}; found "
            f"{_gigabytes(limit)} ({whose})"
        )


def check_lifetimes(
    setup: Setup, task: Task, lifetimes: int, learned: Shapes | None = None
) -> None:
    """Raise `UserError` if so many lifetimes at once are more than memory holds."""
    what = "a lifetime" if lifetimes == 1 else f"{lifetimes} lifetimes at once"
    check_memory(what, footprint(setup, task, lifetimes, learned))


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:,.3g} GB" if size < 100 * 2**30 else f"{size / 2**30:,.0f} GB"
