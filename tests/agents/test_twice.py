"""Steps of networks that can be differentiated twice: as torch's own, and no third time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from epg.agents.twice import half_squared, standardise

EPSILON = 1e-3
STEPS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "standardise": (
        lambda x: standardise(x, EPSILON),
        lambda x: functional.layer_norm(x, x.shape[-1:], eps=EPSILON),
    ),
    "half_squared": (
        half_squared,
        lambda x: torch.cat((x.chunk(2, -1)[0].relu(), x.chunk(2, -1)[1].square()), -1),
    ),
}
"""Ours, and the same of torch's own."""


def rows() -> Tensor:
    """[2, 5, 6] in float64."""
    noise = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, 6, dtype=torch.float64, generator=noise).requires_grad_()


@pytest.mark.parametrize("name", STEPS)
def test_both_derivatives_are_central_differences(name: str) -> None:
    ours, _ = STEPS[name]
    assert torch.autograd.gradcheck(ours, rows())
    assert torch.autograd.gradgradcheck(ours, rows())


@pytest.mark.parametrize("name", STEPS)
def test_all_is_as_of_torchs_own(name: str) -> None:
    found = []
    for step in STEPS[name]:
        x = rows()
        y = step(x)
        (slope,) = torch.autograd.grad((y * y.detach().cos()).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((slope * x.detach().sin()).sum(), x)
        found.append((y.detach(), slope.detach(), second))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", STEPS)
def test_a_third_derivative_is_refused_instead_of_wrong(name: str) -> None:
    ours, _ = STEPS[name]
    x = rows()
    (slope,) = torch.autograd.grad(ours(x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second.sum().backward()
