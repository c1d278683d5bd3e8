"""What is raised in an evaluation: each method on each task, as a farm takes them.

Shape letters: n lifetimes, U updates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from epg.chunk import Center, Chunk, Failure, Raiser, Returns, Work, cut
from epg.config import Lifetime
from epg.errors import RunError
from epg.farm import Farm
from epg.farm.journal import Journal
from epg.lifetime import Lived
from epg.lock import Lock
from epg.log import logger
from epg.seeds import Purpose

NEVER = float("inf")
BATCH = 64
"""Lifetimes that live together at most; results do not depend on it."""


@dataclass(frozen=True)
class Subject:
    """One method on one task."""

    task: str
    method: str
    about: str
    """the settings that tell it apart"""
    life: Lifetime
    raise_agents: Callable[[int, int], Lived]
    """of the first lifetime's number and how many: their lives"""
    batch: int = BATCH
    """lifetimes in a chunk, at most"""


@dataclass(frozen=True)
class Lives:
    """What n lifetimes of a subject came to."""

    final_return: np.ndarray
    """[n]; NaN where learning failed"""
    episode_returns: np.ndarray
    """[n, U], as `Lived` has them"""
    steps: int
    """environment steps, final episodes included"""
    seconds: float
    """core-seconds"""


class SubjectRaiser(Raiser):
    """Raises the agents of some subjects."""

    def __init__(self, work: Work, subjects: Sequence[Subject]) -> None:
        super().__init__(work)
        self.subjects = subjects

    def evaluate(self, center: Center | None, chunk: Chunk) -> Returns:
        started = time.perf_counter()
        lived = self.subjects[chunk.subject].raise_agents(chunk.first, chunk.count)
        return Returns(
            chunk=chunk,
            fitness=lived.final_return[:, None],
            kl=lived.kl,
            entropy=lived.entropy,
            steps=lived.steps,
            exploded=lived.exploded,
            seconds=(time.perf_counter() - started) * self.work.threads,
            episode_returns=lived.episode_returns,
        )


def raise_all(
    farm: Farm,
    subjects: Sequence[Subject],
    lifetimes: int,
    purpose: Purpose,
    journal: Journal,
    lock: Lock,
) -> list[Lives]:
    """All lifetimes of all subjects: those in the journal, and the rest from the farm.

    lock: held, on the journal's folder. Raises `RunError` if some raised an exception, with all
    others in the journal, or if another start has taken the folder over.
    """
    known: list[set[int]] = [set() for _ in subjects]
    returns = []
    for outcome in journal.read(0):
        lived = known[outcome.chunk.subject]
        if isinstance(outcome, Returns) and lived.isdisjoint(outcome.chunk.pairs):
            returns.append(outcome)
            lived.update(outcome.chunk.pairs)
    missing = list(_cut(farm.workers, subjects, lifetimes, purpose, known))
    failures: list[Failure] = []
    for came in farm.evaluate(None, missing, NEVER):
        arrived = [outcome for outcome in came if isinstance(outcome, Returns)]
        failures += [outcome for outcome in came if isinstance(outcome, Failure)]
        if arrived:
            lock.check()
            journal.append(arrived)
            returns += arrived
        for r in arrived:
            pairs, subject = known[r.chunk.subject], subjects[r.chunk.subject]
            pairs.update(r.chunk.pairs)
            print(
                f"{subject.task}, {subject.method}: {len(pairs)} of {lifetimes} lifetimes",
                flush=True,
            )
    for failure in failures:
        logger.error("%s failed: %s", failure.chunk, failure.why)
    if failures:
        subject = subjects[failures[0].chunk.subject]
        raise RunError(
            f"{subject.task}, {subject.method}: {failures[0].why.strip().splitlines()[-1]} "
            f"({len(failures)} chunks failed; the same command tries them again)"
        )
    return [_gather(returns, number, lifetimes) for number in range(len(subjects))]


def _cut(
    workers: int, subjects: Sequence[Subject], lifetimes: int, purpose: Purpose,
    known: Sequence[set[int]],
) -> Iterator[Chunk]:  # fmt: skip
    """Chunks of what is not known, those that take the longest first.

    Large ones are quicker by the lifetime; they are cut where workers would have nothing to do.
    """
    parts = -(-2 * workers // len(subjects))
    share = -(-lifetimes // parts) if workers > 1 else lifetimes
    order = sorted(range(len(subjects)), key=lambda number: subjects[number].batch)
    for number in order:
        for first, count in cut(lifetimes, min(subjects[number].batch, share), known[number], 2):
            yield Chunk(purpose, 0, first, count, subject=number)


def _gather(returns: Sequence[Returns], subject: int, lifetimes: int) -> Lives:
    mine = sorted((r for r in returns if r.chunk.subject == subject), key=lambda r: r.chunk.first)
    curves = [r.episode_returns for r in mine if r.episode_returns is not None]
    return Lives(
        final_return=np.concatenate([r.fitness[:, 0] for r in mine])[:lifetimes],
        episode_returns=np.concatenate(curves)[:lifetimes],
        steps=sum(r.steps for r in mine),
        seconds=sum(r.seconds for r in mine),
    )
