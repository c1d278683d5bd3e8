"""The network's two paths: the fast one, and the one that can be differentiated again."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from epg.agents.network import ACTIVATIONS, Parameters, layer_shapes, mlp

P, R = 3, 5
SIZES = (4, 6, 5, 2)
LAYERS = len(SIZES) - 1

activations = pytest.mark.parametrize("activation", ACTIVATIONS)


def drawn(seed: int, dtype: torch.dtype) -> tuple[Parameters, Tensor]:
    """Parameters [P, …] that require a gradient, and inputs [P, R, in] that do not."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    shapes = layer_shapes("net", SIZES)
    return {name: draw(P, *s).requires_grad_() for name, s in shapes.items()}, draw(P, R, SIZES[0])


def composed(inputs: Tensor, *flat: Tensor, activation: str) -> Tensor:
    """The plain path as a function of its tensors alone."""
    parameters = dict(zip(layer_shapes("net", SIZES), flat, strict=True))
    return mlp(parameters, "net", LAYERS, inputs, activation, differentiable=True)


@activations
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_paths_give_the_same_values_and_first_derivatives(
    activation: str, dtype: torch.dtype
) -> None:
    parameters, inputs = drawn(0, dtype)
    fast = mlp(parameters, "net", LAYERS, inputs, activation)
    plain = mlp(parameters, "net", LAYERS, inputs, activation, differentiable=True)
    assert fast.dtype == plain.dtype == dtype and plain.shape == (P, R, SIZES[-1])
    torch.testing.assert_close(plain, fast)
    weights = torch.randn_like(fast)
    ours, theirs = (
        torch.autograd.grad((outputs * weights).sum(), list(parameters.values()))
        for outputs in (plain, fast)
    )
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == dtype and (one != 0).any()
        torch.testing.assert_close(one, other)


@activations
def test_the_plain_path_has_second_derivatives_by_inputs_and_parameters(activation: str) -> None:
    parameters, inputs = drawn(1, torch.float64)
    leaves = (inputs.requires_grad_(), *parameters.values())

    def function(*tensors: Tensor) -> Tensor:
        return composed(*tensors, activation=activation)

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_a_second_derivative_by_the_inputs_is_not_zero() -> None:
    """The check above would pass for a network that is linear in its inputs."""
    parameters, inputs = drawn(1, torch.float64)
    outputs = composed(inputs.requires_grad_(), *parameters.values(), activation="tanh")
    (first,) = torch.autograd.grad(outputs.sum(), inputs, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), inputs)
    assert (first != 0).all() and (second != 0).all()


@activations
def test_the_plain_path_works_out_of_place(activation: str) -> None:
    parameters, inputs = drawn(2, torch.float64)
    before = {name: p.detach().clone() for name, p in parameters.items()}, inputs.clone()
    mlp(parameters, "net", LAYERS, inputs, activation, differentiable=True)
    one_layer = {name: p for name, p in parameters.items() if name.startswith("net.0.")}
    mlp(one_layer, "net", 1, inputs, activation, differentiable=True)
    assert torch.equal(inputs, before[1])
    assert all(torch.equal(p, before[0][name]) for name, p in parameters.items())


@activations
def test_the_fast_path_refuses_inputs_that_require_a_gradient(activation: str) -> None:
    parameters, inputs = drawn(3, torch.float32)
    wanted = mlp(parameters, "net", LAYERS, inputs, activation)
    inputs.requires_grad_()
    with pytest.raises(RuntimeError, match="differentiable=True"):
        mlp(parameters, "net", LAYERS, inputs, activation)
    with torch.no_grad():
        assert torch.equal(mlp(parameters, "net", LAYERS, inputs, activation), wanted)


@pytest.mark.parametrize("power", [1, 2])
def test_the_fast_path_refuses_second_derivatives(power: int) -> None:
    """Also of a loss linear in the outputs, which torch's once_differentiable lets pass."""
    parameters, inputs = drawn(4, torch.float32)
    outputs = mlp(parameters, "net", LAYERS, inputs)
    with pytest.raises(RuntimeError, match="differentiable=True"):
        torch.autograd.grad(outputs.pow(power).sum(), parameters["net.0.weight"], create_graph=True)


@pytest.mark.parametrize(("activation", "agent"), list(product(ACTIVATIONS, range(P))))
def test_agents_never_mix_on_the_plain_path(activation: str, agent: int) -> None:
    parameters, inputs = drawn(5, torch.float64)
    inputs.requires_grad_()
    outputs = composed(inputs, *parameters.values(), activation=activation)
    gradients = torch.autograd.grad(outputs[agent].sum(), [inputs, *parameters.values()])
    others = [other for other in range(P) if other != agent]
    for gradient in gradients:
        assert (gradient[others] == 0).all() and (gradient[agent] != 0).any()
