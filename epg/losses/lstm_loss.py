"""MetaGenRL's objective as a loss that can be named, learned by either way: evolved, or by its
gradient (Kirsch et al. 2020, arXiv 1910.04098).

Shape letters: P agents.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from epg.agents.deterministic import DeterministicNetworks
from epg.agents.network import Parameters
from epg.agents.off_policy import OffPolicyAgents, OffPolicySettings, PolicyLoss, init_normed
from epg.agents.pieces import Pieces
from epg.agents.spec import AgentSpec, Shapes
from epg.errors import UserError
from epg.losses.base import TeachingLoss
from epg.losses.lstm import LstmObjective
from epg.losses.objective_gradient import ObjectiveGradient
from epg.seeds import LifetimeSeeds
from epg.settings import Named
from epg.tasks.base import Task

AGENTS = OffPolicySettings(clip=1.0)


class LstmLoss(TeachingLoss):
    """An objective for deterministic policies, which learn from all that they remember."""

    class Settings(Named):
        """The objective, and the agents that it teaches."""

        agents: OffPolicySettings = Field(AGENTS, description="")
        without: Annotated[
            tuple[Literal["time", "value", "next_value"], ...], Field(strict=False, max_length=3)
        ] = Field((), description="inputs that it does not see, of time, value, next_value")
        match_release: bool = Field(
            False, description="compute it as MetaGenRL's released code does, defects included"
        )

    sized = False

    def __init__(self, settings: Any, spec: AgentSpec, buffer: int) -> None:
        super().__init__(settings, spec, buffer)
        if spec.discrete:
            raise UserError("loss lstm: is for continuous actions, those of this task are not")
        self.agents_settings: OffPolicySettings = settings.agents
        mended = not settings.match_release
        self.objective = LstmObjective(mended, mended, mended, tuple(settings.without))

    @property
    def says(self) -> str:
        return self.agents_settings.says

    @classmethod
    def at_rate(cls, settings: Any, learning_rate: float) -> Any:
        agents = settings.agents.model_copy(update={"learning_rate": learning_rate})
        return settings.model_copy(update={"agents": agents})

    @property
    def shapes(self) -> Shapes:
        return self.objective.shapes

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        flat, found, first = init_normed(rng, self.shapes), {}, 0
        for name, shape in self.shapes.items():
            last = first + int(np.prod(shape))
            found[name] = flat[first:last].reshape(shape)
            first = last
        return found

    def networks(self, hidden: tuple[int, ...]) -> DeterministicNetworks:
        """Of its agents."""
        sizes = self.spec.observation_size, self.spec.action_size
        return DeterministicNetworks(*sizes, hidden, exact_norm=self.objective.exact_norm)

    def teaches(self, params: Parameters, share: Tensor | float = 1.0) -> PolicyLoss:
        """What policies go down; params: each [P, …]; share: of the objective, one for all or [P];
        the rest is the critic's value."""
        frozen = {name: p.detach() for name, p in params.items()}

        def loss(networks: DeterministicNetworks, live: Parameters, pieces: Pieces) -> Tensor:
            policy = {name: p for name, p in live.items() if name.startswith("policy")}
            judge = ObjectiveGradient(networks, self.objective)
            return judge.policy_loss(frozen, live, policy, pieces, share)

        return loss

    def agents(
        self, params: Parameters, task: Task, hidden: tuple[int, ...], seeds: LifetimeSeeds,
        updates: int, steps_per_update: int, blind: bool = False, share: float = 1.0,
    ) -> OffPolicyAgents:  # fmt: skip
        """As of every loss with agents of its own; share: of it beside the critic's value."""
        steps, taught = updates * steps_per_update, self.teaches(params, share)
        return OffPolicyAgents(
            self.networks(hidden), seeds, self.agents_settings, steps, taught, blind
        )
