"""REINFORCE from remembered actions: what MetaGenRL's objectives are compared with (Kirsch et al.
2020, arXiv 1910.04098, appendix)."""

from __future__ import annotations

from typing import ClassVar

from epg.agents.off_policy import OffPolicySettings, PolicyLoss
from epg.losses.weighted_actions import WeightedActions
from epg.methods.base import Card
from epg.methods.td3 import Td3


class ReinforceOffPolicy(Td3):
    """MetaGenRL's agents, whose policies go down advantages of remembered actions."""

    card = Card(
        learns="a policy and two critics",
        how="by hand",
        agents="deterministic policies; continuous actions",
        paper="Kirsch et al. 2020, arXiv 1910.04098, appendix",
    )
    settings: ClassVar[OffPolicySettings] = OffPolicySettings(clip=1.0)

    def taught(self) -> PolicyLoss:
        return WeightedActions()
