"""What an evaluation says of what was learned, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from epg.evaluation.bootstrap import difference, improvement, probability
from epg.evaluation.policies import FIXED
from epg.evaluation.protocol import BLIND, Protocol
from epg.evaluation.scores import FLOOR, REFERENCE, Sample, TaskScores
from epg.evaluation.tables import cells_of

FEW_LIFETIMES, FEWEST_SEEDS = 32, 5
"""With fewer, an interval itself is not to be relied on."""


def verdict(task: TaskScores, names: Sequence[str], protocol: Protocol) -> str:
    """Whether learned files end above PPO on a task, by how much, and over how many.

    names: of a single one, or of several that differ by their evolution seed: each counts as one
    number then.
    """
    samples = task.samples()
    ours = [samples[name].finals for name in names if name in samples]
    if not ours or REFERENCE not in samples:
        return f"{task.task}: nothing to compare with PPO in this evaluation."
    ppo = samples[REFERENCE].finals
    lifetimes = len(ppo)
    if len(ours) == 1:
        subject, ends, parted = f"the {names[0]}", "ends", "is"
        finals = ours[0]
        over = f"{lifetimes} lifetimes with each"
        beats = improvement(finals, ppo).value
    else:
        subject, ends, parted = f"the losses of {len(ours)} seeds", "end", "are"
        finals = np.array([[each.mean()] for each in ours])
        over = f"{len(ours)} evolution seeds, each the mean of {lifetimes} lifetimes"
        beats = float(np.mean([probability(each, ppo) for each in ours]))
    gap = difference(finals, ppo)
    if gap.low > 0 or gap.high < 0:
        said = f"{subject} {ends} {'above' if gap.low > 0 else 'below'} PPO"
    else:
        said = f"{subject} {parted} not separated from PPO"
    means = cells_of([row.final_return.mean for row in task.rows])
    shown = dict(zip([row.method for row in task.rows], means, strict=True))
    family = next((f for f, members in task.families.items() if set(members) == set(names)), "")
    text = (
        f"{task.task}: {said}. Mean final return {shown[family or names[0]]} against "
        f"{shown[REFERENCE]}, a difference of {cells_of([gap])[0]}, over {over}; a lifetime of "
        f"ours ends above one of PPO's in {beats:.0%} of all pairs."
    )
    if not protocol.tuned[task.task][REFERENCE].exact:
        text += " PPO is not tuned for this task and budget (epg tune)."
    if len(ours) > 1 and len(ours) < FEWEST_SEEDS:
        text += f" {len(ours)} seeds are few: {FEWEST_SEEDS} are the least that speak of a method."
    elif lifetimes < FEW_LIFETIMES:
        text += f" {lifetimes} lifetimes are few: 64 are better."
    return text


def answers(samples: Mapping[str, Sample], names: Sequence[str]) -> list[str]:
    """What is known of saved files on a task besides their returns: whether their agents use
    reward, and do more than a policy that never learns. names: of all files."""
    blind = {name: BLIND if len(names) == 1 else f"{BLIND} {name}" for name in names}
    lines = [
        line for name in names
        for line in (reward_use(samples, name, blind[name]), beyond_policy(samples, name))
    ]  # fmt: skip
    return [line for line in lines if line]


def beyond_policy(samples: Mapping[str, Sample], name: str) -> str:
    """Whether agents that learn by a file end above the family's policy that never learns."""
    if name not in samples or FIXED not in samples:
        return ""
    gap = difference(samples[name].finals, samples[FIXED].finals)
    shown = f"the difference is {cells_of([gap])[0]}"
    answer = "yes" if gap.low > 0 else "no" if gap.high < 0 else "not shown"
    return f"{name}: more than a policy that never learns: {answer} ({shown})"


SMALL = 0.1
"""The part of what is gained that may be gained blind, for reward to count as the reason."""


def reward_use(samples: Mapping[str, Sample], name: str, blind: str) -> str:
    """Whether agents that learn by a file use reward: from what its blind twin comes to.

    samples: on one task, by method; name, blind: which of them; empty if one is missing.
    """
    if name not in samples or blind not in samples:
        return ""
    sighted, without = samples[name].finals, samples[blind].finals
    gap = difference(sighted, without)
    floor = samples[FLOOR].finals.mean() if FLOOR in samples else None
    shown = f"without reward {cells_of([gap])[0]} less"
    if floor is not None and sighted.mean() > floor:
        part = round((without.mean() - floor) / (sighted.mean() - floor), 2) + 0.0
        shown += f", {part:.0%} of what is gained"
    if gap.low <= 0:
        return f"{name}: uses reward: not shown ({shown})"
    if floor is None or without.mean() - floor <= SMALL * (sighted.mean() - floor):
        return f"{name}: uses reward: yes ({shown})"
    return f"{name}: uses reward: in part ({shown})"
