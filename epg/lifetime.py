"""A batch of lifetimes, from birth to final return: the inner loop of Evolved Policy Gradients.

Shape letters: P lifetimes, U updates, M steps per update, N buffer, B minibatch, O observation,
A action, E final episodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from epg.agents.agents import Agents, Body, Experience, bear
from epg.agents.buffer import Transitions
from epg.config import Lifetime
from epg.losses.base import Loss
from epg.losses.ppo import Ppo
from epg.seeds import Fates, Stream
from epg.tasks.base import Batch, Mdp, Task

ADAM_EPSILON = 1e-8
BETAS = (0.9, 0.999)
REGISTER = 64
"""Numbers, of which the widest registers hold a whole part."""
NOISE_AHEAD = 64
"""Steps for which the action noise of final episodes is drawn at once."""


@dataclass(frozen=True)
class Lived:
    """What P lifetimes came to."""

    final_return: np.ndarray
    """[P] float64: mean undiscounted return of the final episodes; NaN where learning failed"""
    episode_returns: np.ndarray
    """[P, U] float64: mean return of the episodes that ended before each update; NaN if none did"""
    kl: np.ndarray
    """[P] float64: mean over updates of KL(old‖new) on the newest M steps"""
    entropy: np.ndarray
    """[P] float64: mean entropy of the policy over updates, nats"""
    steps: int
    """environment steps of all lifetimes, final episodes included"""
    exploded: int
    """episodes ended because the simulation left the finite"""


class InnerAdam:
    """Adam over the parameters of all agents at once: it works elementwise, so they never mix.

    torch.optim.Adam(fused=True), without the second that importing torch's compiler takes. The
    parameters become views of one vector, whole registers long: torch rounds what is left over of
    the last one otherwise, and a lifetime would depend on its batch.
    With `reference`, ε stands outside the bias correction, as in the released code.
    """

    def __init__(self, agents: Agents, learning_rate: float, reference: bool = False) -> None:
        self._parameters = agents.trained()
        self._learning_rate = learning_rate
        self._reference = reference
        self._moved: list[Tensor] = []
        self._steps = 0
        self.broken = torch.zeros(agents.lifetimes, dtype=torch.bool, device=agents.device)
        """[P] whose loss was not finite: such a loss can still have finite gradients"""

    def descend(self, loss: Tensor) -> None:
        """One step down the sum of the agents' losses [P].

        What the first loss does not touch stays for good.
        """
        self.broken |= ~torch.isfinite(loss.detach())
        for parameter in self._parameters:
            parameter.grad = None
        loss.sum().backward()
        self._step()

    @torch.no_grad()
    def _step(self) -> None:
        if not self._steps:
            self._begin([p for p in self._parameters if p.grad is not None])
        self._steps += 1
        epsilon = ADAM_EPSILON
        if self._reference:
            epsilon /= math.sqrt(1 - BETAS[1] ** self._steps)
        gradients = [p.grad.reshape(-1) for p in self._moved if p.grad is not None]
        torch.cat([*gradients, self._padding], out=self._gradient)
        torch._fused_adam_(
            [self._vector], [self._gradient], [self._mean], [self._square], [],
            [torch.tensor(float(self._steps), device=self._vector.device)],
            lr=self._learning_rate, beta1=BETAS[0], beta2=BETAS[1], weight_decay=0.0,
            eps=epsilon, amsgrad=False, maximize=False,
        )  # fmt: skip

    def _begin(self, moved: list[Tensor]) -> None:
        self._moved = moved
        rest = -sum(p.numel() for p in moved) % REGISTER
        self._padding = moved[0].new_zeros(rest)
        self._vector = torch.cat([*(p.reshape(-1) for p in moved), self._padding])
        self._gradient, self._mean, self._square = torch.zeros(3, len(self._vector)).to(
            self._vector.device
        )
        first = 0
        for parameter in moved:
            last = first + parameter.numel()
            parameter.data = self._vector[first:last].view_as(parameter)
            first = last


def live(
    task: Task,
    mdps: Sequence[Mdp],
    fates: Fates,
    loss: Loss | None,
    settings: Lifetime,
    policy: Tensor | None = None,
    reference: bool = False,
    device: str = "cpu",
) -> Lived:
    """Raise P agents from birth, each in its own MDP by its own fate, and see what became of them.

    mdps: P of them; loss: batched over P, or None for agents that never learn; policy: evolved
    initial policies [P, n], or None.
    """
    body = body_of(task, settings)
    environments = task.batch(mdps, [fate.rng(Stream.RESET) for fate in fates.each()], device)
    agents = bear(body, fates, settings.train_memory, reference, policy)
    adam = InnerAdam(agents, settings.learning_rate, reference)
    buffer = agents.buffer(settings.buffer)
    diary = Diary(len(fates), device)
    observation = environments.reset()
    for _ in range(settings.updates):
        new, observation = act(agents, environments, observation, fates, settings.steps_per_update)
        experience = agents.remember(buffer, new)
        if loss is not None:
            learn(agents, adam, loss, experience, draw_minibatches(fates, settings))
        diary.note(agents, experience)
    final, steps, exploded = final_returns(agents, task, mdps, fates, settings.final_episodes)
    for parameter in agents.trained():
        adam.broken |= ~torch.isfinite(parameter.detach()).flatten(1).all(1)
    return Lived(
        final_return=torch.where(adam.broken, torch.nan, final).cpu().numpy(),
        episode_returns=diary.episode_returns(),
        kl=diary.kl.cpu().numpy() / settings.updates,
        entropy=diary.entropy.cpu().numpy() / settings.updates,
        steps=len(fates) * settings.steps + steps,
        exploded=int(environments.failures.sum()) + exploded,
    )


def body_of(task: Task, settings: Lifetime) -> Body:
    """The agent that fits a task."""
    return Body(
        task.observation_size, task.action_size, task.discrete, settings.hidden, settings.memory,
        settings.activation,
    )  # fmt: skip


def ppo_of(settings: Lifetime, reference: bool = False) -> Ppo:
    """PPO as a lifetime's settings want it."""
    return Ppo(settings.discount, settings.gae_lambda, reference=reference)


