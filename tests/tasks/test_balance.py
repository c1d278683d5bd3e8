"""Balance: what falls by itself is held by pushes against it, and by nothing less."""

from __future__ import annotations

import numpy as np
import torch

from epg.tasks.balance import MOST, TIME_STEP, RandomBalance, RandomBalanceBatch

TASK = RandomBalance()
P = 16


MDPS = [TASK.draw(np.random.default_rng(i)) for i in range(P)]


def start() -> RandomBalanceBatch:
    batch = TASK.batch(MDPS, [np.random.default_rng(i) for i in range(P)], restart=False)
    assert isinstance(batch, RandomBalanceBatch)
    return batch


def test_who_knows_the_side_and_the_push_holds_it_and_who_does_not_lets_it_fall() -> None:
    held, still = start(), start()
    turn = torch.tensor([mdp["turn"] for mdp in MDPS], dtype=torch.float64)
    sign = torch.tensor([mdp["sign"] for mdp in MDPS])
    seen, _ = held.reset(), still.reset()
    lived = torch.zeros(2, P)
    for _ in range(TASK.horizon):
        position, velocity = torch.einsum("pij,pi->pj", turn, seen)[:, :2].unbind(1)
        step = held.step(((position + velocity) * sign < 0).long())
        seen = step.observation
        lived += torch.stack([step.reward, still.step(torch.ones(P, dtype=torch.int64)).reward])
    assert (lived[0] == TASK.horizon).all() and (lived[1] < 60).all()
    assert held.failures.sum() == still.failures.sum() == 0


def test_a_step_is_the_equation() -> None:
    batch = start()
    batch.reset()
    before = batch._state.clone()
    batch.step(torch.zeros(P, dtype=torch.int64))
    for mdp, old, new in zip(MDPS, before.tolist(), batch._state.tolist(), strict=True):
        force = -mdp["push"] * mdp["sign"]
        # velocity is in units of the rate
        wanted = [
            old[0] + TIME_STEP * mdp["rate"] * old[1],
            old[1] + TIME_STEP * mdp["rate"] * (old[0] + force),
        ]
        np.testing.assert_allclose(new[:2], wanted, rtol=1e-12)


def test_it_ends_where_it_has_fallen() -> None:
    batch = start()
    states = torch.zeros(P, 4, dtype=torch.float64)
    states[:, 0] = torch.linspace(-2, 2, P)
    assert (batch.ends(states) == (states[:, 0].abs() > MOST)).all()


def test_what_is_seen_is_turned_and_keeps_its_length() -> None:
    batch = start()
    seen = batch.reset()
    torch.testing.assert_close(seen.norm(dim=1), batch._state.norm(dim=1))
    assert ((seen - batch._state).norm(dim=1) > 1e-3).all()
