"""A batch of lifetimes, from their first step to their final return: the inner loop.

Agents act in their environments and learn, again and again; then they are judged. Of what they are
and how they learn nothing is known here.

Shape letters: P lifetimes, W environments of each, U updates, M steps per update, O observation,
A action, E episodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from epg.agents.base import Agents, Policy
from epg.agents.buffer import Transitions
from epg.seeds import LifetimeSeeds, Stream
from epg.settings import Count, Settings
from epg.tasks.base import Batch, Mdp, Step, Task, first_step


class LifetimeSettings(Settings):
    """How long an agent lives, and how it is judged."""

    updates: Count = Field(128, description="U, updates of the agent in a lifetime")
    steps_per_update: Count = Field(64, description="M, environment steps between two updates")
    final_episodes: Count = Field(
        3, description="episodes of the trained policy whose mean return is the fitness"
    )

    @property
    def steps(self) -> int:
        """Environment steps of a lifetime, its final episodes not counted."""
        return self.updates * self.steps_per_update


@dataclass(frozen=True)
class LifetimeResult:
    """What P lifetimes came to."""

    final_return: np.ndarray
    """[P] float64: mean undiscounted return of the final episodes; NaN where learning failed"""
    episode_returns: np.ndarray
    """[P, U] float64: mean return of the episodes that ended before each update; NaN if none did"""
    metrics: Mapping[str, np.ndarray]
    """by name [P] float64: means over updates of what the agents told of their learning"""
    steps: int
    """environment steps of all lifetimes, final episodes included"""
    exploded: int
    """episodes ended because the simulation left the finite"""
    returns_at: np.ndarray
    """[P, J] float64: mean return of final episodes of the policies of the ages asked for"""
    course: Mapping[str, np.ndarray] = field(default_factory=dict)
    """by name [P, U]: what the agents told of their learning after each update; see `Agents`"""
    kept: Mapping[str, np.ndarray] = field(default_factory=dict)
    """by name [P, …]: see `Agents.kept`"""

    @property
    def areas(self) -> np.ndarray:
        """[P] area under the learning curve over its width; see `areas_of`."""
        return areas_of(self.episode_returns)


def live(
    task: Task,
    mdps: Sequence[Mdp],
    agents: Agents,
    seeds: LifetimeSeeds,
    settings: LifetimeSettings,
    ages: Sequence[float] = (),
) -> LifetimeResult:
    """The lives of P agents, each in its own MDP with the resets of its own seed; mdps: P.

    An agent whose W environments are more than one takes M / W steps in each between two updates.
    ages: J parts of the life, in (0, 1], after which policies are judged besides at its end.
    """
    side_by_side = agents.environments
    each = [() if w == 0 else (w,) for w in range(side_by_side)]
    resets = [seed.rng(Stream.RESET, *which) for seed in seeds.each() for which in each]
    environments = task.batch([mdp for mdp in mdps for _ in each], resets, seeds.device)
    notes = LifetimeMetrics(len(seeds), seeds.device, agents.course, side_by_side)
    step = first_step(environments.reset())
    judged, steps, exploded = {}, 0, 0
    judged_after = {max(1, round(age * settings.updates)) for age in ages} | {settings.updates}
    for update in range(1, settings.updates + 1):
        steps_in_each = settings.steps_per_update // side_by_side
        new, step = act(agents.policy(), environments, step, steps_in_each)
        notes.add(new, agents.learn(new.of_agents(side_by_side)))
        if update in judged_after:
            judged[update], taken, lost = final_returns(
                agents, task, mdps, seeds, settings.final_episodes
            )
            steps, exploded = steps + taken, exploded + lost
    final = judged[settings.updates]
    at = [judged[max(1, round(age * settings.updates))] for age in ages]
    return LifetimeResult(
        final_return=torch.where(agents.failed, torch.nan, final).cpu().numpy(),
        episode_returns=notes.episode_returns(),
        metrics=notes.means(),
        steps=len(seeds) * settings.steps + steps,
        exploded=int(environments.failures.sum()) + exploded,
        returns_at=torch.stack([*at, final], 1)[:, : len(at)].cpu().numpy(),
        course=notes.course(),
        kept={name: tensor.cpu().numpy() for name, tensor in agents.kept().items()},
    )


def joined(results: Sequence[LifetimeResult], places: Sequence[Sequence[int]]) -> LifetimeResult:
    """What P lifetimes came to that were lived apart; places: which of the P each result's are."""
    order = np.argsort(np.concatenate(places))

    def whole(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(np.concatenate(arrays)[order])

    def named(which: str) -> dict[str, np.ndarray]:
        each: list[Mapping[str, np.ndarray]] = [getattr(result, which) for result in results]
        return {name: whole([arrays[name] for arrays in each]) for name in each[0]}

    return LifetimeResult(
        final_return=whole([result.final_return for result in results]),
        episode_returns=whole([result.episode_returns for result in results]),
        metrics=named("metrics"),
        steps=sum(result.steps for result in results),
        exploded=sum(result.exploded for result in results),
        returns_at=whole([result.returns_at for result in results]),
        course=named("course"),
    )


def areas_of(episode_returns: np.ndarray) -> np.ndarray:
    """[n] area under the learning curve over its width, of [n, U]: mean over updates of the return
    of the latest episode, before the first one ends that of the first; NaN where none ended."""
    latest = carry_forward(episode_returns)
    first = np.where(np.isfinite(latest), np.arange(latest.shape[1]), latest.shape[1]).min(1)
    known = first < latest.shape[1]
    filler = latest[np.arange(len(latest)), np.where(known, first, 0)]
    return np.asarray(np.where(np.isfinite(latest), latest, filler[:, None]).mean(1))


def carry_forward(returns: np.ndarray) -> np.ndarray:
    """[P, U] with NaN replaced by the value before it, where there is one."""
    index = np.where(np.isfinite(returns), np.arange(returns.shape[1]), 0)
    latest = np.maximum.accumulate(index, axis=1)
    return np.take_along_axis(returns, latest, axis=1)


def act(policy: Policy, environments: Batch, step: Step, steps: int) -> tuple[Transitions, Step]:
    """What was lived in M steps, and the answer to go on from; step: the answer so far."""
    seen, done, answers = [], [], []
    for _ in range(steps):
        seen.append(step.observation)
        done.append(policy.act(step))
        step = environments.step(done[-1])
        answers.append(step)
    lived = Transitions(
        observations=torch.stack(seen, 1).to(torch.float32),
        actions=torch.stack(done, 1),
        rewards=torch.stack([a.reward for a in answers], 1).to(torch.float32),
        terminated=torch.stack([a.terminated for a in answers], 1),
        truncated=torch.stack([a.truncated for a in answers], 1),
        next_observations=torch.stack([a.next_observation for a in answers], 1).to(torch.float32),
        last=step,
    )
    return lived, step


def final_returns(
    agents: Agents, task: Task, mdps: Sequence[Mdp], seeds: LifetimeSeeds, episodes: int
) -> tuple[Tensor, int, int]:
    """Mean return of E episodes of each policy [P], steps taken, episodes exploded.

    All episodes run side by side, and rest where they have ended; nothing learns any more.
    """
    lifetimes = len(seeds)
    environments = task.batch(
        [mdp for mdp in mdps for _ in range(episodes)],
        [seed.rng(Stream.FINAL_RESET, e) for seed in seeds.each() for e in range(episodes)],
        seeds.device,
        restart=False,
    )
    policy = agents.policy(episodes)
    step = first_step(environments.reset())
    returns = torch.zeros(lifetimes * episodes, dtype=torch.float64, device=seeds.device)
    alive = torch.ones_like(returns, dtype=torch.bool)
    steps = 0
    for _ in range(task.horizon):
        steps += int(alive.sum())
        step = environments.step(policy.act(step))
        returns += step.reward
        alive &= ~(step.terminated | step.truncated)
        if not alive.any():
            break
    mean = returns.view(lifetimes, episodes).mean(1)
    return mean, steps, int(environments.failures.sum())


class LifetimeMetrics:
    """What is noted of P lifetimes while they last."""

    def __init__(
        self, lifetimes: int, device: str, course: Sequence[str] = (), side_by_side: int = 1
    ) -> None:
        """course: the metrics of which every update's number is kept; side_by_side: W."""
        self._course: dict[str, list[Tensor]] = {name: [] for name in course}
        self._shape = lifetimes, side_by_side
        self._running = torch.zeros(lifetimes * side_by_side, dtype=torch.float64, device=device)
        self._returns: list[Tensor] = []
        self._sums: dict[str, Tensor] = {}

    def add(self, new: Transitions, metrics: Mapping[str, Tensor]) -> None:
        """After an update: what the agents told of it, and the episodes that ended before it; new:
        of P·W environments."""
        for name, values in metrics.items():
            if name not in self._sums:
                self._sums[name] = self._running.new_zeros(self._shape[0])
            self._sums[name] += values
        for name, numbers in self._course.items():
            numbers.append(metrics[name])
        done = new.terminated | new.truncated
        so_far = self._running.unsqueeze(1) + new.rewards.to(torch.float64).cumsum(1)
        last = done.cumsum(1).argmax(1, keepdim=True)
        total = so_far.gather(1, last).squeeze(1) * done.any(1)
        self._running = so_far[:, -1] - total
        total, ended = (each.view(self._shape).sum(1) for each in (total, done.sum(1)))
        self._returns.append(total / ended)

    def episode_returns(self) -> np.ndarray:
        """[P, U] mean return of the episodes that ended in each update's steps."""
        return torch.stack(self._returns, 1).cpu().numpy()

    def course(self) -> dict[str, np.ndarray]:
        """By name, [P, U]."""
        return {name: torch.stack(each, 1).cpu().numpy() for name, each in self._course.items()}

    def means(self) -> dict[str, np.ndarray]:
        """By name, [P]: over updates."""
        return {name: s.cpu().numpy() / len(self._returns) for name, s in self._sums.items()}
