"""What a task is: a distribution over MDPs, and a batch of P environments drawn from it.

Shape letters: P environments in a batch, O observation, A action.
"""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from epg.errors import UserError
from epg.seeds import LifetimeSeed, LifetimeSeeds, Stream

Mdp = dict[str, Any]
"""One MDP: the drawn value of every parameter that the task varies, by name."""


@dataclass(frozen=True)
class Varied:
    """A parameter that a task draws anew for each MDP, uniformly."""

    name: str
    low: float
    high: float
    unit: str = ""
    note: str = ""
    count: int | None = None
    """how many are drawn, say one for each body: a list; None for one number"""
    choices: tuple[float, ...] = ()
    """if not empty, one of these is drawn"""
    allowed: tuple[float, float] | None = None
    """how far a user may move the range; None for not beyond low and high"""
    whole: bool = False
    """whether whole numbers are drawn, low and high among them"""
    log: bool = False
    """whether the logarithm is uniform, before it is rounded if `whole`"""
    source: str = ""
    """where the range comes from, if it is not a user's"""

    def draw(self, rng: np.random.Generator) -> Any:
        """A number, or a list of `count`."""
        if self.choices:
            return float(rng.choice(self.choices))
        if self.log:
            drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
            return round(drawn) if self.whole else drawn
        if self.whole:
            return int(rng.integers(int(self.low), int(self.high), endpoint=True))
        return np.asarray(rng.uniform(self.low, self.high, self.count)).tolist()

    def within(self, given: Any) -> Varied:
        """The same over a range that a user gives: a number, or [low, high].

        Raises `UserError` if it is no such thing, or not allowed.
        """
        numbers = list(given) if isinstance(given, list | tuple) else [given, given]
        if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
            raise UserError(f"{self.name}: found {given!r}, allowed: a number or [low, high]")
        if self.choices:
            if not numbers or not set(numbers) <= set(self.choices):
                raise UserError(f"{self.name}: found {given!r}, allowed: {self.show_range()}")
            chosen = tuple(c for c in self.choices if c in numbers)
            return replace(self, choices=chosen, low=min(chosen), high=max(chosen), source="")
        least, most = self.allowed or (self.low, self.high)
        if len(numbers) != 2 or not least <= numbers[0] <= numbers[1] <= most:
            raise UserError(
                f"{self.name}: found {given!r}, allowed: a number or [low, high], "
                f"{least:g} to {most:g} {self.unit}".rstrip()
            )
        if self.whole and not all(float(n).is_integer() for n in numbers):
            raise UserError(f"{self.name}: found {given!r}, allowed: whole numbers")
        return replace(self, low=float(numbers[0]), high=float(numbers[1]), source="")

    def show_range(self) -> str:
        """The range, for people."""
        if self.choices:
            return " or ".join(f"{c:g}" for c in self.choices)
        return f"{self.low:g} to {self.high:g} {self.unit}".rstrip()

    def line(self) -> str:
        """What is drawn, for people."""
        remarks = "; ".join(remark for remark in (self.note, self.source) if remark)
        return f"{self.name}: {self.show_range()}" + (f" ({remarks})" if remarks else "")


class Step(NamedTuple):
    """What P environments answer to P actions."""

    observation: Tensor
    """[P, O] float64: what to act on next; the first of a new episode where the last one ended."""
    next_observation: Tensor
    """[P, O] float64: what the action led to, also where the episode ended with it."""
    reward: Tensor
    """[P] float64"""
    terminated: Tensor
    """[P] bool: the MDP ended; nothing follows."""
    truncated: Tensor
    """[P] bool: the horizon cut the episode; the MDP would have gone on."""


def first_step(observation: Tensor) -> Step:
    """What environments have answered before the first action: observations [P, O], reward 0."""
    nothing = torch.zeros(len(observation), dtype=torch.float64, device=observation.device)
    no = torch.zeros_like(nothing, dtype=torch.bool)
    return Step(observation, observation, nothing, no, no)


class Batch(ABC):
    """P environments that live side by side and never touch each other."""

    @property
    @abstractmethod
    def failures(self) -> NDArray[np.int64]:
        """[P]: episodes ended because the simulation, or an action, left the finite, so far."""

    @abstractmethod
    def reset(self) -> Tensor:
        """Start a new episode everywhere; the first observations, [P, O] float64."""

    @abstractmethod
    def step(self, actions: Tensor) -> Step:
        """Act once everywhere: actions [P, A] float32, or [P] int64 if the task is discrete.

        An episode that ends restarts at once; in a batch made with `restart=False` it rests
        instead: its observation stays, its reward is 0, `terminated` and `truncated` stay as
        they were.
        """


