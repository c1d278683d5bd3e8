"""Agents with deterministic policies and critics that learn from all that they remember.

Shape letters: P lifetimes, M new rows, B drawn pieces of T steps, A action.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from epg.agents.adam import AgentAdam
from epg.agents.base import Agents, Metrics, Policy
from epg.agents.buffer import Transitions
from epg.agents.deterministic import CriticLoss, DeterministicNetworks, moved_towards
from epg.agents.network import Parameters
from epg.agents.pieces import Pieces
from epg.agents.replay import Replay
from epg.agents.spec import Shapes, unflatten
from epg.errors import UserError
from epg.seeds import LifetimeSeed, LifetimeSeeds, Stream
from epg.settings import Count, Fraction, Settings
from epg.tasks.base import Step, Task

PolicyLoss = Callable[[DeterministicNetworks, Parameters, Pieces], Tensor]
"""What policies go down, [P], of all networks and of drawn pieces."""


class OffPolicySettings(Settings):
    """How agents with deterministic policies learn."""

    learning_rate: PositiveFloat = Field(1e-3, description="of policies and critics, by Adam")
    batch: Count = Field(32, description="pieces of episodes in an update")
    piece: Count = Field(20, description="steps of a piece; 1: single steps, of any episode")
    memory: Count = Field(100_000, description="newest steps that are remembered, at most")
    random_steps: Count = Field(
        2000, description="uniform actions at first, in which nothing is learned; of a short life "
        "a tenth",
    )  # fmt: skip
    exploration: float = Field(0.1, ge=0, description="standard deviation of the noise of actions")
    smoothing: float = Field(
        0.2, ge=0, description="standard deviation of the noise of target actions, within ±0.5"
    )
    speed: Fraction = Field(0.005, description="of target networks, at each update of the policy")
    every: Count = Field(1, description="environment steps between two updates of critics")
    delay: Count = Field(2, description="updates of critics between two of the policy")
    twin: bool = Field(True, description="two critics, the smaller of whose opinions counts")
    discount: Fraction = Field(0.99, description="γ")
    clip: PositiveFloat | None = Field(
        None, description="most that the norm of a policy's gradient may be; null: anything"
    )
    end_bonus: float = Field(
        0.0, description="that critics add at the end of an episode; 1 in MetaGenRL's released code"
    )
    time_limits_end: bool = Field(
        False, description="whether nothing follows a time limit, as in that code"
    )

    @property
    def says(self) -> str:
        """Those that matter most, for people."""
        pieces = "" if self.piece == 1 else f" pieces of {self.piece} steps"
        each = "a step" if self.every == 1 else f"every {self.every} steps"
        return (
            f"lr {self.learning_rate:g}, batch {self.batch}{pieces}, one update {each}, target "
            f"speed {self.speed:g}, exploration {self.exploration:g}"
        )


def check_pieces(settings: OffPolicySettings, task: Task) -> None:
    """Raise `UserError` where agents cannot learn from pieces of a task's episodes."""
    horizon = task.horizon
    for what, found, allowed in (
        ("pieces of {} steps", settings.piece, f"at most its time limit, {horizon}"),
        ("a memory of {} steps", settings.memory, f"an episode of it at least, {horizon}"),
    ):
        fits = found <= horizon if what.startswith("pieces") else found >= horizon
        if not fits:
            raise UserError(f"task {task.name}: found {what.format(found)}; allowed: {allowed}")


def by_value(networks: DeterministicNetworks, live: Parameters, pieces: Pieces) -> Tensor:
    """[P] less of what the first critic thinks of a policy's actions: DDPG's and TD3's loss."""
    actions = networks.act(live, pieces.observations)
    value = networks.value(live, "critic1", pieces.observations, actions)
    return -(pieces.mask * value).mean((1, 2))


