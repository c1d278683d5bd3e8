"""Agents that outlive a step of the outer loop: they live on, and are begun anew when their time
has come or their learning has failed.

Shape letters: P agents, M steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from epg.agents.buffer import Transitions
from epg.agents.off_policy import OffPolicyAgents
from epg.errors import RunError
from epg.lifetime import act
from epg.seeds import LifetimeSeed, LifetimeSeeds, Purpose, Stream
from epg.tasks.base import Batch, Step, Task, draw_mdp, first_step
from epg.tasks.mixture import MixedBatch

STREAMS = (Stream.ACTION, Stream.MINIBATCH)
"""That agents draw from as they live."""


class Environments(MixedBatch):
    """P environments, each of which can be begun anew by itself; `resets` counts, [P], how often
    each was reset since."""

    def __init__(self, batches: Sequence[Batch], device: str) -> None:
        super().__init__(batches, [[i] for i in range(len(batches))], device)
        self.resets = [0] * len(batches)

    def reset(self) -> Tensor:
        self.resets = [count + 1 for count in self.resets]
        return super().reset()

    def step(self, actions: Tensor) -> Step:
        step = super().step(actions)
        for i in (step.terminated | step.truncated).nonzero().flatten().tolist():
            self.resets[i] += 1
        return step


class Population:
    """P agents of one task, with all that belongs to their lives."""

    def __init__(
        self, task: Task, agents: OffPolicyAgents, seeds: LifetimeSeeds, limits: Sequence[int],
        life: int | None,
    ) -> None:  # fmt: skip
        """seeds: of their first lives; limits: [P] steps of these; life: steps of those that
        follow; None: nobody's time comes."""
        self.task = task
        self.agents = agents
        self.seeds = seeds
        self._life = life
        self._limits = list(limits)
        self.lives = [seed.step for seed in seeds.distinct]
        self.steps = 0
        self.exploded = 0
        """episodes that left the finite"""
        batches = [self._batch(seed) for seed in seeds.distinct]
        self._environments = Environments(batches, seeds.device)
        self._seen = first_step(self._environments.reset())

    def _batch(self, seed: LifetimeSeed) -> Batch:
        mdp, rng = draw_mdp(self.task, seed), seed.rng(Stream.RESET)
        return self.task.batch([mdp], [rng], self.seeds.device)

    def live(self, steps: int) -> Transitions:
        """M steps, which they remember."""
        before = self._environments.failures.sum()
        new, self._seen = act(self.agents.policy(), self._environments, self._seen, steps)
        self.exploded += int(self._environments.failures.sum() - before)
        self.agents.remember(new)
        self.steps += steps
        return new

    def renew(self) -> Tensor:
        """Begin those anew whose learning has failed, and those whose time has come; [P] whose has
        failed."""
        failed = self.agents.failed
        for agent, age in enumerate(self.agents.replay.ages):
            limit = self._life if self.lives[agent] else self._limits[agent]
            if failed[agent] or (self._life is not None and limit is not None and age >= limit):
                self._begin_anew(agent)
        return failed.to(torch.float32)

    def _begin_anew(self, agent: int) -> None:
        old = self.seeds.distinct[agent]
        self.lives[agent] += 1
        seed = LifetimeSeed(old.run, old.purpose, self.lives[agent], old.member)
        self.agents.begin_anew(agent, seed)
        self._put(agent, seed, 1)

    def _put(self, agent: int, seed: LifetimeSeed, resets: int) -> None:
        """A new environment in an agent's place, at the beginning of an episode: the first that it
        has lived, or a later one."""
        batch = self._environments.batches[agent] = self._batch(seed)
        self._environments.resets[agent] = resets
        for _ in range(resets):
            first = batch.reset()
        self._see(agent, first_step(first))

    def _see(self, agent: int, step: Step) -> None:
        seen = Step(*(tensor.clone() for tensor in self._seen))
        for whole, one in zip(seen, step, strict=True):
            whole[agent] = one[0]
        self._seen = seen

    def state(self) -> dict[str, Tensor]:
        """All of it, each [P, …]."""
        kept = self.agents.state()
        for stream in STREAMS:
            kept[f"chance.{stream.name.lower()}"] = self.seeds.states(stream)
        kept["resets"] = torch.tensor(self._environments.resets)
        kept["lives"] = torch.tensor(self.lives)
        kept["seen"] = self._seen.observation.clone()
        kept["lived"] = torch.full((len(self.lives),), self.steps)
        return kept

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a state of before: environments are rebuilt by the actions of their episodes.

        Raises `RunError` if they come to something else than then.
        """
        state = {name: tensor.to(self.seeds.device) for name, tensor in state.items()}
        self.lives = state["lives"].tolist()
        self.steps = int(state["lived"][0])
        for agent, life in enumerate(self.lives):
            old = self.seeds.distinct[agent]
            self.seeds.replace(agent, LifetimeSeed(old.run, Purpose.TRAINING, life, old.member))
        self.agents.load_state(state)
        for stream in STREAMS:
            self.seeds.load_states(stream, state[f"chance.{stream.name.lower()}"])
        for agent, seed in enumerate(self.seeds.distinct):
            self._put(agent, seed, int(state["resets"][agent]))
            for action in self.agents.replay.running_actions(agent):
                self._see(agent, self._environments.batches[agent].step(action.unsqueeze(0)))
            if not torch.equal(self._seen.observation[agent], state["seen"][agent]):
                raise RunError(
                    f"task {self.task.name}: an environment that was rebuilt from its actions came "
                    "to something else than before; it cannot be gone on with on this machine"
                )
