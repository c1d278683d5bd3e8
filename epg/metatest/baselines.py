"""What losses are compared with, at the same number of environment steps."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch

from epg.chunk import draw_mdp
from epg.config import Lifetime
from epg.errors import UserError
from epg.lifetime import Lived, live, ppo_of
from epg.losses.base import Loss
from epg.losses.reinforce import Reinforce
from epg.metatest.subjects import Subject
from epg.seeds import Fate, Fates, Purpose
from epg.tasks.base import Task

UNTRAINED = "untrained"
OTHERS = {"sb3-ppo": "ppo", "sb3-td3": "td3", "sb3-sac": "sac"}
"""Stable-Baselines3's, by its own names."""
BASELINES = ("random", "ppo", "reinforce", UNTRAINED, *OTHERS)
TUNABLE = {"ppo": "ppo", "reinforce": "reinforce", "sb3-ppo": "ppo"}
"""Those that are tuned, and as what."""
BATCH = 4
"""Lifetimes of another library in a chunk: they live one after the other."""


def check(name: str, task: Task) -> None:
    """Raise `UserError` for a baseline that is unknown, not installed, or not for such tasks."""
    if name not in BASELINES:
        raise UserError(f"baseline {name!r} is unknown; allowed: {', '.join(BASELINES)}")
    if name in OTHERS and find_spec("stable_baselines3") is None:
        raise UserError(
            f"baseline {name}: needs stable-baselines3, which is not installed: "
            "pip install -e '.[baselines]'"
        )
    if name in ("sb3-td3", "sb3-sac") and task.discrete:
        raise UserError(f"baseline {name}: is for continuous actions, those of {task.name} are not")


def subject_of(
    name: str, task: Task, life: Lifetime, seed: int, purpose: Purpose, remark: str = ""
) -> Subject:
    """A baseline on a task; `life` has its settings."""
    about = settings_of(life) + remark
    if name == "random":
        raising = raising_of(task, lambda _: None, life, seed, purpose)
        return Subject(task.name, name, "agents as they are born", life, raising)
    if name == "ppo":
        raising = raising_of(task, lambda _: ppo_of(life), life, seed, purpose)
        return Subject(task.name, name, about, life, raising)
    if name == "reinforce":
        life = on_policy(life)
        loss = Reinforce(life.discount, life.gae_lambda)
        raising = raising_of(task, lambda _: loss, life, seed, purpose)
        about = f"lr {life.learning_rate:g}, one step an update{remark}"
        return Subject(task.name, name, about, life, raising)
    kind = OTHERS[name]
    if kind != "ppo":
        about = "the library's own settings"

    def raise_agents(first: int, count: int) -> Lived:
        check(name, task)
        from epg.metatest.sb3 import raise_others  # an extra

        return raise_others(kind, task, life, fates_of(seed, purpose, first, count))

    return Subject(task.name, name, about, life, raise_agents, BATCH)


def settings_of(life: Lifetime) -> str:
    """For people."""
    return f"lr {life.learning_rate:g}, minibatch {life.minibatch}, passes {life.passes}"


def on_policy(life: Lifetime) -> Lifetime:
    """One step an update, down the loss on all that the policy of now has lived."""
    return life.but(minibatch=life.steps_per_update, passes=1)


def raising_of(
    task: Task,
    loss: Callable[[int], Loss | None],
    life: Lifetime,
    seed: int,
    purpose: Purpose,
    policy: torch.Tensor | None = None,
    reference: bool = False,
) -> Callable[[int, int], Lived]:
    """Raises agents with a loss. Lifetime i has the same MDP and chance for every loss.

    loss: makes the loss for a batch of P agents (None: they never learn); policy: an evolved
    initial policy [n], or None.
    """

    def raise_agents(first: int, count: int) -> Lived:
        fates = fates_of(seed, purpose, first, count)
        return live(
            task,
            [draw_mdp(task, fate) for fate in fates],
            Fates(fates, range(count)),
            loss(count),
            life,
            policy.expand(count, -1) if policy is not None else None,
            reference,
        )

    return raise_agents


def fates_of(seed: int, purpose: Purpose, first: int, count: int) -> list[Fate]:
    """Of lifetimes `first`, …, `first + count − 1`."""
    return [Fate(seed, purpose, 0, first + i) for i in range(count)]
