"""Chunks: the same returns however the work is cut, pairs that share all but the sign."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from epg.chunk import Center, Chunk, Evaluator, cut, draw_mdp, perturb
from epg.config import Config
from epg.lifetime import Lived, live, ppo_of
from epg.losses.mixture import Mixture
from epg.losses.temporal_conv import TemporalConvLoss
from epg.seeds import Fate, Fates, Purpose
from epg.tasks import Spec, make

LIFETIME = {"updates": 2, "steps_per_update": 16, "minibatch": 8, "buffer": 32, "hidden": [16]}


def config_of(task: Spec = "random-cart-pole", **evolution: object) -> Config:
    return Config.model_validate(
        {"task": task, "lifetime": LIFETIME, "evolution": evolution, "alpha": 0.5, "seed": 7}
    )


def center_of(evaluator: Evaluator, generation: int = 3, sigma: float = 0.1) -> Center:
    phi = evaluator.genome.draw(0, zero_output=False).numpy()
    return Center(generation, phi, sigma, alpha=0.5)


def training(first: int, count: int, generation: int = 3) -> Chunk:
    return Chunk(Purpose.TRAINING, generation, first, count)


@pytest.mark.parametrize("task", ["random-cart-pole", "cart-pole"])
@pytest.mark.parametrize("purpose", [Purpose.TRAINING, Purpose.VALIDATION])
def test_returns_do_not_depend_on_the_chunking(task: str, purpose: Purpose) -> None:
    """Defect 4."""
    evaluator = Evaluator(config_of(task))
    center = center_of(evaluator)
    whole = evaluator.evaluate(center, Chunk(purpose, 3, 0, 6))
    parts = [
        evaluator.evaluate(center, Chunk(purpose, 3, first, count))
        for first, count in ((0, 1), (1, 3), (4, 2))
    ]
    assert whole.fitness.shape == (6, 2 if purpose == Purpose.TRAINING else 1)
    assert np.isfinite(whole.fitness).all() and len(np.unique(whole.fitness)) > 3
    for what in ("fitness", "kl", "entropy"):
        cut = np.concatenate([getattr(part, what) for part in parts])
        np.testing.assert_array_equal(cut, getattr(whole, what), err_msg=what)
    assert sum(part.steps for part in parts) == whole.steps


@pytest.mark.parametrize("task_draw", ["generation", "pair"])
def test_fitness_is_the_mean_over_the_mdps_of_a_pair(task_draw: str) -> None:
    """Each lifetime on its own, with the candidate, the fate and the MDP that are its."""
    config = config_of(task_draw=task_draw, mdps_per_pair=2)
    evaluator = Evaluator(config)
    center = center_of(evaluator)
    fitness = evaluator.evaluate(center, training(1, 2)).fitness
    for i, pair in enumerate((1, 2)):
        for sign, phi in enumerate(torch.from_numpy(perturb(center, 7, pair))):
            loss = TemporalConvLoss(evaluator.genome.architecture, phi[None], 32)
            mixture = Mixture([(0.5, loss), (0.5, ppo_of(config.lifetime))])
            returns = []
            for mdp in range(2):
                fate = Fate(7, Purpose.TRAINING, 3, pair, mdp)
                lived = live(
                    evaluator.task, [draw_mdp(evaluator.task, fate, task_draw)],
                    Fates([fate], [0]), mixture, config.lifetime,
                )  # fmt: skip
                returns.append(lived.final_return[0])
            assert fitness[i, sign] == np.mean(returns)


def test_task_draw() -> None:
    """Defect 2: MDPs differ; with `generation` all pairs of one share theirs."""
    for task in (make("random-cart-pole"), make("random-hopper")):
        drawn = {
            (draw, generation, pair, mdp): str(
                draw_mdp(task, Fate(0, Purpose.TRAINING, generation, pair, mdp), draw)
            )
            for draw in ("generation", "pair")
            for generation in range(2)
            for pair in range(3)
            for mdp in range(2)
        }
        shared = {key: mdp for key, mdp in drawn.items() if key[0] == "generation"}
        own = [mdp for key, mdp in drawn.items() if key[0] == "pair"]
        assert len(set(own)) == 12
        assert len(set(shared.values())) == 4
        for (draw, generation, _, mdp), value in shared.items():
            assert value == shared[draw, generation, 0, mdp]


@pytest.mark.parametrize("task", ["random-cart-pole", "cart-pole"])
def test_a_pair_shares_all_but_the_sign(task: str) -> None:
    """Defect 4."""
    evaluator = Evaluator(config_of(task))
    same = evaluator.evaluate(center_of(evaluator, sigma=0.0), training(0, 4)).fitness
    np.testing.assert_array_equal(same[:, 0], same[:, 1])
    assert len(np.unique(same)) > 1
    apart = evaluator.evaluate(center_of(evaluator, sigma=0.5), training(0, 4)).fitness
    assert (apart[:, 0] != apart[:, 1]).any()


def test_validation_has_the_same_fates_in_every_generation() -> None:
    """And judges φ itself: neither σ, nor α of now, nor the training MDPs matter."""
    evaluator = Evaluator(config_of(mdps_per_pair=2, task_draw="generation"))
    phi = evaluator.genome.draw(0, zero_output=False).numpy()
    now = Center(3, phi, 0.1, alpha=1.0)
    later = Center(8, phi, 0.3, alpha=0.2)
    first = evaluator.evaluate(now, Chunk(Purpose.VALIDATION, 3, 0, 4)).fitness
    second = evaluator.evaluate(later, Chunk(Purpose.VALIDATION, 8, 0, 4)).fitness
    np.testing.assert_array_equal(first, second)
    assert first.shape == (4, 1) and len(np.unique(first)) == 4
    other = Center(3, phi + 1, 0.1, alpha=1.0)
    changed = evaluator.evaluate(other, Chunk(Purpose.VALIDATION, 3, 0, 4)).fitness
    assert not np.array_equal(changed, first)


def test_training_has_new_fates_in_every_generation() -> None:
    evaluator = Evaluator(config_of())
    results = [
        evaluator.evaluate(center_of(evaluator, g, sigma=0.0), training(0, 3, g)).fitness
        for g in (0, 1)
    ]
    assert not np.array_equal(*results)


@pytest.mark.parametrize("task", ["random-cart-pole", "cart-pole"])
def test_the_policy_at_birth_may_evolve(task: str) -> None:
    """Defect 7: for continuous and discrete actions alike."""
    alone, evaluator = (
        Evaluator(config_of(task)),
        Evaluator(config_of(task, evolve_policy_init=True)),
    )
    discrete = evaluator.task.discrete
    actions = evaluator.task.action_size
    policy = 4 * 16 + 16 + 16 * actions + actions + (0 if discrete else actions)
    assert evaluator.genome.size == alone.genome.size + policy
    center = center_of(evaluator, sigma=0.0)
    loss = alone.genome.draw(0, zero_output=False).numpy()
    np.testing.assert_array_equal(center.phi[: alone.genome.size], loss)
    usual = evaluator.evaluate(center, training(0, 3))
    same_loss = alone.evaluate(center_of(alone, sigma=0.0), training(0, 3))
    assert not np.array_equal(usual.fitness, same_loss.fitness)
    named = evaluator.genome.name(torch.from_numpy(center.phi))
    if discrete:
        named["policy.1.bias"][0] += 50
    else:
        named["policy.log_std"] -= 3
    certain = evaluator.evaluate(center, training(0, 3))
    assert (usual.entropy > 0.5).all()
    assert (certain.entropy < 0.01).all()


def test_a_broken_loss_is_told_as_nan_and_leaves_the_others() -> None:
    """Defect 5."""
    evaluator = Evaluator(config_of())
    center = center_of(evaluator)
    sound = evaluator.evaluate(center, training(0, 2))
    assert np.isfinite(sound.fitness).all() and sound.exploded == 0
    phi = center.phi.copy()
    named = evaluator.genome.name(torch.from_numpy(phi))
    named["output.weight"][0, 0] = np.nan
    broken = evaluator.evaluate(Center(3, phi, 0.1, 0.5), training(0, 2))
    assert np.isnan(broken.fitness).all()


def test_a_lifetime_gone_bad_is_counted_and_never_reaches_its_neighbours() -> None:
    """In MuJoCo: its policy turns to NaN, and so do its actions."""
    task, settings = make("dir-hopper"), config_of().lifetime
    architecture = Evaluator(config_of("dir-hopper")).genome.architecture
    phi = torch.stack([architecture.draw(np.random.default_rng(i)) for i in range(3)])

    def raised() -> Lived:
        fates = Fates([Fate(0, Purpose.TRAINING, 0, i) for i in range(3)], range(3))
        mdps = [draw_mdp(task, fate) for fate in fates.each()]
        loss = Mixture([(1.0, TemporalConvLoss(architecture, phi, settings.buffer))])
        return live(task, mdps, fates, loss, settings)

    sound = raised()
    phi[1] = torch.nan
    broken = raised()
    assert sound.exploded == 0 and broken.exploded >= settings.steps_per_update
    assert np.isnan(broken.final_return).tolist() == [False, True, False]
    for name in ("final_return", "episode_returns", "kl", "entropy"):
        ours, theirs = getattr(broken, name), getattr(sound, name)
        np.testing.assert_array_equal(ours[[0, 2]], theirs[[0, 2]])


def test_fitness_in_a_mixture_is_normalised_for_each_task() -> None:
    """And does not depend on the chunking: neighbours may be of other tasks."""
    scales = {"point-goal": [-3.0, -1.0], "random-cart-pole": [10.0, 60.0]}
    spec = [{"name": name, "scale": scale} for name, scale in scales.items()]
    evaluator = Evaluator(config_of(spec))
    center = center_of(evaluator)
    whole = evaluator.evaluate(center, training(0, 6)).fitness
    parts = [evaluator.evaluate(center, training(i, 1)).fitness for i in range(6)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    fates = [Fate(7, Purpose.TRAINING, 3, i) for i in range(6)]
    drawn = [draw_mdp(evaluator.task, fate) for fate in fates]
    assert {mdp["part"] for mdp in drawn} == {0, 1}
    raw = Evaluator(config_of([part | {"scale": [0, 1]} for part in spec]))
    for mdp, fitness, returns in zip(
        drawn, whole, raw.evaluate(center, training(0, 6)).fitness, strict=True
    ):
        low, high = list(scales.values())[mdp["part"]]
        np.testing.assert_allclose(fitness, (returns - low) / (high - low))


@pytest.mark.parametrize("total", range(12))
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("known", [(), (0, 1), (4, 5, 6)])
def test_cutting_leaves_nothing_out_and_no_lifetime_alone(
    total: int, size: int, known: tuple[int, ...]
) -> None:
    for least in (1, 2):
        runs = list(cut(total, size, known, least))
        covered = [i for first, count in runs for i in range(first, first + count)]
        assert covered == [i for i in range(total) if i not in known]
        assert all(count <= max(size, least) + least - 1 for _, count in runs)
        whole = [i for i in range(total) if i not in known]
        alone = [i for i in whole if i - 1 not in whole and i + 1 not in whole]
        if least == 2:
            assert [first for first, count in runs if count == 1] == alone
