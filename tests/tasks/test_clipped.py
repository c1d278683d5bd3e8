"""Actions beyond their bounds: the same as those on them, in what is done and in what is paid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from epg import tasks
from epg.errors import UserError
from epg.tasks.base import Batch


def start(spec: object) -> Batch:
    task = tasks.make(spec)
    rng = np.random.default_rng(3)
    batch = task.batch(
        [task.draw(rng) for _ in range(2)], [np.random.default_rng(i) for i in (0, 1)]
    )
    batch.reset()
    return batch


@pytest.mark.parametrize("masked", [False, True])
def test_wide_actions_are_done_and_paid_as_those_on_the_bounds(masked: bool) -> None:
    spec = {"name": "half-cheetah", "masked": masked}
    bare, clipped, wide = start(spec), start({**spec, "clipped": True}), start(spec)
    rng = np.random.default_rng(0)
    for _ in range(5):
        action = torch.from_numpy(rng.normal(0, 3, (2, 6)).astype(np.float32))
        assert (action.abs() > 1).any()
        expected, found, charged = (
            bare.step(action.clip(-1, 1)), clipped.step(action), wide.step(action),
        )  # fmt: skip
        for one, other in zip(expected, found, strict=True):
            assert torch.equal(one, other)
        assert torch.equal(charged.observation, found.observation)  # torques are clamped anyway
        assert (charged.reward < found.reward).all()


def test_it_is_part_of_the_name_and_of_what_is_said() -> None:
    spec = {"name": "hopper", "clipped": True, "delayed": 2}
    task = tasks.make(spec)
    assert task.name == tasks.label(spec) == "hopper(clipped=True, delayed=2)"
    assert "actions clipped to [-1, 1]" in tasks.describe(task)
    assert tasks.make({"name": "hopper", "clipped": False}).summary == tasks.make("hopper").summary


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [("hopper", "yes", "true or false"), ("hopper", 1, "true or false"),
     ("cart-pole", True, "continuous ones")],
)  # fmt: skip
def test_what_does_not_fit_is_refused(name: str, value: object, allowed: str) -> None:
    with pytest.raises(UserError, match=f"task {name}: clipped: found .*{allowed}"):
        tasks.make({"name": name, "clipped": value})
