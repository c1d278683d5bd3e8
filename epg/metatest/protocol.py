"""Raising agents for a test: P fresh lifetimes, each in an MDP of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from epg.chunk import draw_mdp
from epg.config import Lifetime
from epg.lifetime import Lived, live
from epg.losses.base import Loss
from epg.seeds import Fate, Fates, Purpose
from epg.tasks.base import Task

BATCH = 64
"""Lifetimes that live together; results do not depend on it."""


def raise_agents(
    task: Task,
    loss: Callable[[int], Loss | None],
    settings: Lifetime,
    lifetimes: int,
    seed: int,
    purpose: Purpose,
    policy: torch.Tensor | None = None,
    reference: bool = False,
) -> Lived:
    """`lifetimes` lives with one loss. Lifetime i has the same MDP and chance for every loss.

    loss: makes the loss for a batch of P agents (None: they never learn); policy: an evolved
    initial policy [n], or None.
    """
    parts = []
    for first in range(0, lifetimes, BATCH):
        count = min(BATCH, lifetimes - first)
        fates = [Fate(seed, purpose, 0, first + i) for i in range(count)]
        parts.append(
            live(
                task,
                [draw_mdp(task, fate) for fate in fates],
                Fates(fates, range(count)),
                loss(count),
                settings,
                policy.expand(count, -1) if policy is not None else None,
                reference,
            )
        )
    return Lived(
        final_return=np.concatenate([p.final_return for p in parts]),
        episode_returns=np.concatenate([p.episode_returns for p in parts]),
        kl=np.concatenate([p.kl for p in parts]),
        entropy=np.concatenate([p.entropy for p in parts]),
        steps=sum(p.steps for p in parts),
        exploded=sum(p.exploded for p in parts),
    )
