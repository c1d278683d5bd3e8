"""Agents with deterministic policies and critics that learn from all that they remember.

Shape letters: P lifetimes, M new rows, E episodes, B drawn steps, A action.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from epg.agents.adam import FusedAdam
from epg.agents.base import Agents, Metrics, Policy
from epg.agents.buffer import Transitions
from epg.agents.deterministic import CriticLoss, DeterministicNetworks, moved_towards
from epg.agents.network import Parameters
from epg.agents.replay import Replay
from epg.agents.spec import unflatten
from epg.seeds import LifetimeSeeds, Stream
from epg.tasks.base import Step


@dataclass(frozen=True)
class OffPolicySettings:
    """How such agents learn: TD3's usual settings (Fujimoto et al. 2018, table 3)."""

    learning_rate: float = 1e-3
    batch: int = 100
    """steps in an update"""
    random_steps: int = 1000
    """uniform actions at first, in which nothing is learned; of a short life a tenth"""
    exploration: float = 0.1
    """standard deviation of the noise of actions"""
    smoothing: float = 0.2
    """standard deviation of the noise of the target's actions; 0 for none"""
    speed: float = 0.005
    """of target networks, at each update of the policy"""
    delay: int = 2
    """updates of critics between two of the policy"""
    twin: bool = True
    """whether the smaller opinion of two critics is the target, or that of one"""
    discount: float = 0.99


@dataclass(frozen=True)
class _Group:
    """Some of the agents' parameters, as an optimiser wants them."""

    parameters: Parameters
    lifetimes: int
    device: str

    def trained(self) -> list[Tensor]:
        return list(self.parameters.values())


class OffPolicyAgents(Agents):
    """P agents, each of which learns once for every step that it has lived."""

    def __init__(
        self, networks: DeterministicNetworks, seeds: LifetimeSeeds, settings: OffPolicySettings,
        steps: int,
    ) -> None:  # fmt: skip
        """steps: of their whole lives, all of which they remember."""
        self.networks = networks
        self.settings = settings
        self._seeds = seeds
        self._random_steps = min(settings.random_steps, max(1, steps // 10))
        drawn = seeds.draw(Stream.AGENT, lambda rng: init_deterministic(rng, networks))
        parameters = unflatten(drawn, networks.shapes)
        if not settings.twin:
            parameters = {n: p for n, p in parameters.items() if not n.startswith("critic2")}
        self.parameters = {name: p.requires_grad_() for name, p in parameters.items()}
        self.target = {name: p.detach().clone() for name, p in parameters.items()}
        self._optimizers = {
            group: FusedAdam(
                _Group(self._of(group), len(seeds), seeds.device), settings.learning_rate
            )
            for group in ("policy", "critic")
        }
        self._replay = Replay(
            len(seeds), steps, networks.observation_size, networks.action_size, seeds.device
        )
        self._critic_loss = CriticLoss(settings.discount)
        self._updates = 0

    def _of(self, group: str) -> Parameters:
        return {name: p for name, p in self.parameters.items() if name.startswith(group)}

    def policy(self, episodes: int | None = None) -> Policy:
        return _Acting(self, self._seeds, episodes)

    @property
    def acts_at_random(self) -> bool:
        """Whether actions are uniform still."""
        return self._replay.lived < self._random_steps

    def learn(self, new: Transitions) -> Metrics:
        """One update for each new step; error: of the critics, saturated: the share of the policy's
        actions beyond 0.99 of their limit."""
        self._replay.append(new)
        count = new.rewards.shape[1]
        if self.acts_at_random:
            return {}
        settings = self.settings
        shape = (count, settings.batch, 1 + self.networks.action_size)
        chance = self._seeds.draw(
            Stream.MINIBATCH,
            lambda rng: np.concatenate(
                [rng.random((*shape[:2], 1)), rng.standard_normal((*shape[:2], shape[2] - 1))], -1
            ),
        )
        errors = []
        for update in range(count):
            errors.append(self._learn_once(chance[:, update]))
        with torch.no_grad():
            actions = self.networks.act(self.parameters, new.observations)
        far = (actions.abs() > 0.99 * self.networks.limit).float().mean((1, 2))
        return {"error": torch.stack(errors, 1).mean(1), "saturated": far}

    def _learn_once(self, chance: Tensor) -> Tensor:
        """[P] the critics' loss; chance: [P, B, 1 + A], uniform, then normal."""
        settings, networks = self.settings, self.networks
        drawn = self._replay.steps(chance[..., 0])
        noise = (settings.smoothing * chance[..., 1:]).to(torch.float32).unsqueeze(2)
        with torch.no_grad():
            targets = self._critic_loss.targets(networks, self.target, drawn, noise)
        loss = self._critic_loss(networks, self.parameters, drawn, targets)
        self._optimizers["critic"].descend(loss)
        self._updates += 1
        if self._updates % settings.delay == 0:
            actions = networks.act(self.parameters, drawn.observations)
            value = networks.value(self.parameters, "critic1", drawn.observations, actions)
            self._optimizers["policy"].descend(-value.mean((1, 2)))
            with torch.no_grad():
                self.target = moved_towards(self.target, self.parameters, settings.speed)
        return loss.detach()

    @property
    def failed(self) -> Tensor:
        broken = self._optimizers["critic"].broken.clone()
        for parameter in self.parameters.values():
            broken |= ~torch.isfinite(parameter.detach()).flatten(1).all(1)
        return broken


class _Acting:
    """P policies as they stand, with noise while they learn, without where they are judged."""

    def __init__(self, agents: OffPolicyAgents, seeds: LifetimeSeeds, episodes: int | None) -> None:
        self._agents = agents
        self._seeds = seeds
        self._episodes = episodes

    @torch.no_grad()
    def act(self, step: Step) -> Tensor:
        networks, lifetimes = self._agents.networks, len(self._seeds)
        seen = step.observation.to(torch.float32).reshape(lifetimes, -1, networks.observation_size)
        actions = networks.act(self._agents.parameters, seen)
        if self._episodes is None:
            actions = self._explored(actions)
        return actions.reshape(-1, networks.action_size)

    def _explored(self, actions: Tensor) -> Tensor:
        """What is done while learning: at first anything, then what the policy says, and noise."""
        size, limit = self._agents.networks.action_size, self._agents.networks.limit
        if self._agents.acts_at_random:
            drawn = self._seeds.draw(Stream.ACTION, lambda rng: rng.uniform(-limit, limit, size))
            return drawn.to(torch.float32)
        noise = self._seeds.draw(Stream.ACTION, lambda rng: rng.standard_normal(size))
        spread = self._agents.settings.exploration * noise.to(torch.float32).unsqueeze(1)
        return (actions + spread).clamp(-limit, limit)


def init_deterministic(rng: np.random.Generator, networks: DeterministicNetworks) -> np.ndarray:
    """One agent's initial parameters, flat, in the order of `shapes`: weights Glorot uniform, gains
    1, all else 0, as in the released code of MetaGenRL."""
    pieces = []
    for name, shape in networks.shapes.items():
        if name.endswith(".weight"):
            bound = np.sqrt(6 / sum(shape))
            pieces.append(rng.uniform(-bound, bound, shape).astype(np.float32))
        else:
            pieces.append(np.full(shape, float(name.endswith(".gain")), np.float32))
    return np.concatenate([piece.ravel() for piece in pieces])
