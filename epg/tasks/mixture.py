"""Several task distributions at once, padded with zeros to the largest.

Shape letters: P environments, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from epg.errors import UserError
from epg.tasks.base import Batch, Mdp, Step, Task
from epg.tasks.wrapped import Wrapped, WrappedBatch

Scale = tuple[float, float]
"""Final returns of a random policy and of tuned PPO: what count as fitness 0 and 1."""


class Padded(Wrapped):
    """A task for agents that are made for larger ones.

    Observations are zero beyond the task's own; of actions the first are the task's own, the
    others do nothing. A discrete action beyond the task's own n means the one modulo n.
    """

    def __init__(self, task: Task, observation_size: int, action_size: int) -> None:
        """Raises `UserError` if the task does not fit into these sizes."""
        if task.observation_size > observation_size or task.action_size > action_size:
            raise UserError(
                f"{task.name} has {task.observation_size} observations and {task.action_size} "
                f"actions, more than {observation_size} and {action_size}"
            )
        super().__init__(task)
        self.observation_size, self.action_size = observation_size, action_size
        self.states = task.states

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        return PaddedBatch(self, self.task.batch(mdps, rngs, device, restart))


class PaddedBatch(WrappedBatch):
    """P environments behind observations and actions of other sizes."""

    def __init__(self, padded: Padded, batch: Batch) -> None:
        super().__init__(batch)
        self._zeros = padded.observation_size - padded.task.observation_size
        self._actions, self._discrete = padded.task.action_size, padded.discrete

    def see(self, observation: Tensor) -> Tensor:
        return torch.nn.functional.pad(observation, (0, self._zeros))

    def do(self, actions: Tensor) -> Tensor:
        return actions % self._actions if self._discrete else actions[:, : self._actions]


class TaskMixture(Task):
    """Each MDP comes from one of several distributions, all of them equally often."""

    summary = "a mixture"

    def __init__(self, tasks: Sequence[Task], scales: Sequence[Scale | None]) -> None:
        """`scales`: for each task, or None where it is not known; then `score` cannot be asked.

        Raises `UserError` for tasks that cannot be mixed.
        """
        super().__init__()
        kinds = {task.discrete for task in tasks}
        if len(kinds) != 1:
            raise UserError(
                "a mixture: found tasks of discrete and of continuous actions"
                if tasks
                else "a mixture: found no tasks"
            )
        self.name = " + ".join(task.name for task in tasks)
        self.observation_size = max(task.observation_size for task in tasks)
        self.action_size = max(task.action_size for task in tasks)
        self.discrete = kinds.pop()
        self.horizon = max(task.horizon for task in tasks)
        if all(task.states is not None for task in tasks):
            self.states = self.observation_size
        self.parts = [Padded(task, self.observation_size, self.action_size) for task in tasks]
        self.scales = list(scales)

    def draw(self, rng: np.random.Generator) -> Mdp:
        """An MDP of a part, and under "part" which."""
        part = int(rng.integers(len(self.parts)))
        return {"part": part, "mdp": self.parts[part].draw(rng)}

    def batch(
        self,
        mdps: Sequence[Mdp],
        rngs: Sequence[np.random.Generator],
        device: str = "cpu",
        restart: bool = True,
    ) -> Batch:
        batches, places = [], []
        for number, part in enumerate(self.parts):
            mine = [i for i, mdp in enumerate(mdps) if mdp["part"] == number]
            if mine:
                own = ([mdps[i]["mdp"] for i in mine], [rngs[i] for i in mine])
                batches.append(part.batch(*own, device, restart))
                places.append(mine)
        return MixedBatch(batches, places, device)

    def score(self, mdps: Sequence[Mdp], returns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fitness [P] on each part's own scale: a random policy 0, tuned PPO 1."""
        scales: Any = [self.scales[mdp["part"]] for mdp in mdps]
        low, high = np.array(scales, dtype=np.float64).T
        fitness: NDArray[np.float64] = (returns - low) / (high - low)
        return fitness


class MixedBatch(Batch):
    """P environments in some batches; `places[k]` says which of the P are those of batch k."""

    def __init__(
        self, batches: Sequence[Batch], places: Sequence[Sequence[int]], device: str
    ) -> None:
        self.batches = list(batches)
        self._places = [torch.tensor(mine, device=device) for mine in places]
        self._order = torch.cat(self._places).argsort()

    @property
    def failures(self) -> NDArray[np.int64]:
        failures = [batch.failures for batch in self.batches]
        return np.concatenate(failures).take(self._order.cpu().numpy())

    def reset(self) -> Tensor:
        return torch.cat([batch.reset() for batch in self.batches])[self._order]

    def step(self, actions: Tensor) -> Step:
        actions = actions.to(self._order.device)
        steps = [
            batch.step(actions[mine])
            for batch, mine in zip(self.batches, self._places, strict=True)
        ]
        return Step(*(torch.cat(same)[self._order] for same in zip(*steps, strict=True)))