def act(
    agents: Agents, environments: Batch, observation: Tensor, fates: Fates, steps: int
) -> tuple[Transitions, Tensor]:
    """Act M steps; what was lived, and the observation [P, O] to go on from."""
    actor, distribution = agents.actor(), agents.distribution
    noise = fates.draw(Stream.ACTION, lambda rng: distribution.noise(rng, (steps,)))
    spread = actor.spread(noise)
    seen, done, answers = [], [], []
    for t in range(steps):
        seen.append(observation)
        done.append(actor.act(observation, spread[:, t : t + 1]))
        answers.append(environments.step(done[-1]))
        observation = answers[-1].observation
    lived = Transitions(
        observations=torch.stack(seen, 1).to(torch.float32),
        actions=torch.stack(done, 1),
        rewards=torch.stack([a.reward for a in answers], 1).to(torch.float32),
        terminated=torch.stack([a.terminated for a in answers], 1),
        truncated=torch.stack([a.truncated for a in answers], 1),
        next_observations=torch.stack([a.next_observation for a in answers], 1).to(torch.float32),
    )
    return lived, observation


def draw_minibatches(fates: Fates, settings: Lifetime) -> list[Tensor]:
    """The minibatches of an update: rows [P, B] of the newest M, shuffled anew for each pass."""
    count = settings.steps_per_update

    def shuffle(rng: np.random.Generator) -> np.ndarray:
        return np.concatenate([rng.permutation(count) for _ in range(settings.passes)])

    return list(fates.draw(Stream.MINIBATCH, shuffle).split(settings.minibatch, dim=1))


