"""Stable-Baselines3's PPO, TD3 and SAC: a check from outside that our PPO is no straw man."""

from __future__ import annotations

from importlib.util import find_spec
from typing import ClassVar

from epg.agents.base import Agents
from epg.config import Setup
from epg.errors import UserError
from epg.methods.base import Algorithm, Card
from epg.seeds import LifetimeSeeds
from epg.tasks.base import Task

NEEDED = ("stable_baselines3", "greenlet")


class _Sb3(Algorithm):
    """An algorithm of the library, whose own loop runs unchanged."""

    kind: ClassVar[str]
    batch = 4  # each agent steps by itself

    def check(self, task: Task) -> None:
        if any(find_spec(name) is None for name in NEEDED):
            raise UserError(
                f"method sb3-{self.kind}: needs stable-baselines3, which is not installed: "
                "pip install 'epg[baselines]'"
            )

    def agents(self, task: Task, setup: Setup, seeds: LifetimeSeeds) -> Agents:
        self.check(task)
        from epg.methods.sb3_agents import Sb3Agents  # an extra

        return Sb3Agents(self.kind, task, setup, seeds)


class Sb3Ppo(_Sb3):
    """Stable-Baselines3's PPO, with our settings and our agents at first."""

    kind = "ppo"
    tuned_as = "ppo"
    card = Card(
        learns="a policy and its value net",
        how="by hand",
        agents="one at a time; continuous or discrete actions",
        paper="Raffin et al. 2021, JMLR 22",
    )


class _OffPolicy(_Sb3):
    def check(self, task: Task) -> None:
        super().check(task)
        if task.discrete:
            raise UserError(
                f"method sb3-{self.kind}: is for continuous actions, those of {task.name} are not"
            )

    def about(self, setup: Setup) -> str:
        return "the library's own settings"


class Sb3Td3(_OffPolicy):
    """Stable-Baselines3's TD3, with its own settings."""

    kind = "td3"
    card = Card(
        learns="a policy and two critics",
        how="by hand",
        agents="one at a time; continuous actions",
        paper="Fujimoto et al. 2018, arXiv 1802.09477",
    )


class Sb3Sac(_OffPolicy):
    """Stable-Baselines3's SAC, with its own settings."""

    kind = "sac"
    card = Card(
        learns="a policy and two critics",
        how="by hand",
        agents="one at a time; continuous actions",
        paper="Haarnoja et al. 2018, arXiv 1801.01290",
    )
