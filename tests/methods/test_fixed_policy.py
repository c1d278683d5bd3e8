"""A policy that evolves and never learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from epg.config import Config
from epg.farm.work import Shared, Unit
from epg.lifetime import live
from epg.methods.fixed_policy import FixedPolicy
from epg.methods.saved import Saved, load
from epg.seeds import LifetimeSeeds, Purpose
from epg.tasks import make
from epg.tasks.base import draw_mdps


def method_of(task: str = "random-cart-pole", **method: object) -> FixedPolicy:
    config = Config.model_validate(
        {
            "task": task,
            "method": {"name": "fixed-policy", "pairs": 24, "sigma": 0.1, "learning_rate": 0.2}
            | method,
            "lifetime": {"updates": 3, "steps_per_update": 32},
        }
    )
    return FixedPolicy(config, make(task))


def final_returns(method: FixedPolicy, updates: int) -> np.ndarray:
    seeds = LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 16)
    agents = method.agents(method.params(), seeds)
    lifetime = method.config.lifetime.replace(updates=updates)
    return live(method.task, draw_mdps(method.task, seeds), agents, seeds, lifetime).final_return


@pytest.mark.parametrize("hidden", [(), (8,)], ids=["linear", "of two layers"])
@pytest.mark.parametrize("task", ["random-cart-pole", "cart-pole"])
def test_it_evolves_and_its_agents_never_learn(task: str, hidden: tuple[int, ...]) -> None:
    method = method_of(task, hidden=hidden)
    method.begin(method.init())
    before = final_returns(method, 1)
    for step in range(12):
        shared = Shared(step, {name: t.numpy().copy() for name, t in method.params().items()})
        unit = Unit(Purpose.TRAINING, step, 0, 24)
        method.update(step, [method.run(shared, unit)])
    after = final_returns(method, 1)
    assert after.mean() > before.mean() + 20
    assert np.array_equal(after, final_returns(method, 5))  # a longer life changes nothing


def test_a_lifetime_of_its_evolution_is_one_update_long() -> None:
    method = method_of()
    shared = Shared(0, {name: t.numpy() for name, t in method.init().items()})
    result = method.run(shared, Unit(Purpose.TRAINING, 0, 0, 2))
    assert set(result.arrays) == {"fitness"}
    assert 2 * 2 * 32 < result.steps <= 2 * 2 * (32 + 3 * 200)


def test_it_is_saved_and_judged_like_anything_learned(tmp_path: Path) -> None:
    method = method_of(hidden=(8,))
    saved = Saved(
        method.config, method.init(), (4, 1, False), 0, ("random-cart-pole",), "random-cart-pole"
    )
    saved.save(tmp_path / "policy.safetensors")
    found = load(tmp_path / "policy.safetensors")
    assert {name: tuple(t.shape) for name, t in found.params.items()} == {
        "policy.0.weight": (4, 8), "policy.0.bias": (8,),
        "policy.1.weight": (8, 1), "policy.1.bias": (1,), "policy.log_std": (1,),
    }  # fmt: skip
    assert (found.params["policy.log_std"] == -2).all()
    assert found.sized and "the loss is made for 4 and 1" in found.misfit(make("hopper"))
    seeds = LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 3)
    agents = found.agents(make("random-cart-pole"), seeds)
    assert not agents.failed.any()
    broken = {name: torch.full_like(t, torch.nan) for name, t in found.params.items()}
    assert method.agents(broken, seeds).failed.all()
