"""The table of randomness: pinned, since every published result depends on it."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch

from epg.seeds import LifetimeSeed, LifetimeSeeds, Purpose, Stream


def test_the_numbers_of_the_table_never_change() -> None:
    assert {p.name: p.value for p in Purpose} == {
        "START": 0, "TRAINING": 1, "VALIDATION": 2, "EVALUATION": 3, "TUNING": 4, "ESTIMATE": 5,
    }  # fmt: skip
    assert {s.name: s.value for s in Stream} == {
        "EPSILON": 0, "MDP": 1, "MDP_OF_GENERATION": 2, "AGENT": 3, "RESET": 4, "ACTION": 5,
        "MINIBATCH": 6, "FINAL_RESET": 7, "FINAL_ACTION": 8, "LOSS": 9,
        "ANOTHER_LIBRARY": 10, "LENGTH": 11, "ARM": 12,
    }  # fmt: skip


def test_what_is_drawn_never_changes() -> None:
    first = LifetimeSeed(0, Purpose.TRAINING, 0, 0).rng(Stream.EPSILON)
    assert first.integers(0, 2**32, 3).tolist() == [23824630, 3070577445, 3673357709]
    other = LifetimeSeed(7, Purpose.EVALUATION, 3, 5, mdp=2).rng(Stream.FINAL_RESET, 1)
    assert other.integers(0, 2**32, 3).tolist() == [3235091223, 360076766, 185024790]


def test_nothing_is_drawn_twice() -> None:
    """Defect 4: any other run, purpose, step, member, MDP or stream is another number."""
    drawn = {
        LifetimeSeed(run, purpose, step, member, mdp).rng(stream, *more).random()
        for run, step, member, mdp in product(range(2), repeat=4)
        for purpose in Purpose
        for stream in Stream
        for more in ((), (0,), (1,))
    }
    assert len(drawn) == 2**4 * len(Purpose) * len(Stream) * 3


def test_a_seed_is_the_same_whenever_it_is_asked() -> None:
    """Defect 4: nothing comes from the clock."""
    one, other = (LifetimeSeed(1, Purpose.TRAINING, 2, 3).rng(Stream.ACTION) for _ in range(2))
    assert np.array_equal(one.random(5), other.random(5))


def test_lifetimes_of_one_seed_draw_alike_and_go_on() -> None:
    seeds = [LifetimeSeed(0, Purpose.TRAINING, 0, pair) for pair in (0, 1)]
    batch = LifetimeSeeds(seeds, [0, 0, 1])
    first, second = (batch.draw(Stream.ACTION, lambda rng: rng.random(3)) for _ in range(2))
    assert first.shape == (3, 3) and len(batch) == 3 and batch.each() == [seeds[0]] * 2 + seeds[1:]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])
    assert not torch.equal(first, second)
    whole = seeds[1].rng(Stream.ACTION).random(6)
    np.testing.assert_array_equal(torch.cat((first[2], second[2])).numpy(), whole)
