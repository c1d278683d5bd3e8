"""Running statistics: what numpy says of all that was counted, each transition once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from probes import Choose, Follow, seeds_of

from epg.agents.actor_critic import ActorCritic, init_parameters
from epg.agents.buffer import Transitions
from epg.agents.normalizer import RunningStatistics
from epg.agents.released import ReleasedActorCritic
from epg.agents.spec import AgentSettings, AgentSpec
from epg.tasks import Task


def by_numpy(counted: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Normalised by the statistics of `counted` [rows, size], with the starts of the release."""
    count = len(counted) + 0.01
    mean = counted.sum(0) / count
    variance = np.maximum(((counted**2).sum(0) + 0.01) / count - mean**2, 0.01)
    return (seen - mean) / np.sqrt(variance)


def test_matches_numpy() -> None:
    rng = np.random.default_rng(0)
    pieces = [rng.normal(3, 5, (2, rows, 4)).astype(np.float32) for rows in (7, 1, 30)]
    statistics = RunningStatistics(2, 4)
    for piece in pieces:
        statistics.add(torch.from_numpy(piece))
    everything = np.concatenate(pieces, 1)
    ours = statistics.normalise(torch.from_numpy(everything)).numpy()
    for p in range(2):
        wanted = by_numpy(everything[p].astype(np.float64), everything[p])
        np.testing.assert_allclose(ours[p], wanted, rtol=1e-4, atol=1e-5)


def test_a_constant_is_divided_by_no_less_than_a_tenth() -> None:
    statistics = RunningStatistics(1, 1)
    statistics.add(torch.zeros(1, 1000, 1))
    assert statistics.normalise(torch.ones(1, 1, 1)).item() == pytest.approx(10)


def test_a_large_offset_does_not_eat_the_variance() -> None:
    values = torch.tensor([9999.0, 10001.0]).repeat(500).view(1, 1000, 1)
    statistics = RunningStatistics(1, 1)
    statistics.add(values)
    spread = statistics.normalise(values[:, 1:2]) - statistics.normalise(values[:, :1])
    wanted = by_numpy(values[0].double().numpy(), values[0, :2].double().numpy())
    assert spread.item() == pytest.approx(wanted[1, 0] - wanted[0, 0], rel=1e-3)


def transitions(rng: np.random.Generator, task: Task, rows: int) -> Transitions:
    shape = (2, rows)
    seen = rng.normal(1, 2, (*shape, task.observation_size)).astype(np.float32)
    actions = (
        rng.integers(0, task.action_size, shape)
        if task.discrete
        else rng.normal(0, 3, (*shape, task.action_size)).astype(np.float32)
    )
    none = torch.zeros(shape, dtype=torch.bool)
    return Transitions(
        torch.from_numpy(seen), torch.from_numpy(actions), torch.zeros(shape), none, none,
        torch.from_numpy(seen + 1),
    )  # fmt: skip


def agents_of(task: Task, released: bool) -> ActorCritic:
    spec = AgentSpec.of(task, AgentSettings(hidden=(8,)))
    kind = ReleasedActorCritic if released else ActorCritic
    return kind(spec, init_parameters(spec, seeds_of(range(2))), train_memory=True)


@pytest.mark.parametrize("task", [Follow(), Choose()], ids=["continuous", "discrete"])
@pytest.mark.parametrize("released", [False, True])
def test_how_often_a_transition_counts(task: Task, released: bool) -> None:
    """Defect 9: once, and not once in each update as long as it is in the buffer."""
    agents, rng = agents_of(task, released), np.random.default_rng(1)
    buffer = agents.buffer(10)
    lived = [transitions(rng, task, 4) for _ in range(4)]
    for new in lived:
        experience = agents.remember(buffer, new)
    encoded = [agents.distribution.encode(new.actions).double().numpy() for new in lived]
    seen = [new.observations.double().numpy() for new in lived]
    for ours, theirs in ((experience.observations, seen), (experience.actions, encoded)):
        everything = np.concatenate(theirs, 1)
        buffered = everything[:, -10:]
        counted = everything
        if released:
            ends = (4, 8, 12, 16)
            counted = np.concatenate([everything[:, max(0, e - 10) : e] for e in ends], 1)
        for p in range(2):
            wanted = by_numpy(counted[p], buffered[p])
            np.testing.assert_allclose(ours[p].numpy(), wanted, rtol=1e-4, atol=1e-5)
    wanted = by_numpy(np.concatenate(seen, 1)[0], lived[-1].next_observations[0].double().numpy())
    if not released:
        np.testing.assert_allclose(
            experience.next_observations[0].numpy(), wanted, rtol=1e-4, atol=1e-5
        )
