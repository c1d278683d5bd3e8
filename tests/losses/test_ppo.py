"""PPO: advantages against a slow loop, the loss against its formula."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from probes import Choose, Follow, OneStep, grow, seeds_of

from epg.agents.actor_critic import ActorCritic, Experience
from epg.config import Setup
from epg.losses.gae import Gae
from epg.losses.ppo import Ppo
from epg.losses.reinforce import Reinforce
from epg.tasks import Task

M = 12
SETTINGS = Setup().change(
    updates=2, steps_per_update=M, minibatch=M, buffer=30, hidden=(8,), learning_rate=0.1
)


def lived(task: Task, ends: bool = True) -> tuple[ActorCritic, Experience]:
    """Two agents that learned, and random rewards and ends; the last step is mid-episode."""
    agents, experience = grow(task, SETTINGS, Ppo(), seeds_of(range(2)))
    rng = np.random.default_rng(0)
    terminated = torch.from_numpy(rng.random((2, M)) < 0.25 * ends)
    truncated = torch.from_numpy(rng.random((2, M)) < 0.25 * ends) & ~terminated
    terminated[:, -1] = truncated[:, -1] = False
    rewards = torch.from_numpy(rng.normal(size=(2, M)).astype(np.float32))
    new = replace(experience.new, rewards=rewards, terminated=terminated, truncated=truncated)
    after = torch.from_numpy(rng.normal(size=(2, M, task.observation_size)).astype(np.float32))
    return agents, replace(experience, new=new, next_observations=after)


def slow_advantages(
    agents: ActorCritic, experience: Experience, discount: float, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and value targets, step by step, each as a sum over what comes after it."""
    new = experience.new
    value = agents.values(experience.observations[:, -M:]).detach().double()
    after = agents.values(experience.next_observations).detach().double()
    advantages = torch.zeros(2, M, dtype=torch.float64)
    for p in range(2):
        for t in range(M):
            weight = 1.0
            for k in range(t, M):
                follows = 0.0 if new.terminated[p, k] else after[p, k].item()
                error = new.rewards[p, k].item() + discount * follows - value[p, k].item()
                advantages[p, t] += weight * error
                if new.terminated[p, k] or new.truncated[p, k]:
                    break
                weight *= discount * smoothing
    return advantages.float(), (advantages + value).float()


@pytest.mark.parametrize("smoothing", [0.0, 0.95, 1.0])
def test_advantages_are_those_of_a_slow_loop(smoothing: float) -> None:
    """Defect 8: the last step looks at what came next, a horizon is no termination."""
    agents, experience = lived(Follow())
    assert experience.new.terminated.any() and experience.new.truncated.any()
    gae = Gae(discount=0.9, smoothing=smoothing)
    ours = gae.advantages(agents, experience, experience.observations[:, -M:])
    torch.testing.assert_close(ours, slow_advantages(agents, experience, 0.9, smoothing))


@pytest.mark.parametrize("task", [Follow(), Choose()], ids=["continuous", "discrete"])
def test_the_loss_is_its_formula(task: Task) -> None:
    """Per row: −min(r·A, clip(r)·A) + 0.001·KL + (V − R)²; newest rows, any minibatch."""
    agents, experience = lived(task)
    generator = torch.Generator().manual_seed(0)
    for parameter in agents.trained():
        parameter.data += torch.randn(parameter.shape, generator=generator)
    rows = torch.tensor([[3, 0, 11, 7], [1, 2, 10, 4]])
    outputs = agents.outputs(experience.observations)
    ours = Ppo(discount=0.9).objective(agents, experience)(outputs, rows)
    advantages, returns = slow_advantages(agents, experience, 0.9, 0.95)
    values = agents.values(experience.observations[:, -M:])
    new, old = experience.new, experience.old_outputs
    for p in range(2):
        a = advantages[p]
        a = (a - a.mean()) / (a.std(correction=0) + 1e-8)
        total, clipped = 0.0, 0
        for row in rows[p]:
            now, before = outputs[p, -M:][row], old[p, row]
            action = new.actions[p, row]
            ratio = torch.exp(
                agents.distribution.log_prob(now, action)
                - agents.distribution.log_prob(before, action)
            )
            clipped += int(ratio < 0.8 or ratio > 1.2)
            surrogate = torch.min(ratio * a[row], ratio.clamp(0.8, 1.2) * a[row])
            kl = agents.distribution.kl(before, now)
            total += -surrogate + 0.001 * kl + (values[p, row] - returns[p, row]) ** 2
        assert clipped > 0
        torch.testing.assert_close(ours[p], total / 4, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", [Follow(), Choose()], ids=["continuous", "discrete"])
def test_reinforce_is_its_formula_too(task: Task) -> None:
    """Per row: −log π·A + (V − R)². Where the policy has not moved, PPO has the same gradient."""
    agents, experience = lived(task)
    rows = torch.arange(M).repeat(2, 1)
    policy = [p for name, p in agents.parameters.items() if name.startswith("policy")]
    slopes = []
    for loss in (Reinforce(discount=0.9), Ppo(discount=0.9)):
        outputs = agents.outputs(experience.observations)
        experience = replace(experience, old_outputs=outputs[:, -M:].detach())
        value = loss.objective(agents, experience)(outputs, rows)
        slopes.append(torch.autograd.grad(value.sum(), policy))
    for ours, ppos in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, ppos, rtol=1e-3, atol=1e-6)
    advantages, targets = slow_advantages(agents, experience, 0.9, 0.95)
    standard = advantages - advantages.mean(1, keepdim=True)
    standard /= advantages.std(1, correction=0, keepdim=True)
    outputs = agents.outputs(experience.observations)
    log_prob = agents.distribution.log_prob(outputs[:, -M:], experience.new.actions)
    values = agents.values(experience.observations[:, -M:])
    expected = (-log_prob * standard + (values - targets) ** 2).mean(1)
    ours = Reinforce(discount=0.9).objective(agents, experience)(outputs, rows)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_equal_advantages_stay_finite() -> None:
    """Defect 9: their standard deviation is 0."""
    agents, experience = grow(OneStep(), SETTINGS, Ppo(), seeds_of(range(2)))
    rows = torch.arange(M).repeat(2, 1)
    outputs = agents.outputs(experience.observations[:, -M:])
    gae = Gae(0.99, 0.95)
    advantages, _ = gae.advantages(agents, experience, experience.observations[:, -M:])
    assert (advantages.std(1, correction=0) == 0).all()
    loss = Ppo().objective(agents, experience)(outputs, rows)
    assert loss.isfinite().all()
    loss.sum().backward()
    assert all(p.grad.isfinite().all() for p in agents.parameters.values() if p.grad is not None)
