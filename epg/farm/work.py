"""The unit of work, and what comes of it: all that a farm knows."""

from __future__ import annotations

import math
import resource
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from epg.process.log import logger
from epg.process.signals import time_limit
from epg.seeds import Purpose

LONGEST_WHY = 4000
"""Characters of a traceback that are kept, its last ones."""


@dataclass(frozen=True)
class Shared:
    """What all units of a step share; workers get it once."""

    step: int
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Unit:
    """Members `first`, …, `first + count − 1` of a step: antithetic pairs, agents, or lifetimes."""

    purpose: Purpose
    step: int
    first: int
    count: int
    updates: int | None = None
    """U of its lifetimes, if not as configured"""
    entry: int = 0
    """of an evaluation: the number of the method and task that it is of"""

    @property
    def members(self) -> range:
        """Their numbers."""
        return range(self.first, self.first + self.count)


@dataclass(frozen=True)
class Result:
    """What came of a unit."""

    unit: Unit
    arrays: Mapping[str, np.ndarray]
    """by name, each [count, …]"""
    steps: int = 0
    """environment steps, final episodes included"""
    exploded: int = 0
    """episodes that left the finite"""
    seconds: float = 0.0
    """that passed meanwhile; measured by the runner"""
    core_seconds: float = 0.0
    """that processors worked for it; measured by the runner"""
    megabytes: float = 0.0
    """the most memory that its process has had; measured by the runner, not journaled"""


@dataclass(frozen=True)
class Failure:
    """A unit that nothing came of."""

    unit: Unit
    why: str
    """a traceback, or what became of its process; the last line says the most"""

    @property
    def reason(self) -> str:
        """One line."""
        return self.why.strip().splitlines()[-1]


Outcome = Result | Failure


@dataclass(frozen=True)
class Workload:
    """Members 0, …, `total` − 1 of a purpose and step, to be cut into units of about `size`."""

    purpose: Purpose
    step: int
    total: int
    size: int
    least: int = 1
    """members of a unit at least, where that can be; 2 where members are single lifetimes"""
    entry: int = 0

    def units(self, known: Container[int] = ()) -> Iterator[Unit]:
        """Units of all members that are not known."""
        for first, count in split_ranges(self.total, self.size, known, self.least):
            yield Unit(self.purpose, self.step, first, count, entry=self.entry)


def split_ranges(
    total: int, size: int, known: Container[int], least: int = 1
) -> Iterator[tuple[int, int]]:
    """What of 0, …, total − 1 is not known, as ranges of `size`: first ones and counts.

    None is shorter than `least` where that can be, and so one may be longer than `size`. A lifetime
    that lives alone rounds otherwise than in company, so where ranges are of lifetimes that is 2.
    """
    first = 0
    while first < total:
        end = first
        while end < total and end not in known:
            end += 1
        while first < end:
            left = end - first
            count = left if left < max(size, least) + least else max(size, least)
            yield first, count
            first += count
        first += 1


class Work(Protocol):
    """The settings that all processes of a job must have alike."""

    @property
    def device(self) -> str: ...

    @property
    def threads(self) -> int: ...

    def yaml(self) -> str:
        """All of them, as text."""


class Runner(ABC):
    """What a worker is: a unit goes in, a result comes out."""

    def __init__(self, work: Work) -> None:
        torch.set_num_threads(work.threads)
        self.work = work

    def attempt(self, shared: Shared | None, unit: Unit, limit: float = math.inf) -> Outcome:
        """The result of a unit within `limit` seconds; a failure, if it raises anything."""
        started, worked = time.perf_counter(), time.process_time()
        try:
            with time_limit(limit):
                result = self.run(shared, unit)
        except (Exception, SystemExit):
            return Failure(unit, traceback.format_exc()[-LONGEST_WHY:])
        seconds, core_seconds = time.perf_counter() - started, time.process_time() - worked
        logger.info(
            "%s: %d steps in %.2f s, %.2f core-seconds", unit, result.steps, seconds, core_seconds
        )
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return replace(result, seconds=seconds, core_seconds=core_seconds, megabytes=megabytes)

    @abstractmethod
    def run(self, shared: Shared | None, unit: Unit) -> Result:
        """The result of a unit; depends on nothing but its arguments."""
