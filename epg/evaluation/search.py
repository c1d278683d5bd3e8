"""Which settings of hand-made methods `epg tune` tries: a coarse grid, then what is next to its
best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epg.config import Setup
from epg.evaluation.entry import Entry, entry_of
from epg.evaluation.tuned import with_setting
from epg.methods.base import make_algorithm
from epg.tasks.base import Task

VALUES: dict[str, tuple[Any, ...]] = {
    "steps_per_update": (0.125, 0.25, 0.5, 1, 2, 4, 8, 16),
    "learning_rate": (1e-4, 1.7e-4, 3e-4, 5.5e-4, 1e-3, 1.7e-3, 3e-3, 5.5e-3, 1e-2, 1.7e-2, 3e-2),
    "minibatch": (0.5, 1, 2, 4),
    "passes": (1, 2, 3, 5, 10, 15, 20, 30),
    "discount": (0.9, 0.95, 0.98, 0.99, 0.995, 0.999),
    "gae_lambda": (0.8, 0.9, 0.95, 0.98, 1.0),
    "clip": (0.1, 0.15, 0.2, 0.3, 0.4),
    "entropy": (0.003, 0.01, 0.03, 0.1),
    "meta_rate": (1e-3, 3e-3, 1e-2, 3e-2, 0.1),
    "schedule": ("constant", "linear"),
}
"""All values of each setting, in order; of those in RELATIVE times what is configured."""
RELATIVE = ("steps_per_update", "minibatch")
COARSE: dict[str, tuple[Any, ...]] = {
    "steps_per_update": (0.5, 1, 2, 4),
    "learning_rate": (3e-4, 1e-3, 3e-3, 1e-2),
    "minibatch": (1,),
    "passes": (1, 3, 10, 20),
    "discount": (0.99,),
    "gae_lambda": (0.95,),
    "clip": (0.2,),
    "entropy": (0.01, 0.1),
    "meta_rate": (1e-2,),
    "schedule": ("constant",),
}
"""Those of the first round, every one with every other."""

Setting = dict[str, Any]
"""Values of settings by name."""


@dataclass(frozen=True)
class Space:
    """All settings of some methods on some tasks, by number: entries made when they are asked for.

    setup: how agents live and learn but for them; its environment steps are those of each.
    """

    tasks: Sequence[Task]
    methods: Sequence[str]
    setup: Setup

    def __len__(self) -> int:
        return len(self.tasks) * len(self.methods) * self._size

    @property
    def _size(self) -> int:
        """How many settings the method with the most of them has."""
        return max(_size(make_algorithm(method).searched) for method in self.methods)

    def __getitem__(self, number: int, /) -> Entry:
        pair, inner = divmod(number, self._size)
        task, method = divmod(pair, len(self.methods))
        return self._entry(self.tasks[task], self.methods[method], inner)

    def _entry(self, task: Task, method: str, inner: int) -> Entry:
        algorithm = make_algorithm(method)
        setting: Setting = {}
        for name in algorithm.searched:
            inner, place = divmod(inner, len(VALUES[name]))
            setting[name] = self._values(name)[place]
        return entry_of(method, algorithm, task, with_setting(self.setup, setting))

    def number(self, task: int, method: str, setting: Setting) -> int:
        """Of a setting on a task, by that one's number. Raises `ValueError` if it is none."""
        inner, base = 0, 1
        for name in make_algorithm(method).searched:
            inner += base * self._values(name).index(setting[name])
            base *= len(VALUES[name])
        pair = task * len(self.methods) + self.methods.index(method)
        return pair * self._size + inner

    def setting(self, number: int) -> Setting:
        """What an entry is tried with."""
        entry = self[number]
        values = {name: entry.setup.get(name) for name in make_algorithm(entry.method).searched}
        if "schedule" in values:
            values["schedule"] = values["schedule"].name
        return values

    def fits(self, method: str, setting: Setting) -> bool:
        """Whether it is one of them, and divides a life into updates, as many as the method needs,
        and these into minibatches."""
        for name, value in setting.items():
            if value not in self._values(name) or (name in RELATIVE and not value):
                return False
        each = setting.get("steps_per_update", self.setup.lifetime.steps_per_update)
        updates, rest = divmod(self.setup.lifetime.steps, each)
        enough = updates >= make_algorithm(method).least_updates
        return enough and not rest and not each % setting.get("minibatch", 1)

    def coarse(self, task: int, method: str) -> Iterator[int]:
        """The first round."""
        yield from self._numbers(task, method, self._product(make_algorithm(method).searched))

    def fine(self, number: int) -> Iterator[int]:
        """What is next to a setting: one value one step further, or one step back."""
        entry, setting = self[number], self.setting(number)
        near = [
            setting | {name: self._values(name)[place]}
            for name, value in setting.items()
            for place in (self._values(name).index(value) + step for step in (-1, 1))
            if 0 <= place < len(VALUES[name])
        ]
        task = number // self._size // len(self.methods)
        yield from self._numbers(task, entry.method, near)

    def _numbers(self, task: int, method: str, settings: Iterable[Setting]) -> Iterator[int]:
        return (self.number(task, method, each) for each in settings if self.fits(method, each))

    def _values(self, name: str, of: Mapping[str, tuple[Any, ...]] = VALUES) -> tuple[Any, ...]:
        """Of a setting, in order; of a relative one 0 in place of what is no whole number."""
        if name not in RELATIVE:
            return of[name]
        numbers = (self.setup.get(name) * factor for factor in of[name])
        return tuple(int(number) if number == int(number) else 0 for number in numbers)

    def _product(self, names: Sequence[str]) -> Iterator[Setting]:
        if not names:
            yield {}
            return
        for value in self._values(names[0], COARSE):
            for rest in self._product(names[1:]):
                yield {names[0]: value} | rest


def _size(names: Sequence[str]) -> int:
    return math.prod(len(VALUES[name]) for name in names)
