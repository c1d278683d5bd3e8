"""What a loss that judges single steps may be shown of them: inputs without sizes, for any task.

Shape letters: P lifetimes, M new rows, B minibatch, K policy outputs, F inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from epg.agents.actor_critic import ActorCritic, Experience
from epg.errors import UserError
from epg.losses.base import take_rows
from epg.losses.gae import Gae

MOST_ADVANTAGE = 4.0
MOST_LOG_RATIO = 5.0
MIDDLE_LOG_LENGTH = 4.0
"""log₂ of the 16 updates that count as a life of middle length."""

INPUTS = {
    "advantage": "A: GAE's, standardised over the newest M steps, within ±4",
    "advantage_size": "|A|",
    "ratio": "r − 1, of the probabilities of the action now and before the update",
    "ratio_advantage": "(r − 1)·A",
    "log_ratio": "log r, within ±5",
    "log_ratio_advantage": "log r · A",
    "log_ratio_squared": "(log r)²",
    "end": "1 where the step ended an episode",
    "entropy": "of the policy there, in nats a dimension, above that of one that knows nothing",
    "entropy_change": "the same less that before the update",
    "progress": "n/N, the part of the life that is lived",
    "log_length": "log₂ N − 4, within the lengths that it was evolved on",
}
"""By name, what each is."""


def check_inputs(names: tuple[str, ...], where: str) -> None:
    """Raise `UserError` for a name that is no input, and for one that stands there twice."""
    for name in names:
        if name not in INPUTS:
            raise UserError(f"{where}: found {name}, allowed: {', '.join(INPUTS)}")
    if len(set(names)) < len(names):
        raise UserError(f"{where}: found {', '.join(names)}, allowed: each once")


class StepInputs:
    """What one update shows a loss of its newest M steps."""

    def __init__(self, agents: ActorCritic, experience: Experience, gae: Gae) -> None:
        # what all minibatches share, [P, M]
        new = experience.new
        self.count = new.rewards.shape[1]
        self.observations = experience.observations[:, -self.count :].contiguous()
        advantages, self.targets = gae.standardised(agents, experience, self.observations)
        self.advantages = advantages.clamp(-MOST_ADVANTAGE, MOST_ADVANTAGE)
        self._agents, self._actions, self._age = agents, new.actions, experience.age
        distribution = agents.distribution
        self._old_log_prob = distribution.log_prob(experience.old_outputs, new.actions)
        self._old_entropy = distribution.relative_entropy(experience.old_outputs)
        self._end = (new.terminated | new.truncated).to(self._old_entropy.dtype)

    def of(self, outputs: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """All inputs by name, each [P, B]; outputs: [P, R, K] of now."""
        now = take_rows(outputs[:, -self.count :], rows)
        distribution = self._agents.distribution
        log_prob = distribution.log_prob(now, take_rows(self._actions, rows))
        log_ratio = log_prob - take_rows(self._old_log_prob, rows)
        log_ratio = log_ratio.clamp(-MOST_LOG_RATIO, MOST_LOG_RATIO)
        excess = log_ratio.expm1()
        advantage = take_rows(self.advantages, rows)
        entropy = distribution.relative_entropy(now)
        return {
            "advantage": advantage,
            "advantage_size": advantage.abs(),
            "ratio": excess,
            "ratio_advantage": excess * advantage,
            "log_ratio": log_ratio,
            "log_ratio_advantage": log_ratio * advantage,
            "log_ratio_squared": log_ratio.square(),
            "end": take_rows(self._end, rows),
            "entropy": entropy,
            "entropy_change": entropy - take_rows(self._old_entropy, rows),
            "progress": torch.full_like(advantage, self._age.progress),
            "log_length": torch.full_like(advantage, self._age.log_length - MIDDLE_LOG_LENGTH),
        }

    def value_error(self, rows: Tensor) -> Tensor:
        """(V − R)² of the agents' value nets, [P, B]: what makes advantages mean something."""
        values = self._agents.values(take_rows(self.observations, rows))
        return (values - take_rows(self.targets, rows)).square()