class OffPolicyAgents(Agents):
    """P agents that learn from what they remember, every few steps that they live."""

    def __init__(
        self, networks: DeterministicNetworks, seeds: LifetimeSeeds, settings: OffPolicySettings,
        steps: int, taught: PolicyLoss = by_value, blind: bool = False,
    ) -> None:  # fmt: skip
        """steps: of their whole lives; blind: reward and ends are 0 to them."""
        self.networks = networks
        self.settings = settings
        self.taught = taught
        self._blind = blind
        self._seeds = seeds
        self.random_steps = min(settings.random_steps, max(1, steps // 10))
        drawn = seeds.draw(Stream.AGENT, lambda rng: init_normed(rng, networks.shapes))
        parameters = unflatten(drawn, networks.shapes)
        if not settings.twin:
            parameters = {n: p for n, p in parameters.items() if not n.startswith("critic2")}
        self.parameters = {name: p.contiguous().requires_grad_() for name, p in parameters.items()}
        self.target = {name: p.detach().clone() for name, p in parameters.items()}
        rate = settings.learning_rate
        self.optimizers = {
            "policy": AgentAdam(self._of("policy"), rate, settings.clip),
            "critic": AgentAdam(self._of("critic"), rate),
        }
        self.replay = Replay(
            len(seeds), min(steps, settings.memory), networks.observation_size,
            networks.action_size, seeds.device,
        )  # fmt: skip
        self._critic_loss = CriticLoss(settings.discount, end_bonus=settings.end_bonus)
        self._updates = 0

    def _of(self, group: str) -> list[Tensor]:
        return [p for name, p in self.parameters.items() if name.startswith(group)]

    def policy(self, episodes: int | None = None) -> Policy:
        return _Acting(self, self._seeds, episodes)

    def is_random(self) -> Tensor:
        """[P] whose actions are uniform still."""
        ages = torch.tensor(self.replay.ages, device=self._seeds.device)
        return ages < self.random_steps

    @property
    def active(self) -> Tensor:
        """[P] bool: who learns, for it has lived long enough."""
        if self.settings.piece == 1:
            return ~self.is_random()
        whole = torch.tensor(self.replay.episodes, device=self._seeds.device) > 0
        return whole & ~self.is_random()

    def learn(self, new: Transitions) -> Metrics:
        """An update for every few new steps; error: of the critics, saturated: the share of the
        policy's actions beyond 0.99 of their limit."""
        self.remember(new)
        active = self.active
        count = new.rewards.shape[1] // self.settings.every
        if not active.any() or not count:
            return {}
        errors = torch.stack([self.update(active) for _ in range(count)], 1).mean(1)
        return {"error": errors, "saturated": self.saturated(new.observations)}

    def remember(self, new: Transitions) -> None:
        """Take in what was lived."""
        if self.settings.time_limits_end:
            new = replace(new, terminated=new.terminated | new.truncated)
        if self._blind:
            nothing, ended = torch.zeros_like(new.rewards), new.terminated | new.truncated
            new = replace(new, rewards=nothing, terminated=torch.zeros_like(ended), truncated=ended)
        self.replay.append(new)

    @torch.no_grad()
    def saturated(self, observations: Tensor) -> Tensor:
        """[P] the share of actions, for observations [P, M, O], beyond 0.99 of their limit."""
        actions = self.networks.act(self.parameters, observations)
        return (actions.abs() > 0.99 * self.networks.limit).float().mean((1, 2))

    def update(self, active: Tensor) -> Tensor:
        """The critics learn, and every few times the policy, with its targets; [P] the critics'
        loss, 0 of those that are not active."""
        settings, networks = self.settings, self.networks
        chance, noise = self._draw(settings.batch, settings.piece * networks.action_size)
        drawn = self.pieces(chance)
        noise = settings.smoothing * noise.to(torch.float32)
        noise = noise.reshape(*drawn.actions.shape)
        with torch.no_grad():
            targets = self._critic_loss.targets(networks, self.target, drawn, noise)
        loss = self._critic_loss(networks, self.parameters, drawn, targets)
        self.optimizers["critic"].descend(loss, active)
        self._updates += 1
        if self._updates % settings.delay == 0:
            if settings.piece > 1:  # MetaGenRL draws anew
                drawn = self.draw_pieces(settings.batch)
            self.optimizers["policy"].descend(self.taught(networks, self.parameters, drawn), active)
            with torch.no_grad():
                moved = moved_towards(self.target, self.parameters, settings.speed)
            for name, target in self.target.items():
                shape = (-1, *[1] * (target.ndim - 1))
                self.target[name] = torch.where(active.reshape(shape), moved[name], target)
        return torch.where(active, loss.detach(), 0.0)

    def draw_pieces(self, count: int) -> Pieces:
        """So many of each agent's memory."""
        return self.pieces(self._draw(count, 0)[0])

    def pieces(self, chance: Tensor) -> Pieces:
        """What chance [P, B, 2] draws of each agent's memory."""
        if self.settings.piece == 1:
            return self.replay.steps(chance[..., 0])
        return self.replay.pieces(chance, self.settings.piece)

    def _draw(self, count: int, normal: int) -> tuple[Tensor, Tensor]:
        """Uniform [P, count, 2] and normal [P, count, normal] numbers."""

        def sample(rng: np.random.Generator) -> np.ndarray:
            return np.concatenate(
                [rng.random((count, 2)), rng.standard_normal((count, normal))], -1
            )

        drawn = self._seeds.draw(Stream.MINIBATCH, sample)
        return drawn[..., :2], drawn[..., 2:]

    def begin_anew(self, agent: int, seed: LifetimeSeed) -> None:
        """One of them is born again, with a seed of its own, and remembers nothing."""
        self._seeds.replace(agent, seed)
        one = LifetimeSeeds([seed], [0], self._seeds.device)
        drawn = one.draw(Stream.AGENT, lambda rng: init_normed(rng, self.networks.shapes))
        parameters = unflatten(drawn, self.networks.shapes)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter[agent] = parameters[name][0]
                self.target[name][agent] = parameters[name][0]
        for optimizer in self.optimizers.values():
            optimizer.begin_anew(agent)
        self.replay.begin_anew(agent)

    @property
    def failed(self) -> Tensor:
        broken = self.optimizers["critic"].broken | self.optimizers["policy"].broken
        for parameter in self.parameters.values():
            broken = broken | ~torch.isfinite(parameter.detach()).flatten(1).all(1)
        return broken

    def state(self) -> dict[str, Tensor]:
        """All that they are and remember but for their seeds, each [P, …], or [1] and alike."""
        kept = {f"replay.{n}": t for n, t in self.replay.state().items()}
        for name, parameter in self.parameters.items():
            kept[f"live.{name}"] = parameter.detach().clone()
            kept[f"target.{name}"] = self.target[name].clone()
        for group, adam in self.optimizers.items():
            for name in ADAM_STATE:
                kept[f"{group}.{name}"] = getattr(adam, name).clone()
        kept["updates"] = torch.full((len(self._seeds),), self._updates)
        return kept

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a state of before."""
        self.replay.load_state({n.removeprefix("replay."): t for n, t in state.items()})
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state[f"live.{name}"])
                self.target[name] = state[f"target.{name}"].clone()
        for group, adam in self.optimizers.items():
            for name in ADAM_STATE:
                setattr(adam, name, state[f"{group}.{name}"].clone())
        self._updates = int(state["updates"][0])


ADAM_STATE = ("mean", "square", "steps", "broken")


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
        chance = self._seeds.draw(
            Stream.ACTION,
            lambda rng: np.stack([rng.uniform(-limit, limit, size), rng.standard_normal(size)]),
        ).to(torch.float32)
        spread = self._agents.settings.exploration * chance[:, 1].unsqueeze(1)
        explored = (actions + spread).clamp(-limit, limit)
        at_random = self._agents.is_random().reshape(-1, 1, 1)
        return torch.where(at_random, chance[:, :1], explored)


def init_normed(rng: np.random.Generator, shapes: Shapes) -> np.ndarray:
    """Initial parameters, flat, in the order of `shapes`: weights Glorot uniform, gains 1, all else
    0, as in the released code of MetaGenRL."""
    pieces = []
    for name, shape in shapes.items():
        if name.endswith(".weight"):
            bound = np.sqrt(6 / sum(shape))
            pieces.append(rng.uniform(-bound, bound, shape).astype(np.float32))
        else:
            pieces.append(np.full(shape, float(name.endswith(".gain")), np.float32))
    return np.concatenate([piece.ravel() for piece in pieces])
