"""The buffer: zeros in front, the newest N, oldest first."""

from __future__ import annotations

import pytest
import torch
from probes import Choose, Follow, networks_of, seeds_of

from epg.agents.buffer import Buffer, Transitions
from epg.agents.history import History
from epg.config import Setup
from epg.tasks import Task

P = 2


def numbered(first: int, count: int, discrete: bool) -> Transitions:
    """Step k has k everywhere, in the second lifetime 100 more; every third terminates."""
    k = torch.arange(first, first + count) + torch.tensor([[0], [100]])
    rows = k.unsqueeze(-1).float()
    return Transitions(
        observations=rows.expand(P, count, 2),
        actions=k % 3 if discrete else rows,
        rewards=k.float(),
        terminated=k % 3 == 0,
        truncated=k % 3 == 1,
        next_observations=rows.expand(P, count, 2) + 1,
    )


@pytest.mark.parametrize("discrete", [False, True])
def test_zeros_in_front_then_the_newest_oldest_first(discrete: bool) -> None:
    """Defect 1: a buffer that is not full is as long as one that is."""
    buffer = Buffer(P, 10, 2, 1, discrete)
    for update in range(4):
        buffer.append(numbered(1 + 4 * update, 4, discrete))
        lived = list(range(1, 5 + 4 * update))[-10:]
        wanted = torch.tensor([0] * (10 - len(lived)) + lived)
        real = wanted > 0
        assert buffer.filled == len(lived)
        assert torch.equal(buffer.rewards[0], wanted.float())
        assert torch.equal(buffer.rewards[1], (wanted + 100 * real).float())
        assert torch.equal(buffer.observations[0], wanted.float().unsqueeze(-1).expand(10, 2))
        assert torch.equal(buffer.dones[0], ((wanted % 3 < 2) & real).float())
        actions = wanted % 3 if discrete else wanted.float().unsqueeze(-1)
        assert torch.equal(buffer.actions[0], actions)


@pytest.mark.parametrize("task", [Follow(), Choose()], ids=["continuous", "discrete"])
def test_what_was_not_lived_is_zero_to_the_loss(task: Task) -> None:
    """Defect 1: zero after normalisation too, and no action 0."""
    agents = networks_of(task, Setup().change(hidden=(8,)), seeds_of(range(P)))
    experience = agents.remember(agents.buffer(10), numbered(1, 4, task.discrete))
    for rows in (experience.observations, experience.actions, experience.rewards, experience.dones):
        assert (rows[:, :6] == 0).all()
    assert (experience.observations[:, 6:] != 0).any(-1).all()
    assert (experience.actions[:, 6:] != 0).any(-1).all()
    assert experience.auxiliary is None


@pytest.mark.parametrize("task", [Follow(), Choose()], ids=["continuous", "discrete"])
def test_a_history_of_ones_own_shows_what_agents_see(task: Task) -> None:
    """Bitwise, step by step added, over updates in which the buffer fills and overflows."""
    agents = networks_of(task, Setup().change(hidden=(8,)), seeds_of(range(P)))
    buffer, history = agents.buffer(10), History(agents.spec, 10, agents=P)
    for update in range(4):
        new = numbered(1 + 4 * update, 4, task.discrete)
        experience = agents.remember(buffer, new)
        dones = new.terminated | new.truncated
        for t in range(4):
            history.add(new.observations[:, t], new.actions[:, t], new.rewards[:, t], dones[:, t])
        judged = history.judged()
        wanted = (experience.observations, experience.actions, experience.rewards, experience.dones)
        assert all(torch.equal(*pair) for pair in zip(judged, wanted, strict=True))
        assert all(torch.equal(*pair) for pair in zip(history.judged(), wanted, strict=True))
        seen = history.normalise(new.observations[:, -1])
        assert torch.equal(seen, experience.observations[:, -1])


def test_its_memory_is_that_of_agents_and_learns() -> None:
    agents = networks_of(Follow(), Setup(), seeds_of(range(P)))
    history = History(agents.spec, 10, agents=P)
    weight, bias = history.parameters()
    assert not torch.equal(weight[0], weight[1])
    torch.testing.assert_close(weight.norm(dim=2), torch.full_like(weight[..., 0], 0.01))
    weight.data.copy_(agents.parameters["memory.0.weight"].detach())
    bias.data.copy_(agents.parameters["memory.0.bias"].detach())
    torch.testing.assert_close(history.memory(), agents.memory())
    history.memory()[0].sum().backward()
    assert weight.grad is not None and weight.grad[0].abs().sum() > 0 == weight.grad[1].abs().sum()


def test_more_steps_than_it_holds_are_refused() -> None:
    history = History(networks_of(Follow(), Setup(), seeds_of([0])).spec, 2)
    for _ in range(3):
        history.add(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1), torch.zeros(1))
    with pytest.raises(ValueError, match="3 steps were added, more than the 2"):
        history.judged()
