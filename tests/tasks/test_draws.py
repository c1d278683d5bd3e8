"""Resets are each generator's draws in order, whoever ends when."""

import numpy as np
import torch

from epg.tasks.draws import DEPTH, Resets, uniform_noise


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