class Task(ABC):
    """A distribution over MDPs that share their sizes."""

    name: str
    """What `epg.tasks.make` was asked for, with the parameters that were given."""
    summary: str
    """One line for `epg tasks`."""
    observation_size: int
    action_size: int
    """Dimensions of a continuous action, or the number of discrete ones."""
    discrete: bool
    horizon: int
    """Steps after which an episode is truncated."""
    varied: tuple[Varied, ...] = ()
    states: int | None = None
    """If observations are one-hot, each a state of the MDP, how many there are."""

    def __init__(self, /, **ranges: Any) -> None:
        """`ranges`: numbers or [low, high] by the name of what varies, other than the usual.

        Raises `UserError` naming a parameter that is unknown or out of its physical range.
        """
        known = [v.name for v in self.varied]
        for name in ranges:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                allowed = f"allowed: {', '.join(known)}" if known else "it takes none"
                raise UserError(f"unknown parameter {name!r}; {hint}{allowed}")
        self.varied = tuple(
            v.within(ranges[v.name]) if v.name in ranges else v for v in self.varied
        )

    def draw(self, rng: np.random.Generator) -> Mdp:
        """Draw one MDP."""
        return {v.name: v.draw(rng) for v in self.varied}

    @abstractmethod
    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        """P environments, one for each MDP; `rngs[i]` draws the resets of environment i."""

    def score(self, mdps: Sequence[Mdp], returns: NDArray[np.float64]) -> NDArray[np.float64]:
        """The fitness [P] that final returns [P] in these MDPs are worth: here, themselves."""
        return returns


class Sizes(Task):
    """A task of which nothing is known but its sizes: what a saved file tells of it."""

    summary = "sizes alone"
    horizon = 1

    def __init__(self, observation_size: int, action_size: int, discrete: bool) -> None:
        self.name = "sizes"
        self.observation_size = observation_size
        self.action_size = action_size
        self.discrete = discrete

    def batch(self, *_: Any, **__: Any) -> Batch:
        raise NotImplementedError("there is nothing to live in")


def draw_mdp(task: Task, seed: LifetimeSeed, draw: str = "pair") -> Mdp:
    """The MDP of a seed: its own, or with `generation` the one that all members of a step share."""
    if draw == "generation":
        shared = LifetimeSeed(seed.run, seed.purpose, seed.step, 0, seed.mdp)
        return task.draw(shared.rng(Stream.MDP_OF_GENERATION))
    return task.draw(seed.rng(Stream.MDP))


def draw_mdps(task: Task, seeds: LifetimeSeeds, draw: str = "pair") -> list[Mdp]:
    """The MDP of each of P lifetimes; those that share a seed share it."""
    drawn = [draw_mdp(task, seed, draw) for seed in seeds.distinct]
    return [drawn[i] for i in seeds.index]


def check(task: Task) -> None:
    """Whether a user's own task says all that it must, and is as large as it says.

    Raises `UserError` if not.
    """
    for name, kind, wanted in (
        ("summary", str, "a text"), ("observation_size", int, "an integer above 0"),
        ("action_size", int, "an integer above 0"), ("discrete", bool, "True or False"),
        ("horizon", int, "an integer above 0"),
    ):  # fmt: skip
        found = getattr(task, name, None)
        if not isinstance(found, kind) or (kind is int and (found is True or int(found) < 1)):
            raise UserError(f"{name} of the task: found {found!r}, needed: {wanted}")
    if task.states is not None and task.states != task.observation_size:
        raise UserError(
            f"states of the task: found {task.states!r}, needed: its observation_size, "
            f"{task.observation_size}, of one-hot observations; or None"
        )
    for v in task.varied:
        numbers = (v.low, v.high, *v.choices)
        if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
            raise UserError(f"{v.name} of the task: found {v}, needed: finite numbers")
    rng = np.random.default_rng(0)
    batch = task.batch([task.draw(rng)], [rng])
    action = torch.zeros(1) if task.discrete else torch.zeros(1, task.action_size)
    first, step = batch.reset(), batch.step(action.to(torch.int64) if task.discrete else action)
    for what, found, size in (
        ("reset gives", first, (1, task.observation_size)),
        ("step gives observations", step.next_observation, (1, task.observation_size)),
        ("step gives rewards", step.reward, (1,)),
        ("step gives terminations", step.terminated, (1,)),
    ):
        if tuple(found.shape) != size:
            raise UserError(f"its {what} of shape {list(found.shape)}, needed: {list(size)}")
    if task.states is not None and sorted(first[0].tolist())[-2:] != [0.0, 1.0]:
        raise UserError("its reset gives an observation that is not one-hot, though it has states")