def learn(
    agents: Agents, adam: InnerAdam, loss: Loss, experience: Experience, minibatches: list[Tensor]
) -> None:
    """One update: minibatch steps down the loss."""
    objective = loss.objective(agents, experience)
    seen = max(loss.history, experience.new.rewards.shape[1])
    observations = experience.observations[:, -seen:]
    for rows in minibatches:
        adam.descend(objective(agents.outputs(observations), rows))


def final_returns(
    agents: Agents, task: Task, mdps: Sequence[Mdp], fates: Fates, episodes: int
) -> tuple[Tensor, int, int]:
    """Mean return of E episodes of each trained policy [P], steps taken, episodes exploded.

    The policy samples its actions; statistics are frozen. All episodes run side by side; an episode
    that ended is not simulated any more, and a lifetime whose episodes all have does not act.
    """
    lifetimes, device = len(fates), agents.device
    environments = task.batch(
        [mdp for mdp in mdps for _ in range(episodes)],
        [fate.rng(Stream.FINAL_RESET, e) for fate in fates.each() for e in range(episodes)],
        device,
        restart=False,
    )
    distribution = agents.distribution
    ahead = (NOISE_AHEAD, episodes)
    observation = environments.reset()
    returns = torch.zeros(lifetimes * episodes, dtype=torch.float64, device=device)
    alive = torch.ones_like(returns, dtype=torch.bool)
    steps = 0
    for t in range(task.horizon):
        if t % NOISE_AHEAD == 0:
            noise = fates.draw(Stream.FINAL_ACTION, lambda rng: distribution.noise(rng, ahead))
            acting = alive.view(lifetimes, episodes).any(1).nonzero().squeeze(1)
            rows = (
                acting.unsqueeze(1) * episodes + torch.arange(episodes, device=device)
            ).flatten()
            actor = agents.actor(acting)
            spread = actor.spread(noise[acting].transpose(1, 2).flatten(1, 2))
            spread = spread.reshape(len(acting), episodes, NOISE_AHEAD, *spread.shape[2:])
        steps += int(alive.sum())
        chosen = actor.act(observation[rows], spread[:, :, t % NOISE_AHEAD])
        actions = chosen.new_zeros(len(alive), *chosen.shape[1:])
        actions[rows] = chosen
        answer = environments.step(actions)
        returns += answer.reward
        observation = answer.observation
        alive &= ~(answer.terminated | answer.truncated)
        if not alive.any():
            break
    mean = returns.view(lifetimes, episodes).mean(1)
    return mean, steps, int(environments.failures.sum())


class Diary:
    """What is noted of P lifetimes while they last."""

    def __init__(self, lifetimes: int, device: str) -> None:
        self.kl = torch.zeros(lifetimes, dtype=torch.float64, device=device)
        self.entropy = torch.zeros_like(self.kl)
        self._running = torch.zeros_like(self.kl)
        self._means: list[Tensor] = []

    @torch.no_grad()
    def note(self, agents: Agents, experience: Experience) -> None:
        """After an update: how far it went, and the episodes that ended before it."""
        new = experience.new
        outputs = agents.outputs(experience.observations[:, -new.rewards.shape[1] :])
        self.kl += agents.distribution.kl(experience.old_outputs, outputs).mean(1)
        self.entropy += agents.distribution.entropy(outputs).mean(1)
        done = new.terminated | new.truncated
        so_far = self._running.unsqueeze(1) + new.rewards.to(torch.float64).cumsum(1)
        last = done.cumsum(1).argmax(1, keepdim=True)
        total = so_far.gather(1, last).squeeze(1) * done.any(1)
        self._running = so_far[:, -1] - total
        self._means.append(total / done.sum(1))

    def episode_returns(self) -> np.ndarray:
        """[P, U] mean return of the episodes that ended in each update's steps."""
        return torch.stack(self._means, 1).cpu().numpy()
