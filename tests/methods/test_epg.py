"""Units of EPG: the same fitness however the work is cut, pairs that share all but the sign."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from epg.agents.policy_gradient import PolicyGradientAgents
from epg.config import Config
from epg.evolution.noise import perturb
from epg.farm.work import Result, Shared, Unit, Workload, split_ranges
from epg.lifetime import LifetimeResult, live
from epg.losses.ppo import Ppo
from epg.losses.temporal_conv import TemporalConv
from epg.losses.weighted_sum import Fading, WeightedSum
from epg.methods.base import agents_with, tensors_of
from epg.methods.epg import Epg
from epg.seeds import LifetimeSeed, LifetimeSeeds, Purpose
from epg.tasks import Spec, make
from epg.tasks.base import draw_mdp, draw_mdps
from epg.training.runner import TrainingRunner

NO_SIGMA = 1e-60
"""Above 0, as σ must be, and 0 among the numbers that φ is made of."""


def config_of(task: Spec = "random-cart-pole", **method: object) -> Config:
    return Config.model_validate(
        {
            "task": task,
            "seed": 7,
            "method": {"name": "epg", "alpha": 0.5, "sigma": 0.1, **method},
            "agent": {"hidden": [16]},
            "lifetime": {"updates": 2, "steps_per_update": 16},
            "learner": {"minibatch": 8, "buffer": 32},
        }
    )


def epg_of(runner: TrainingRunner) -> Epg:
    assert isinstance(runner.method, Epg)
    return runner.method


def shared_of(runner: TrainingRunner, step: int = 3) -> Shared:
    """A φ that a run of another seed starts from."""
    other = Epg(runner.config.model_copy(update={"seed": 0}), runner.task)
    return Shared(step, {name: t.numpy().copy() for name, t in other.init().items()})


def phi_of(runner: TrainingRunner, shared: Shared) -> np.ndarray:
    """φ as one vector."""
    return epg_of(runner).spec.flatten(tensors_of(shared)).numpy()


def training(first: int, count: int, step: int = 3) -> Unit:
    return Unit(Purpose.TRAINING, step, first, count)


def fitness_of(runner: TrainingRunner, shared: Shared, unit: Unit) -> np.ndarray:
    fitness: np.ndarray = runner.run(shared, unit).arrays["fitness"]
    return fitness


@pytest.mark.parametrize("task", ["random-cart-pole", "cart-pole"])
@pytest.mark.parametrize("purpose", [Purpose.TRAINING, Purpose.VALIDATION])
def test_results_do_not_depend_on_the_units(task: str, purpose: Purpose) -> None:
    """Defect 4."""
    runner = TrainingRunner(config_of(task))
    shared = shared_of(runner)
    whole = runner.run(shared, Unit(purpose, 3, 0, 6))
    parts = [
        runner.run(shared, Unit(purpose, 3, first, count))
        for first, count in ((0, 1), (1, 3), (4, 2))
    ]
    fitness = whole.arrays["fitness"]
    assert fitness.shape == ((6, 2) if purpose == Purpose.TRAINING else (6,))
    assert np.isfinite(fitness).all() and len(np.unique(fitness)) > 3
    names = {"fitness", "kl", "entropy"} if purpose == Purpose.TRAINING else {"fitness"}
    assert set(whole.arrays) == names
    for name, values in whole.arrays.items():
        put_together = np.concatenate([part.arrays[name] for part in parts])
        np.testing.assert_array_equal(put_together, values, err_msg=name)
    assert sum(part.steps for part in parts) == whole.steps


@pytest.mark.parametrize("task_draw", ["generation", "pair"])
def test_fitness_is_the_mean_over_the_mdps_of_a_pair(task_draw: str) -> None:
    """Each lifetime on its own, with the candidate, the seed and the MDP that are its."""
    config = config_of(task_draw=task_draw, mdps_per_pair=2)
    runner = TrainingRunner(config)
    shared, method = shared_of(runner), epg_of(runner)
    fitness = fitness_of(runner, shared, training(1, 2))
    for i, pair in enumerate((1, 2)):
        candidates = torch.from_numpy(perturb(phi_of(runner, shared), 0.1, 7, 3, pair))
        for sign, phi in enumerate(candidates):
            loss, _ = method.spec.split(phi[None])
            whole = WeightedSum([(0.5, method.loss.bind(loss)), (0.5, Ppo())])
            returns = []
            for mdp in range(2):
                seed = LifetimeSeed(7, Purpose.TRAINING, 3, pair, mdp)
                seeds = LifetimeSeeds([seed], [0])
                mdps = [draw_mdp(runner.task, seed, task_draw)]
                agents = agents_with(whole, runner.task, config.setup, seeds)
                lived = live(runner.task, mdps, agents, seeds, config.lifetime)
                returns.append(lived.final_return[0])
            assert fitness[i, sign] == np.mean(returns)


def test_task_draw() -> None:
    """Defect 2: MDPs differ; with `generation` all pairs of one share theirs."""
    for task in (make("random-cart-pole"), make("random-hopper")):
        drawn = {
            (draw, step, pair, mdp): str(
                draw_mdp(task, LifetimeSeed(0, Purpose.TRAINING, step, pair, mdp), draw)
            )
            for draw in ("generation", "pair")
            for step in range(2)
            for pair in range(3)
            for mdp in range(2)
        }
        shared = {key: mdp for key, mdp in drawn.items() if key[0] == "generation"}
        own = [mdp for key, mdp in drawn.items() if key[0] == "pair"]
        assert len(set(own)) == 12
        assert len(set(shared.values())) == 4
        for (draw, step, _, mdp), value in shared.items():
            assert value == shared[draw, step, 0, mdp]


@pytest.mark.parametrize("task", ["random-cart-pole", "cart-pole"])
def test_a_pair_shares_all_but_the_sign(task: str) -> None:
    """Defect 4."""
    runner = TrainingRunner(config_of(task, sigma=NO_SIGMA))
    same = fitness_of(runner, shared_of(runner), training(0, 4))
    np.testing.assert_array_equal(same[:, 0], same[:, 1])
    assert len(np.unique(same)) > 1
    runner = TrainingRunner(config_of(task, sigma=0.5))
    apart = fitness_of(runner, shared_of(runner), training(0, 4))
    assert (apart[:, 0] != apart[:, 1]).any()


def test_sigma_and_alpha_of_training_are_those_of_the_step() -> None:
    line = {"start": 0.0, "end": 1.0, "generations": 4}
    shifting = TrainingRunner(config_of(alpha=line, sigma={**line, "start": 0.2}))
    constant = TrainingRunner(config_of(alpha=0.75, sigma=0.8))
    shared = shared_of(constant)
    for step in (3, 1):
        ours, theirs = (
            fitness_of(runner, shared, training(0, 3, step)) for runner in (shifting, constant)
        )
        assert np.array_equal(ours, theirs) == (step == 3)


def test_validation_has_the_same_seeds_in_every_step() -> None:
    """And judges φ itself: neither σ, nor α of now, nor the training MDPs matter."""
    more = {"mdps_per_pair": 2, "task_draw": "generation"}
    line = {"start": 1.0, "end": 0.2, "generations": 10}
    runner = TrainingRunner(config_of(alpha=line, sigma=line, **more))
    shared = shared_of(runner)
    first = fitness_of(runner, shared, Unit(Purpose.VALIDATION, 3, 0, 4))
    second = fitness_of(runner, shared, Unit(Purpose.VALIDATION, 8, 0, 4))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (4,) and len(np.unique(first)) == 4
    constant = TrainingRunner(config_of(alpha=0.2, sigma=NO_SIGMA))
    third = fitness_of(constant, shared, Unit(Purpose.VALIDATION, 3, 0, 4))
    np.testing.assert_array_equal(first, third)
    other = Shared(3, {name: array + 1 for name, array in shared.arrays.items()})
    changed = fitness_of(runner, other, Unit(Purpose.VALIDATION, 3, 0, 4))
    assert not np.array_equal(changed, first)


def test_training_has_new_seeds_in_every_step() -> None:
    runner = TrainingRunner(config_of(sigma=NO_SIGMA))
    results = [fitness_of(runner, shared_of(runner, step), training(0, 3, step)) for step in (0, 1)]
    assert not np.array_equal(*results)


@pytest.mark.parametrize("task", ["random-cart-pole", "cart-pole"])
@pytest.mark.parametrize("with_policy", [False, True])
def test_the_phi_that_a_run_starts_from(task: str, with_policy: bool) -> None:
    config = config_of(task, evolve_policy_init=with_policy)
    method = epg_of(TrainingRunner(config))
    params, again = method.init(), epg_of(TrainingRunner(config)).init()
    assert {name: tuple(tensor.shape) for name, tensor in params.items()} == method.spec.shapes
    assert list(params) == list(method.spec.shapes)
    for name, tensor in params.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, again[name])
    phi = method.spec.flatten(params)
    loss, policy = method.spec.split(phi[None])
    assert (policy is not None) == with_policy
    assert all(torch.equal(tensor[0], params[name]) for name, tensor in loss.items())
    residual = config_of(task, evolve_policy_init=with_policy, start="residual")
    zero = epg_of(TrainingRunner(residual)).init()
    assert (zero["output.weight"] == 0).all() and (params["output.weight"] != 0).all()
    for name in params.keys() - {"output.weight"}:
        assert torch.equal(zero[name], params[name])


@pytest.mark.parametrize("task", ["random-cart-pole", "cart-pole"])
def test_the_initial_policy_may_evolve(task: str) -> None:
    """Defect 7: for continuous and discrete actions alike."""
    alone = TrainingRunner(config_of(task, sigma=NO_SIGMA))
    runner = TrainingRunner(config_of(task, sigma=NO_SIGMA, evolve_policy_init=True))
    discrete = runner.task.discrete
    actions = runner.task.action_size
    policy = 4 * 16 + 16 + 16 * actions + actions + (0 if discrete else actions)
    size = epg_of(alone).spec.size
    assert epg_of(runner).spec.size == size + policy
    shared, loss = shared_of(runner), shared_of(alone)
    np.testing.assert_array_equal(phi_of(runner, shared)[:size], phi_of(alone, loss))
    usual = runner.run(shared, training(0, 3))
    same_loss = alone.run(loss, training(0, 3))
    assert not np.array_equal(usual.arrays["fitness"], same_loss.arrays["fitness"])
    arrays: dict[str, Any] = dict(shared.arrays)
    if discrete:
        arrays["policy.1.bias"][0] += 50
    else:
        arrays["policy.log_std"] -= 3
    certain = runner.run(Shared(3, arrays), training(0, 3))
    assert (usual.arrays["entropy"] > 0.5).all()
    assert (certain.arrays["entropy"] < 0.01).all()


def test_a_broken_loss_is_told_as_nan() -> None:
    """Defect 5. (That it leaves its neighbours alone: tests/test_lifetime.py.)"""
    runner = TrainingRunner(config_of())
    shared = shared_of(runner)
    sound = runner.run(shared, training(0, 2))
    assert np.isfinite(sound.arrays["fitness"]).all() and sound.exploded == 0
    shared.arrays["output.weight"][0, 0] = np.nan
    broken = runner.run(shared, training(0, 2))
    assert np.isnan(broken.arrays["fitness"]).all()


def test_a_lifetime_gone_bad_is_counted_and_never_reaches_its_neighbours() -> None:
    """In MuJoCo: its policy turns to NaN, and so do its actions."""
    config = config_of("dir-hopper")
    runner = TrainingRunner(config)
    task, layout = runner.task, epg_of(runner).loss
    drawn = [layout.init(np.random.default_rng(i)) for i in range(3)]
    params = {
        name: torch.from_numpy(np.stack([one[name] for one in drawn])) for name in layout.shapes
    }

    def lives() -> LifetimeResult:
        each = [LifetimeSeed(0, Purpose.TRAINING, 0, i) for i in range(3)]
        seeds = LifetimeSeeds(each, range(3))
        loss = WeightedSum([(1.0, layout.bind(params))])
        agents = agents_with(loss, task, config.setup, seeds)
        return live(task, draw_mdps(task, seeds), agents, seeds, config.lifetime)

    sound = lives()
    for tensor in params.values():
        tensor[1] = torch.nan
    broken = lives()
    assert sound.exploded == 0 and broken.exploded >= config.lifetime.steps_per_update
    assert np.isnan(broken.final_return).tolist() == [False, True, False]
    for name in ("final_return", "episode_returns"):
        ours, theirs = getattr(broken, name), getattr(sound, name)
        np.testing.assert_array_equal(ours[[0, 2]], theirs[[0, 2]])
    assert set(broken.metrics) == {"kl", "entropy"}
    for name, values in broken.metrics.items():
        np.testing.assert_array_equal(values[[0, 2]], sound.metrics[name][[0, 2]])


def test_fitness_in_a_mixture_is_normalised_for_each_task() -> None:
    """And does not depend on the units: neighbours may be of other tasks."""
    scales = {"point-goal": [-3.0, -1.0], "random-cart-pole": [10.0, 60.0]}
    spec = [{"name": name, "scale": scale} for name, scale in scales.items()]
    runner = TrainingRunner(config_of(spec))
    shared = shared_of(runner)
    whole = fitness_of(runner, shared, training(0, 6))
    parts = [fitness_of(runner, shared, training(i, 1)) for i in range(6)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    seeds = [LifetimeSeed(7, Purpose.TRAINING, 3, i) for i in range(6)]
    drawn = [draw_mdp(runner.task, seed) for seed in seeds]
    assert {mdp["part"] for mdp in drawn} == {0, 1}
    raw = TrainingRunner(config_of([part | {"scale": [0, 1]} for part in spec]))
    for mdp, fitness, returns in zip(
        drawn, whole, fitness_of(raw, shared, training(0, 6)), strict=True
    ):
        low, high = list(scales.values())[mdp["part"]]
        np.testing.assert_allclose(fitness, (returns - low) / (high - low))


def test_a_loss_that_fades_does_so_in_every_life() -> None:
    """In training and in files alike, from 1 − α on; the life is another one."""
    returns = {}
    for fade in (None, 1e9, 1.0):
        runner = TrainingRunner(config_of(fade=fade))
        shared, method = shared_of(runner), epg_of(runner)
        seeds = LifetimeSeeds.of(7, Purpose.VALIDATION, 0, 4)
        agents = method.agents(tensors_of(shared), seeds)
        assert isinstance(agents, PolicyGradientAgents)
        if fade is not None:
            assert isinstance(agents.loss, Fading)
            assert (agents.loss.weight, agents.loss.updates) == (0.5, fade)
        returns[fade] = fitness_of(runner, shared, training(0, 4))
    np.testing.assert_allclose(returns[None], returns[1e9], rtol=1e-4)
    assert not np.allclose(returns[None], returns[1.0], rtol=1e-4)


def test_agents_of_a_file_learn_as_in_validation() -> None:
    """With α of the end, each by φ itself."""
    runner = TrainingRunner(config_of(alpha={"start": 1.0, "end": 0.2, "generations": 10}))
    shared = shared_of(runner)
    seeds = LifetimeSeeds.of(7, Purpose.VALIDATION, 0, 4)
    agents = epg_of(runner).agents(tensors_of(shared), seeds)
    assert isinstance(agents, PolicyGradientAgents) and isinstance(agents.loss, WeightedSum)
    assert [weight for weight, _ in agents.loss.parts] == [0.8, 0.2]
    mdps = draw_mdps(runner.task, seeds)
    lived = live(runner.task, mdps, agents, seeds, runner.config.lifetime)
    result: Result = runner.run(shared, Unit(Purpose.VALIDATION, 3, 0, 4))
    np.testing.assert_array_equal(lived.final_return, result.arrays["fitness"])


@pytest.mark.parametrize("total", range(12))
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("known", [(), (0, 1), (4, 5, 6)])
def test_cutting_leaves_nothing_out_and_no_lifetime_alone(
    total: int, size: int, known: tuple[int, ...]
) -> None:
    for least in (1, 2):
        runs = list(split_ranges(total, size, known, least))
        covered = [i for first, count in runs for i in range(first, first + count)]
        assert covered == [i for i in range(total) if i not in known]
        assert all(count <= max(size, least) + least - 1 for _, count in runs)
        whole = [i for i in range(total) if i not in known]
        alone = [i for i in whole if i - 1 not in whole and i + 1 not in whole]
        if least == 2:
            assert [first for first, count in runs if count == 1] == alone
        workload = Workload(Purpose.VALIDATION, 4, total, size, least, entry=1)
        units = [Unit(Purpose.VALIDATION, 4, *run, entry=1) for run in runs]
        assert list(workload.units(known)) == units


def test_what_a_loss_starts_from_is_laid_out_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss of one's own may draw its parameters in any order, and in float64."""
    usual = TrainingRunner(config_of()).method.init()
    drawn = TemporalConv.init

    def reversed_and_exact(self: TemporalConv, rng: np.random.Generator) -> dict[str, np.ndarray]:
        named = drawn(self, rng)
        return {name: named[name].astype(np.float64) for name in reversed(named)}

    monkeypatch.setattr(TemporalConv, "init", reversed_and_exact)
    other = TrainingRunner(config_of()).method.init()
    assert list(other) == list(usual)
    for name, tensor in usual.items():
        assert other[name].dtype == torch.float32 and torch.equal(other[name], tensor)
