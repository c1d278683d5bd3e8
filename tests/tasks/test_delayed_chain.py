"""Delayed chains beside recorded episodes, and what is drawn of them.

tests/metagradient_vectors/gridworld.npz has the noise of each step; sizes come from the file.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from epg import tasks
from epg.errors import UserError
from epg.tasks.base import Mdp
from epg.tasks.delayed_chain import DelayedChainBatch, NoisyChainBatch

FILE = np.load(Path(__file__).parents[1] / "metagradient_vectors" / "gridworld.npz")
CHAINS = sorted({name.split("/")[0] for name in FILE.files if name.startswith("chain_")})
NAMES = ["delayed-chain", "delayed-chain-noisy", "delayed-chain-distract"]


def draws(task: tasks.Task, p: int) -> list[Mdp]:
    return [task.draw(np.random.default_rng(i)) for i in range(p)]


def generators(p: int) -> list[np.random.Generator]:
    return [np.random.default_rng([7, i]) for i in range(p)]


@pytest.mark.parametrize("chain", CHAINS)
def test_every_recorded_episode_is_lived(chain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by an environment of its own, twice, and one after the other by a single one."""
    n = {k.split("/")[1]: torch.from_numpy(FILE[k]) for k in FILE.files if k.startswith(chain)}
    episodes, length = n["action"].shape
    mdp = {"length": int(n["length"]), "good": int(n["good"])}
    assert mdp["length"] == length
    size = 2 * length - 1
    kind = NoisyChainBatch if n["reward"][:, :-1].any() else DelayedChainBatch
    noise: list[Tensor] = []
    monkeypatch.setattr(NoisyChainBatch, "noise", lambda self: noise[0])
    for rows in (1, episodes):
        batch = kind([mdp] * rows, size, generators(rows), length + 1, "cpu", True)
        seen = batch.reset()
        lives = range(episodes) if rows == 1 else [slice(None), slice(None)]
        for life in lives:
            for t in range(length):
                assert seen.argmax(1).tolist() == n["obs"][life, t].reshape(-1).tolist()
                assert (seen.sum(1) == 1).all()
                noise[:] = [n["noise"][life, t].reshape(-1)]
                step = batch.step(n["action"][life, t].reshape(-1))
                assert step.reward.tolist() == n["reward"][life, t].reshape(-1).tolist()
                assert step.terminated.tolist() == n["done"][life, t].reshape(-1).tolist()
                assert not step.truncated.any()
                seen = step.observation


def test_lengths_and_good_actions_are_drawn_evenly() -> None:
    for spec, low, high in (
        ("delayed-chain", 5, 30), ({"name": "delayed-chain-noisy", "length": [5, 50]}, 5, 50),
    ):  # fmt: skip
        mdps = draws(tasks.make(spec), 3000)
        lengths, goods = Counter(m["length"] for m in mdps), Counter(m["good"] for m in mdps)
        assert sorted(lengths) == list(range(low, high + 1)) and sorted(goods) == [0, 1]
        assert stats.chisquare(list(lengths.values())).pvalue > 1e-4
        assert stats.chisquare(list(goods.values())).pvalue > 1e-4
    fixed = tasks.make({"name": "delayed-chain", "length": 7, "good": 1})
    assert draws(fixed, 3) == [{"length": 7, "good": 1}] * 3


@pytest.mark.parametrize("name", NAMES)
def test_the_first_action_alone_decides_what_the_end_pays(name: str) -> None:
    task, p = tasks.make({"name": name, "length": [5, 50]}), 60
    assert (task.action_size, task.observation_size) == (2, 22 if name == NAMES[2] else 99)
    mdps = draws(task, p)
    batch = task.batch(mdps, generators(p), restart=False)
    seen = batch.reset()
    first = torch.arange(p) % 2
    good = first == torch.tensor([m["good"] for m in mdps])
    lengths = torch.tensor([m["length"] for m in mdps])
    noise = torch.Generator().manual_seed(0)
    inner = []
    for t in range(50):
        going = lengths > t
        step = batch.step(first if t == 0 else torch.randint(2, (p,), generator=noise))
        assert torch.equal(step.terminated, lengths <= t + 1)
        at_end = lengths == t + 1
        assert torch.equal(step.reward[at_end], torch.where(good, 1.0, -1.0)[at_end].double())
        between = going & ~at_end
        if name == "delayed-chain-noisy" and t > 0:
            inner += step.reward[between].tolist()
        else:
            assert not step.reward[between].any()
        if name == "delayed-chain-distract":
            assert torch.equal(step.observation[:, 0] == 1, good)
            assert torch.equal(step.observation[:, 1] == 1, ~good)
            changed = (step.observation[:, 2:] != seen[:, 2:]).any(1)
            assert changed[going].all() and not changed[~going].any()
            assert ((step.observation == 0) | (step.observation == 1)).all()
        else:
            places = torch.where(good, t + 1, t + lengths)
            assert torch.equal(step.observation.argmax(1)[between], places[between])
            assert not step.observation[lengths <= t + 1].any()
        seen = step.observation
    if name == "delayed-chain-noisy":
        assert set(inner) == {-1.0, 1.0} and abs(np.mean(inner)) < 4 / np.sqrt(len(inner))


def test_bits_of_noise_are_even_and_the_true_ones_are_0_at_the_start() -> None:
    task, p = tasks.make("delayed-chain-distract"), 4000
    batch = task.batch(draws(task, p), generators(p))
    first = batch.reset()
    assert not first[:, :2].any()
    for seen in (first, batch.step(torch.zeros(p, dtype=torch.int64)).observation):
        assert seen[:, 2:].mean(0).tolist() == pytest.approx([0.5] * 20, abs=5 * 0.5 / p**0.5)
        together = np.corrcoef(seen[:, 2:].T.numpy())
        assert np.abs(together - np.eye(20)).max() < 5 / p**0.5


@pytest.mark.parametrize("name", NAMES)
def test_a_chain_is_the_same_alone_and_among_others(name: str) -> None:
    task, p = tasks.make(name), 5
    mdps = draws(task, p)
    together = task.batch(mdps, generators(p))
    alone = [task.batch([mdp], [rng]) for mdp, rng in zip(mdps, generators(p), strict=True)]
    assert torch.equal(together.reset(), torch.cat([one.reset() for one in alone]))
    for actions in torch.randint(2, (200, p), generator=torch.Generator().manual_seed(1)):
        step = together.step(actions)
        parts = [one.step(actions[i : i + 1]) for i, one in enumerate(alone)]
        for whole, own in zip(step, zip(*parts, strict=True), strict=True):
            assert torch.equal(whole, torch.cat(own))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "delayed-chain", "length": 51}, "length: found 51, allowed: a number or [low"),
        ({"name": "delayed-chain", "length": [5, 7.5]}, "found [5, 7.5], allowed: whole numbers"),
        ({"name": "delayed-chain", "good": 2}, "good: found 2, allowed: a number or [low, high]"),
        ({"name": "delayed-chain", "noisy": True}, "unknown parameter 'noisy'"),
    ],
)
def test_a_wrong_chain_is_one_line(spec: tasks.Spec, message: str) -> None:
    with pytest.raises(UserError) as caught:
        tasks.make(spec)
    assert message in str(caught.value) and "\n" not in str(caught.value)
