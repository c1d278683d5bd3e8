"""The strategy: gradient, decay and optimisers by hand, and states that go on bitwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from epg.errors import RunError
from epg.evolution.noise import Noise, perturb
from epg.evolution.shaping import centered_rank, make_shaping
from epg.evolution.strategy import EvolutionSettings, Strategy, cosine
from epg.registry import OPTIMIZERS, SHAPINGS
from epg.settings import Schedule, choose

BOTH = pytest.mark.parametrize("optimizer", OPTIMIZERS)
PAIRS, SIZE = 6, 5


def start() -> Tensor:
    return torch.linspace(-1, 1, SIZE)


def settings(optimizer: str = "adam", **more: object) -> EvolutionSettings:
    """With β1, β2 and max_speed where the optimizer has them."""
    known = type(choose("optimizer", optimizer)).model_fields
    own = {key: more.pop(key) for key in ("beta1", "beta2", "max_speed") if key in more}
    chosen = {"name": optimizer} | {key: value for key, value in own.items() if key in known}
    whole = {"name": "epg", "optimizer": chosen, "sigma": 0.1, **more}
    return EvolutionSettings.model_validate(whole)


def asked(strategy: Strategy, generation: int, pairs: int = PAIRS) -> np.ndarray:
    """Candidates as workers make them, [pairs, 2, size]."""
    sigma, phi = strategy.settings.sigma.at(generation), strategy.phi.numpy()
    return np.stack([perturb(phi, sigma, 0, generation, pair) for pair in range(pairs)])


def noise(generation: int) -> np.ndarray:
    return Noise(0, PAIRS, SIZE).of(generation, range(PAIRS))


def shaped(generation: int = 0) -> np.ndarray:
    return np.random.default_rng(generation).normal(size=(PAIRS, 2)).astype(np.float32)


@BOTH
@pytest.mark.parametrize("name", SHAPINGS)
def test_fitness_is_maximised(optimizer: str, name: str) -> None:
    shaping = make_shaping(choose("shaping", name))
    goal = np.array([0.5, -0.3, 0.2, 0.0, 1.0])
    rate = Schedule(start=0.05, end=0.005, generations=150)
    strategy = Strategy(settings(optimizer, learning_rate=rate.model_dump()), start())
    for generation in range(150):
        candidates = asked(strategy, generation)
        fitness = -((candidates - goal) ** 2).sum(-1)
        strategy.step(generation, noise(generation), shaping.weigh(fitness))
    assert np.abs(strategy.phi.numpy() - goal).max() < 0.1


@BOTH
def test_the_gradient_is_the_weighted_mean_of_the_noise(optimizer: str) -> None:
    strategy, weights = Strategy(settings(optimizer), start()), shaped()
    candidates, phi = asked(strategy, 0), strategy.phi.clone()
    strategy.step(0, noise(0), weights)
    wanted = torch.zeros(SIZE)
    for (plus, minus), (above, below) in zip(candidates, weights, strict=True):
        wanted += torch.from_numpy(above * (plus - phi.numpy()) + below * (minus - phi.numpy()))
    wanted /= 2 * PAIRS
    torch.testing.assert_close(strategy.gradient, wanted, rtol=1e-4, atol=1e-6)


def test_candidates_are_a_sigma_on_both_sides_of_phi() -> None:
    """Defect 4: antithetic, and the same whenever they are drawn."""
    strategy = Strategy(settings(), start())
    candidates = asked(strategy, 3, pairs=2000)
    assert np.array_equal(candidates, asked(strategy, 3, pairs=2000))
    assert not np.array_equal(candidates[:PAIRS], asked(strategy, 4))
    noise = candidates - start().numpy()
    np.testing.assert_allclose(noise[:, 0], -noise[:, 1], atol=1e-6)
    assert noise[:, 0].std() == pytest.approx(0.1, rel=0.03)
    assert noise[:, 0].mean() == pytest.approx(0, abs=0.005)


def adam_by_hand(phi: Tensor, gradients: list[Tensor], rates: list[float]) -> Tensor:
    """β1 0.5, β2 0.9, up the gradients."""
    m = v = torch.zeros_like(phi)
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        m, v = 0.5 * m + 0.5 * gradient, 0.9 * v + 0.1 * gradient**2
        phi = phi + rate * (m / (1 - 0.5**t)) / (torch.sqrt(v / (1 - 0.9**t)) + 1e-8)
    return phi


def clipup_by_hand(phi: Tensor, gradients: list[Tensor], rates: list[float]) -> Tensor:
    """Momentum 0.9, speed at most twice the rate."""
    velocity = torch.zeros_like(phi)
    for gradient, rate in zip(gradients, rates, strict=True):
        velocity = 0.9 * velocity + rate * gradient / gradient.norm()
        velocity = velocity * min(1.0, float(2 * rate / velocity.norm()))
        phi = phi + velocity
    return phi


@BOTH
def test_schedules_and_decay_by_hand(optimizer: str) -> None:
    """Decay adds −λ·σ·φ to the gradient, before the optimiser; rate and σ are a generation's."""
    line = {"start": 0.1, "end": 0.02, "generations": 4}
    more = {"learning_rate": line, "sigma": {**line, "start": 0.4}, "weight_decay": 0.5}
    strategy = Strategy(settings(optimizer, beta1=0.5, beta2=0.9, **more), start())
    gradients, rates = [], []
    for generation in (1, 2, 6):
        sigma, phi = strategy.settings.sigma.at(generation), strategy.phi.clone()
        strategy.step(generation, noise(generation), shaped(generation))
        gradients.append(strategy.gradient - 0.5 * sigma * phi)
        rates.append(strategy.settings.learning_rate.at(generation))
    np.testing.assert_allclose(rates, [0.08, 0.06, 0.02])
    hand = adam_by_hand if optimizer == "adam" else clipup_by_hand
    wanted = hand(start(), gradients, rates)
    torch.testing.assert_close(strategy.phi, wanted, rtol=1e-4, atol=1e-5)


