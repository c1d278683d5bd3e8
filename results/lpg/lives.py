"""What fresh agents come to under a rule, a random one and one made by hand, as in training:
each in 16 environments at once.

    python results/lpg/lives.py [FILE ...]

By task the mean reward of a step, and the mean return of an episode, in the first 25 updates of a
life, in the last 50, and in all 250; 16 agents each, of MDPs that no training saw. By hand: π̂ is
the advantage (λ-returns above a value, standardised), with 0.01 of entropy: REINFORCE with a
baseline on the same agents.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from epg import tasks
from epg.config import load as load_config
from epg.methods.base import make_method
from epg.methods.lpg import LpgMethod
from epg.methods.lpg_population import LpgPopulation
from epg.methods.saved import load
from epg.rules.lpg import Said
from epg.rules.lpg_agents import age_of
from epg.rules.rule import descend, views_of

HERE = Path(__file__).parent
CONFIG = HERE.parents[1] / "configs" / "lpg.yaml"
SEED, UPDATES, ENTROPY = 77, 250, 0.01
TINY = 1e-9
USUAL = 4
"""The bandit's arm with the usual rate and α_y."""


def by_hand(population: LpgPopulation, learner: Any, theta: Any, moments: Any, rollout: Any) -> Any:
    """θ and moments after an update of REINFORCE with a baseline."""
    population._keep(rollout)  # the value learns
    gained = population._value.advantages(population._below("value."), rollout)
    rule = learner.rule
    pieces = (len(gained), rule.environments, -1)
    even = torch.full((*gained.shape, rule.networks.predictions), 1 / rule.networks.predictions)
    said = Said(gained.reshape(pieces), even.reshape(*pieces, rule.networks.predictions))
    theta, seen, _ = views_of({name: p.detach() for name, p in theta.items()}, False)
    loss = rule.loss_of(said, seen, rollout)[0] - ENTROPY * rule.entropies(seen, rollout)[0]
    return descend(loss, seen, theta, moments, learner.optimizer, graph=False)


def lives(name: str) -> list[tuple[list[float], list[float]]]:
    """By task: rewards of a step, and of an episode, at first, at last, and in all."""
    config = load_config(CONFIG, [f"seed={SEED}"])
    count = len(tasks.parts_of(config.task))
    config = load_config(CONFIG, [f"seed={SEED}", f"method.population={16 * count}"])
    method = make_method(config, tasks.make(config.task))
    assert isinstance(method, LpgMethod)
    method.begin(method.init() if name in ("untrained", "by hand") else load(name).params)
    eta = {n: p.unsqueeze(0) for n, p in method.params().items()}
    arm = torch.zeros(9)
    arm[USUAL] = 1
    found = []
    for unit in method.workload(0).units():
        population = method._make(unit, "cpu")
        population.begin(arm)
        population.begin_step(0)
        learner = population._learner_of(population._state["arm"])
        theta, moments = population._below("theta."), population._below("moments.")
        rewards, ends = [], []
        for update in range(UPDATES):
            rollout = population._collect(theta)
            rewards.append(rollout.rewards.mean())
            assert rollout.truncated is not None
            ends.append(1 - rollout.going_on.mean() + rollout.truncated.mean())
            if name == "by hand":
                theta, moments = by_hand(population, learner, theta, moments, rollout)
            else:
                age = age_of(unit.count, update, UPDATES, "cpu")
                theta, moments, _ = learner.update(eta, theta, moments, rollout, age, graph=False)
        parts = [slice(0, 25), slice(-50, None), slice(None)]
        by_step = [float(torch.stack(rewards[part]).mean()) for part in parts]
        by_episode = [float(sum(rewards[part]) / max(sum(ends[part]), TINY)) for part in parts]
        found.append((by_step, by_episode))
    return found


def main(files: list[str]) -> None:
    torch.set_num_threads(1)
    for name in ("untrained", "by hand", *(files or [str(HERE / "best.safetensors")])):
        print(name)
        parts = tasks.parts_of(load_config(CONFIG).task)
        for part, both in zip(parts, lives(name), strict=True):
            print(f"  {tasks.label(part)}")
            for what, (first, last, whole) in zip(("step", "episode"), both, strict=True):
                print(f"    a {what}: {first:.4f} at first, {last:.4f} at last, {whole:.4f} in all")


if __name__ == "__main__":
    main(sys.argv[1:])
