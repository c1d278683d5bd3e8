"""TD3 and DDPG as ways of learning: deterministic policies, taught by critics from all that was
lived (Fujimoto et al. 2018, arXiv 1802.09477; Lillicrap et al. 2016, arXiv 1509.02971)."""

from __future__ import annotations

from typing import ClassVar

from epg.agents.base import Agents
from epg.agents.deterministic import DeterministicNetworks
from epg.agents.off_policy import (
    OffPolicyAgents,
    OffPolicySettings,
    PolicyLoss,
    by_value,
    check_pieces,
)
from epg.config import Setup
from epg.errors import UserError
from epg.methods.base import Algorithm, Card
from epg.methods.footprint import check_replay
from epg.seeds import LifetimeSeeds
from epg.tasks.base import Task


class Td3(Algorithm):
    """Twin delayed deterministic policy gradients, one update a step, with layer norms."""

    card = Card(
        learns="a policy and two critics",
        how="by hand",
        agents="deterministic policies; continuous actions",
        paper="Fujimoto et al. 2018, arXiv 1802.09477",
    )
    settings: ClassVar[OffPolicySettings] = OffPolicySettings(
        batch=100, piece=1, random_steps=1000, memory=1_000_000
    )
    batch = 16

    def check(self, task: Task) -> None:
        if task.discrete:
            name = type(self).__name__.lower()
            raise UserError(
                f"method {name}: is for continuous actions, those of {task.name} are not"
            )
        check_pieces(self.settings, task)

    def about(self, setup: Setup) -> str:
        return f"{self.settings.says}; its usual settings"

    def agents(self, task: Task, setup: Setup, seeds: LifetimeSeeds) -> Agents:
        self.check(task)
        check_replay(self.settings, task, len(seeds), setup.lifetime.steps)
        sizes = task.observation_size, task.action_size
        networks = DeterministicNetworks(*sizes, setup.agent.hidden)
        steps = setup.lifetime.steps
        return OffPolicyAgents(networks, seeds, self.settings, steps, self.taught())

    def taught(self) -> PolicyLoss:
        """What its policies go down."""
        return by_value


class Ddpg(Td3):
    """Deep deterministic policy gradients: one critic, no smoothing, no delay."""

    card = Card(
        learns="a policy and a critic",
        how="by hand",
        agents="deterministic policies; continuous actions",
        paper="Lillicrap et al. 2016, arXiv 1509.02971",
    )
    settings = Td3.settings.replace(smoothing=0.0, delay=1, twin=False)