def test_clipups_speed_may_be_given() -> None:
    strategy = Strategy(settings("clipup", learning_rate=0.1, max_speed=0.01), start())
    strategy.step(0, noise(0), shaped())
    assert (strategy.phi - start()).norm().item() == pytest.approx(0.01, rel=1e-4)


def test_noise_drawn_ahead_is_the_same() -> None:
    ahead = Noise(0, PAIRS, SIZE)
    for generation in (2, 3):
        for pairs in (1, 3, 100):
            ahead.draw_ahead(generation, pairs)
        assert np.array_equal(ahead.of(generation, range(PAIRS)), noise(generation))
        assert np.array_equal(ahead.of(generation, [0, 2]), noise(generation)[[0, 2]])
    ahead.draw_ahead(4, 2)  # not all of it
    assert np.array_equal(ahead.of(4, range(PAIRS)), noise(4))
    assert not np.array_equal(noise(3), noise(4))
    step = np.float32(0.1) * noise(3)
    candidates = asked(Strategy(settings(), start()), 3)
    assert np.array_equal(candidates[:, 0], start().numpy() + step)
    assert np.array_equal(candidates[:, 1], start().numpy() - step)


@BOTH
def test_without_a_weight_nothing_moves(optimizer: str) -> None:
    """Defect 5: neither momentum nor decay goes on by itself."""
    strategy = Strategy(settings(optimizer, beta1=0.9, weight_decay=0.1), start())
    strategy.step(0, noise(0), shaped())
    before = {name: tensor.clone() for name, tensor in strategy.state_dict().items()}
    before["gradient"] = torch.zeros_like(strategy.phi)  # there is none in this generation
    strategy.step(1, noise(1), np.zeros((PAIRS, 2)))
    for name, tensor in strategy.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@BOTH
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_ties_within_every_pair_do_not_move_phi(optimizer: str, decay: float) -> None:
    """Defect 5: the pairs differ, so weights do, and yet there is no gradient."""
    strategy = Strategy(settings(optimizer, weight_decay=decay, beta1=0.9), start())
    strategy.step(0, noise(0), shaped())
    before = strategy.phi.clone()
    fitness = np.repeat(np.arange(PAIRS, dtype=np.float64)[:, None], 2, axis=1)
    strategy.step(1, noise(1), centered_rank(fitness))
    assert torch.equal(strategy.phi, before)


@BOTH
def test_a_restored_strategy_goes_on_bitwise(optimizer: str) -> None:
    config = settings(optimizer, beta1=0.9, weight_decay=0.01)
    whole = Strategy(config, start())
    for generation in range(3):
        whole.step(generation, noise(generation), shaped(generation))
    kept = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    resumed = Strategy(config, torch.zeros(SIZE))
    resumed.load_state_dict(kept)
    assert torch.equal(resumed.gradient, whole.gradient)
    for generation in range(3, 6):
        for strategy in (whole, resumed):
            strategy.step(generation, noise(generation), shaped(generation))
    assert set(whole.state_dict()) == set(resumed.state_dict())
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    assert not torch.equal(whole.phi, kept["center"])


def test_cosine() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])
    assert cosine(a, b) == pytest.approx(2**-0.5)
    assert np.isnan(cosine(a, torch.zeros(2)))


@BOTH
def test_what_a_step_tells(optimizer: str) -> None:
    """The norm before it, the cosine of two gradients; None where there is no gradient yet."""
    line = {"start": 0.1, "end": 0.02, "generations": 4}
    strategy = Strategy(settings(optimizer, sigma=line, learning_rate=line), start())
    told = strategy.step(0, noise(0), shaped(0))
    assert told == {
        "gradient_cosine": None,
        "phi_norm": pytest.approx(start().norm().item()),
        "sigma": 0.1,
        "learning_rate": 0.1,
    }
    first, phi = strategy.gradient, strategy.phi.clone()
    told = strategy.step(1, noise(1), shaped(1))
    assert told["gradient_cosine"] == pytest.approx(cosine(first, strategy.gradient))
    assert told["phi_norm"] == pytest.approx(phi.norm().item())
    assert told["sigma"] == told["learning_rate"] == pytest.approx(0.08)


def test_a_phi_that_is_not_finite_ends_the_run() -> None:
    strategy = Strategy(settings(learning_rate=3e38), start())
    strategy.step(0, noise(0), shaped(0))
    with pytest.raises(RunError, match="φ left the finite in generation 2"):
        strategy.step(1, noise(0), shaped(0))
