"""Action distributions against torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal, kl_divergence

from epg.agents.distributions import Categorical, Gaussian, distribution_of

SIZES = [1, 2, 3, 4, 7]


def gaussian_outputs(size: int, seed: int) -> Tensor:
    return torch.randn(2, 5, 2 * size, generator=torch.Generator().manual_seed(seed))


def categorical_outputs(size: int, seed: int) -> Tensor:
    logits = 2 * torch.randn(2, 5, size, generator=torch.Generator().manual_seed(seed))
    return torch.log_softmax(logits, -1)


def torch_normal(outputs: Tensor) -> Independent:
    mean, log_std = outputs.chunk(2, -1)
    return Independent(Normal(mean, log_std.exp()), 1)


@pytest.mark.parametrize("size", SIZES)
def test_gaussian_is_torchs(size: int) -> None:
    ours = Gaussian(size)
    old, new = gaussian_outputs(size, 0), gaussian_outputs(size, 1)
    actions = torch.randn(2, 5, size)
    torch.testing.assert_close(ours.log_prob(old, actions), torch_normal(old).log_prob(actions))
    torch.testing.assert_close(ours.entropy(old), torch_normal(old).entropy())
    wanted = kl_divergence(torch_normal(old), torch_normal(new))
    torch.testing.assert_close(ours.kl(old, new), wanted, rtol=1e-4, atol=1e-5)
    assert ours.output_size == old.shape[-1]
    assert torch.equal(ours.features(old), old) and torch.equal(ours.encode(actions), actions)


@pytest.mark.parametrize("size", SIZES)
def test_categorical_is_torchs(size: int) -> None:
    """Defect 7: for any number of actions, and probabilities are not logits."""
    ours = Categorical(size)
    old, new = categorical_outputs(size, 0), categorical_outputs(size, 1)
    actions = torch.randint(size, (2, 5))
    theirs = TorchCategorical(logits=old)
    torch.testing.assert_close(ours.log_prob(old, actions), theirs.log_prob(actions))
    torch.testing.assert_close(ours.entropy(old), theirs.entropy(), atol=1e-6, rtol=1e-5)
    wanted = kl_divergence(theirs, TorchCategorical(logits=new))
    torch.testing.assert_close(ours.kl(old, new), wanted, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ours.features(old), theirs.probs)
    encoded = ours.encode(actions)
    assert encoded.dtype == torch.float32 and encoded.shape == (2, 5, size)
    assert torch.equal(encoded.argmax(-1), actions) and (encoded.sum(-1) == 1).all()


def test_categorical_samples_as_often_as_it_says() -> None:
    probabilities = torch.tensor([0.0, 0.5, 0.2, 0.0, 0.3])
    distribution, draws = Categorical(5), 40_000
    noise = torch.from_numpy(distribution.noise(np.random.default_rng(0), (draws,)))
    actions = distribution.sample(probabilities.log().expand(draws, 5), noise)
    assert actions.dtype == torch.int64
    often = torch.bincount(actions, minlength=5) / draws
    torch.testing.assert_close(often, probabilities, atol=0.01, rtol=0)
    assert often[0] == often[3] == 0


def test_categorical_samples_inside_when_rounding_leaves_a_gap() -> None:
    """Probabilities may add up to a little less than the largest noise."""
    logits = torch.log(torch.tensor([[0.5, 0.5]]))
    for spread in (torch.tensor([1.0]), np.ones(1, np.float32)):
        said = logits.numpy() if isinstance(spread, np.ndarray) else logits
        assert Categorical(2).sample(said, spread).item() == 1


def test_gaussian_samples_with_its_mean_and_deviation() -> None:
    distribution, draws = Gaussian(2), 40_000
    outputs = torch.tensor([1.0, -2.0, 0.0, -1.0]).expand(draws, 4)
    noise = torch.from_numpy(distribution.noise(np.random.default_rng(0), (draws,)))
    mean, log_std = outputs[:, :2], outputs[:1, 2:]
    spread = distribution.spread(noise.unsqueeze(0), log_std).squeeze(0)
    actions = distribution.sample(mean, spread)
    torch.testing.assert_close(actions.mean(0), torch.tensor([1.0, -2.0]), atol=0.02, rtol=0)
    wanted = torch.tensor([1.0, float(np.exp(-1))])
    torch.testing.assert_close(actions.std(0), wanted, atol=0.02, rtol=0)


def test_the_kind_of_action_decides() -> None:
    assert isinstance(distribution_of(True, 3), Categorical)
    assert isinstance(distribution_of(False, 3), Gaussian)
