"""What stands beside a saved file's agents where it is looked into.

Shape letters: P lifetimes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from epg.evaluation.entries import entries_of
from epg.evaluation.protocol import SavedFiles, plan, usual_methods
from epg.evaluation.scores import REFERENCE
from epg.lifetime import live
from epg.seeds import LifetimeSeeds, Purpose
from epg.tasks.base import draw_mdps


def beside(
    files: SavedFiles, task: str | dict[str, Any], label: str, lifetimes: int, seed: int
) -> dict[str, np.ndarray]:
    """Final returns of what tells why a file's agents come to theirs, in the same MDPs: agents that
    never learn, the same ones without reward, and policies if some are known."""
    methods = [name for name in usual_methods(files, [label]) if name != REFERENCE]
    protocol = plan(files, [task], methods=methods, lifetimes=lifetimes, seed=seed)
    found = {}
    for entry in entries_of(protocol, files):
        if entry.method in methods:
            seeds = LifetimeSeeds.of(seed, Purpose.EVALUATION, 0, lifetimes)
            mdps, agents = draw_mdps(entry.task, seeds), entry.agents(seeds)
            lived = live(entry.task, mdps, agents, seeds, entry.setup.lifetime)
            found[entry.method] = lived.final_return
    return found
