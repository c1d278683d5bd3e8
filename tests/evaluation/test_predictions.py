"""What is said of predictions, where it is known what they tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from epg.evaluation.predictions import DISCOUNTS, _told, probe


def test_a_probe_finds_what_is_linear_and_nothing_else() -> None:
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(400, 3, generator=chance, dtype=torch.float64)
    noise = torch.randn(400, generator=chance, dtype=torch.float64)
    line = x @ torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64) + 5
    half, rest = slice(None, 200), slice(200, None)

    def told(y: Tensor) -> float:
        return probe(x[half], y[half], x[rest], y[rest])

    assert told(line) > 0.999
    assert told(line + noise * 5**0.5) == pytest.approx(0.5, abs=0.1)
    assert -0.1 < told(noise) < 0.05
    assert np.isnan(told(torch.ones(400, dtype=torch.float64)))


def test_what_tells_a_state_tells_its_return() -> None:
    """Four states in a ring, of which one pays: with its number returns are known (but for those at
    γ 0.99, which differ by less than what is cut off); with whether it pays now only that is."""
    rows, length = 400, 4
    states = torch.arange(rows) % length
    rewards = (states == 3).float().unsqueeze(0)
    ends = torch.zeros_like(rewards)
    number = torch.eye(length)[states].unsqueeze(0)
    told = _told([(number, rewards, ends)] * 2)
    assert told.shape == (1, len(DISCOUNTS)) and (told[0, :3] > 0.99).all()
    now = rewards.unsqueeze(-1)
    told = _told([(now, rewards, ends)] * 2)[0]
    assert told[0] > 0.99 and told[2] < 0.8
    # what comes after an end counts for nothing
    told = _told([(now, rewards, torch.ones_like(ends))] * 2)[0]
    assert (told > 0.99).all()


def test_what_drifts_slowly_tells_nothing_of_noise() -> None:
    chance = torch.Generator().manual_seed(0)
    kept = [
        (torch.randn(4, 320, 8, generator=chance).cumsum(1) / 18,
         torch.randn(4, 320, generator=chance), torch.zeros(4, 320))
        for _ in range(10)
    ]  # fmt: skip
    assert np.mean(_told(kept)) < 0.05
