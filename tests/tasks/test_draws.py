"""Resets are each generator's draws in order, whoever ends when; so are uniform numbers."""

import numpy as np
import torch
from scipy import stats

from epg.tasks.draws import DEPTH, GOLDEN, Resets, Uniforms, uniform, uniform_noise


def test_the_kth_reset_is_the_kth_draw_through_many_refills() -> None:
    draw, p, calls = uniform_noise(3, 1.0), 4, 5 * DEPTH + 7
    resets = Resets([np.random.default_rng(i) for i in range(p)], draw, "cpu")
    expected = [draw(np.random.default_rng(i), calls) for i in range(p)]
    rng = np.random.default_rng(9)
    used = np.zeros(p, dtype=np.int64)
    rates = np.array([0.0, 0.1, 0.6, 1.0])  # from never to at every step
    for _ in range(calls):
        found = resets.next().numpy()
        for i in range(p):
            assert np.array_equal(found[i], expected[i][used[i]])
        ended = rng.random(p) < rates
        resets.advance(torch.from_numpy(ended))
        used += ended
    assert used[0] == 0 and used[3] == calls


def test_uniform_numbers_are_those_of_splitmix64() -> None:
    """The first five of seed 1234567, as its authors' C code gives them."""
    known = [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431,
        16408922859458223821,
    ]  # fmt: skip
    found = uniform(1234567 + torch.arange(1, 6) * GOLDEN)
    assert found.tolist() == [(number >> 11) * 2.0**-53 for number in known]


def test_uniform_numbers_depend_on_the_generator_and_the_count_alone() -> None:
    p, size = 5, 3
    together = Uniforms([np.random.default_rng(i) for i in range(p)], size, "cpu")
    alone = [Uniforms([np.random.default_rng(i)], size, "cpu") for i in range(p)]
    rng = np.random.default_rng(9)
    for _ in range(3 * DEPTH):
        found = together.next()
        assert torch.equal(found, torch.cat([one.next() for one in alone]))
        assert torch.equal(found, together.next())  # until it is used up
        used = torch.from_numpy(rng.random(p) < np.linspace(0, 1, p))
        together.advance(used)
        for one, has in zip(alone, used, strict=True):
            one.advance(has[None])


def test_uniform_numbers_are_even_and_do_not_hang_together() -> None:
    p, size, steps = 50, 4, 500
    source = Uniforms([np.random.default_rng([3, i]) for i in range(p)], size, "cpu")
    drawn = []
    for _ in range(steps):
        drawn.append(source.next())
        source.advance(torch.ones(p, dtype=torch.bool))
    table = torch.stack(drawn).numpy()  # [steps, P, S]
    assert table.min() >= 0 and table.max() < 1
    assert stats.kstest(table.ravel(), "uniform").pvalue > 1e-4
    columns = table.reshape(steps, p * size)
    for rows in (columns.T, np.concatenate([columns[:-1], columns[1:]], 1).T):
        together = np.abs(np.corrcoef(rows) - np.eye(len(rows)))
        assert together.max() < 6 / np.sqrt(steps)
