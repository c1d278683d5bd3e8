"""Differentiable optimisers: against torch's, and their meta-gradients against differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from epg.agents.network import Parameters, layer_shapes, mlp
from epg.agents.optimizers import Adam, Denominator, RmsProp, Sgd, State, clip_by_norm

P = 3
Optimizer = Sgd | Adam | RmsProp

SHAPES: dict[str, tuple[int, ...]] = {"weight": (4, 2), "bias": (2,), "scalar": ()}
RATES = torch.tensor([0.05, 0.1, 0.2], dtype=torch.float64)

ALIKE: dict[str, tuple[Optimizer, Callable[[list[Tensor], float], torch.optim.Optimizer]]] = {
    "sgd": (Sgd(0.1), lambda leaves, rate: torch.optim.SGD(leaves, rate)),
    "momentum": (Sgd(0.1, 0.9), lambda leaves, rate: torch.optim.SGD(leaves, rate, momentum=0.9)),
    "adam": (
        Adam(0.1, 0.8, 0.99, 1e-3, "exact"),
        lambda leaves, rate: torch.optim.Adam(leaves, rate, (0.8, 0.99), 1e-3),
    ),
    "adam without a mean": (
        Adam(0.1, 0.0, 0.999, 1e-8, "exact"),
        lambda leaves, rate: torch.optim.Adam(leaves, rate, (0.0, 0.999), 1e-8),
    ),
    "rmsprop": (
        RmsProp(0.1, 0.9, 1e-3, "exact"),
        lambda leaves, rate: torch.optim.RMSprop(leaves, rate, 0.9, 1e-3),
    ),
}
"""Each of ours with torch's of the same settings."""

DIFFERENTIABLE: dict[str, Optimizer] = {
    "sgd": Sgd(0.1),
    "momentum": Sgd(0.1, 0.9),
    "exact adam": Adam(0.1, 0.8, 0.9, 1e-2, "exact"),
    "smooth adam": Adam(0.1, 0.8, 0.9, 1e-2, "smooth"),
    "exact rmsprop": RmsProp(0.1, 0.9, 1e-2, "exact"),
    "smooth rmsprop": RmsProp(0.1, 0.9, 1e-2, "smooth"),
}
"""Those whose meta-gradient is the derivative of what they compute."""

differentiable = pytest.mark.parametrize("optimizer", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)
dividing = pytest.mark.parametrize("optimizer", [Adam(0.1), RmsProp(0.1)], ids=["adam", "rmsprop"])


def draw(seed: int, dtype: torch.dtype = torch.float64) -> Parameters:
    """Normal numbers of each shape, [P, …]."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(P, *shape, generator=generator, dtype=dtype)
        for name, shape in SHAPES.items()
    }


def run(optimizer: Optimizer, steps: list[Parameters]) -> tuple[Parameters, State]:
    """Parameters and state after a step with each of some gradients."""
    parameters = draw(100, next(iter(steps[0].values())).dtype)
    state = optimizer.init(parameters)
    for gradients in steps:
        parameters, state = optimizer.step(parameters, state, gradients)
    return parameters, state


@pytest.mark.parametrize("own_rates", [False, True], ids=["one rate", "a rate each"])
@pytest.mark.parametrize("name", ALIKE)
def test_five_steps_are_torchs_for_each_agent_alone(name: str, own_rates: bool) -> None:
    ours, theirs = ALIKE[name]
    steps = [draw(seed) for seed in range(5)]
    optimizer = replace(ours, learning_rate=RATES) if own_rates else ours
    moved, _ = run(optimizer, steps)
    for agent in range(P):
        alone = {name: p[agent].clone().requires_grad_() for name, p in draw(100).items()}
        rate = float(RATES[agent]) if own_rates else 0.1
        torchs = theirs(list(alone.values()), rate)
        for gradients in steps:
            for name, leaf in alone.items():
                leaf.grad = gradients[name][agent].clone()
            torchs.step()
        for name, leaf in alone.items():
            torch.testing.assert_close(moved[name][agent], leaf.detach(), rtol=1e-12, atol=1e-12)


@dividing
def test_a_stopped_denominator_is_the_exact_number(optimizer: Adam | RmsProp) -> None:
    steps = [draw(seed) for seed in range(5)]
    assert optimizer.denominator == "stopped"
    stopped, exact = run(optimizer, steps), run(replace(optimizer, denominator="exact"), steps)
    for one, other in zip(stopped, exact, strict=True):
        assert all(torch.equal(leaf, other[name]) for name, leaf in one.items())


@dividing
def test_a_smooth_denominator_is_nearly_the_exact_number(optimizer: Adam | RmsProp) -> None:
    steps = [draw(seed) for seed in range(5)]
    smooth, _ = run(replace(optimizer, denominator="smooth"), steps)
    exact, _ = run(replace(optimizer, denominator="exact"), steps)
    for name, leaf in smooth.items():
        torch.testing.assert_close(leaf, exact[name], rtol=1e-5, atol=1e-5)


@differentiable
@pytest.mark.parametrize("norm", [None, 1.0], ids=["not clipped", "clipped"])
def test_agents_never_mix(optimizer: Optimizer, norm: float | None) -> None:
    optimizer = replace(optimizer, learning_rate=RATES)
    steps, changed = [draw(seed) for seed in range(3)], [draw(seed) for seed in range(3)]
    for gradients in changed:
        for leaf in gradients.values():
            leaf[1] = 10 * leaf[1] + 1
    if norm is not None:
        steps, changed = ([clip_by_norm(g, norm) for g in some] for some in (steps, changed))
    before, after = run(optimizer, steps)[0], run(optimizer, changed)[0]
    for name, leaf in before.items():
        assert torch.equal(leaf[[0, 2]], after[name][[0, 2]])
        assert not torch.equal(leaf[1], after[name][1])


@differentiable
def test_a_step_changes_nothing_in_place(optimizer: Optimizer) -> None:
    parameters, gradients = draw(0), draw(1)
    _, state = optimizer.step(parameters, optimizer.init(parameters), gradients)
    given = (parameters, state, gradients)
    before = [{name: leaf.clone() for name, leaf in leaves.items()} for leaves in given]
    optimizer.step(*given)
    for leaves, kept in zip(given, before, strict=True):
        assert all(torch.equal(leaf, kept[name]) for name, leaf in leaves.items())


@differentiable
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_stays_in_the_dtype_of_the_parameters(optimizer: Optimizer, dtype: torch.dtype) -> None:
    """A learning rate of another dtype changes it no more than a number does."""
    steps = [clip_by_norm(draw(seed, dtype), 1.0) for seed in range(2)]
    moved, state = run(replace(optimizer, learning_rate=RATES), steps)
    assert all(leaf.dtype == dtype for leaf in moved.values())
    assert all(leaf.dtype == dtype for name, leaf in state.items() if name != "step")
    assert all(leaf.shape == (P, *SHAPES[name]) for name, leaf in moved.items())


@differentiable
def test_a_state_that_was_saved_goes_on_bitwise(optimizer: Optimizer) -> None:
    steps = [draw(seed) for seed in range(5)]
    wanted, _ = run(optimizer, steps)
    parameters, state = run(optimizer, steps[:2])
    state = load(save(state))
    for gradients in steps[2:]:
        parameters, state = optimizer.step(parameters, state, gradients)
    assert all(torch.equal(leaf, wanted[name]) for name, leaf in parameters.items())


@pytest.mark.parametrize("norm", [0.5, 3.0, 1e3])
def test_clipping_is_torchs_for_each_agent_alone(norm: float) -> None:
    gradients = draw(0)
    for leaf in gradients.values():
        leaf *= torch.tensor([0.1, 1.0, 10.0]).reshape(-1, *[1] * (leaf.ndim - 1))
    clipped = clip_by_norm(gradients, norm)
    for agent in range(P):
        alone = [torch.zeros(shape, dtype=torch.float64) for shape in SHAPES.values()]
        for leaf, gradient in zip(alone, gradients.values(), strict=True):
            leaf.grad = gradient[agent].clone()
        torch.nn.utils.clip_grad_norm_(alone, norm)
        for leaf, ours in zip(alone, clipped.values(), strict=True):
            torch.testing.assert_close(ours[agent], leaf.grad, rtol=1e-12, atol=0.0)


def test_clipping_has_two_derivatives_where_it_scales_and_where_not() -> None:
    gradients = {name: leaf.requires_grad_() for name, leaf in draw(0).items()}
    norms = torch.stack([leaf.detach().reshape(P, -1).norm(dim=1) for leaf in gradients.values()])
    norm = float(norms.norm(dim=0).median())  # of one agent; it is scaled by a hair

    def function(*leaves: Tensor) -> tuple[Tensor, ...]:
        return tuple(clip_by_norm(dict(zip(SHAPES, leaves, strict=True)), 0.9 * norm).values())

    assert torch.autograd.gradcheck(function, tuple(gradients.values()))
    assert torch.autograd.gradgradcheck(function, tuple(gradients.values()))


@pytest.mark.parametrize("norm", [1.0, 0.0])
def test_clipping_gradients_of_zero_has_finite_derivatives(norm: float) -> None:
    leaf = torch.zeros(P, 4, dtype=torch.float64, requires_grad=True)
    clipped = clip_by_norm({"leaf": leaf}, norm)["leaf"]
    (first,) = torch.autograd.grad((clipped + clipped.square()).sum(), leaf, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), leaf)
    assert torch.equal(clipped, torch.zeros_like(leaf))
    assert torch.equal(first, torch.ones_like(leaf))
    assert torch.equal(second, torch.full_like(leaf, 2.0))


def test_clipping_leaves_nan_to_the_agent_that_has_it() -> None:
    gradients = draw(0)
    gradients["bias"][1, 0] = float("nan")
    clipped = clip_by_norm(gradients, 1.0)
    for leaf in clipped.values():
        assert leaf[1].isnan().all() and leaf[[0, 2]].isfinite().all()


# Meta-gradients: a network learns for three steps by a loss with parameters of its own.

SIZES = (3, 4, 2)
ROWS = 5
Meta = dict[str, Tensor]


def inner_loss(parameters: Parameters, inputs: Tensor, targets: Tensor, meta: Meta) -> Tensor:
    """The sum over agents of each one's loss, which has parameters "weight" [P, 2]."""
    outputs = mlp(parameters, "net", 2, inputs, differentiable=True)
    return (meta["weight"].unsqueeze(1) * (outputs - targets).square()).mean((1, 2)).sum()


def experience() -> tuple[Parameters, Tensor, Tensor]:
    """Parameters at birth, inputs [P, R, 3] and targets [P, R, 2]."""
    generator = torch.Generator().manual_seed(7)

    def some(*shape: int) -> Tensor:
        return torch.randn(P, *shape, generator=generator, dtype=torch.float64)

    born = {name: some(*shape) for name, shape in layer_shapes("net", SIZES).items()}
    return born, some(ROWS, 3), some(ROWS, 2)


def metas() -> Meta:
    """Learning rates [P], the inner loss's parameters [P, 2], and the parameters at birth."""
    weight = torch.tensor([[1.0, 0.5], [0.3, 2.0], [1.5, 0.7]], dtype=torch.float64)
    return {"rate": RATES.clone(), "weight": weight, **experience()[0]}


def unrolled(
    optimizer: Optimizer, meta: Meta, norm: float | None = None, divisors: list[Meta] | None = None
) -> Tensor:
    """The sum of the agents' losses [] after three steps; `divisors` replace the optimiser's."""
    born, inputs, targets = experience()
    parameters = {name: meta[name] for name in born}
    optimizer = replace(optimizer, learning_rate=meta["rate"])
    state = optimizer.init(parameters)
    means = {name: torch.zeros_like(leaf) for name, leaf in born.items()}
    for i in range(3):
        parameters = {
            name: leaf if leaf.requires_grad else leaf.clone().requires_grad_()
            for name, leaf in parameters.items()
        }
        loss = inner_loss(parameters, inputs, targets, meta)
        found = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        gradients = dict(zip(parameters, found, strict=True))
        if norm is not None:
            gradients = clip_by_norm(gradients, norm)
        if divisors is None:
            parameters, state = optimizer.step(parameters, state, gradients)
            continue
        beta1 = optimizer.beta1 if isinstance(optimizer, Adam) else 0.0
        for name, leaf in parameters.items():
            means[name] = beta1 * means[name] + (1 - beta1) * gradients[name]
            rate = meta["rate"].reshape(-1, *[1] * (leaf.ndim - 1))
            direction = means[name] / (1 - beta1 ** (i + 1)) / divisors[i][name]
            parameters[name] = leaf - rate * direction
    outputs = mlp(parameters, "net", 2, inputs.flip(1), differentiable=True)
    return (outputs - targets.sin()).square().mean((1, 2)).sum()


def meta_gradients(function: Callable[[Meta], Tensor]) -> Meta:
    """The gradient of a function of all of `metas`, by name."""
    leaves = {name: leaf.requires_grad_() for name, leaf in metas().items()}
    found = torch.autograd.grad(function(leaves), list(leaves.values()), allow_unused=True)
    gradients = {}
    for name, gradient in zip(leaves, found, strict=True):
        assert gradient is not None, name
        gradients[name] = gradient
    return gradients


def differences(function: Callable[[Meta], Tensor], name: str, step: float = 1e-5) -> Tensor:
    """The same for one of them by central differences."""
    found = torch.zeros_like(metas()[name])
    for index in torch.cartesian_prod(*map(torch.arange, found.shape)).reshape(found.numel(), -1):
        where = tuple(index.tolist())
        values = []
        for sign in (1, -1):
            meta = metas()
            meta[name][where] += sign * step
            values.append(function(meta).item())
        found[where] = (values[0] - values[1]) / (2 * step)
    return found


def check(function: Callable[[Meta], Tensor]) -> None:
    """All meta-gradients are there, none of them 0, and they are what differences say."""
    gradients = meta_gradients(function)
    for name, gradient in gradients.items():
        assert (gradient != 0).all(), name
        torch.testing.assert_close(gradient, differences(function, name), rtol=1e-6, atol=1e-9)


@differentiable
@pytest.mark.parametrize("norm", [None, 0.5], ids=["not clipped", "clipped"])
def test_meta_gradients_are_the_central_differences(
    optimizer: Optimizer, norm: float | None
) -> None:
    check(lambda meta: unrolled(optimizer, meta, norm))


STOPPED: list[Adam | RmsProp] = [Adam(0.1, 0.8, 0.9, 1e-2), RmsProp(0.1, 0.9, 1e-2)]


@pytest.mark.parametrize("optimizer", STOPPED, ids=["adam", "rmsprop"])
def test_stopped_meta_gradients_hold_the_denominators_fixed(
    optimizer: Adam | RmsProp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the differences of an unrolling that divides by the first one's numbers."""
    divisors: list[Meta] = [{}, {}, {}]
    stepped = type(optimizer).step

    def recorded(
        self: Adam | RmsProp, parameters: Parameters, state: State, gradients: Parameters
    ) -> tuple[Parameters, State]:
        moved, after = stepped(self, parameters, state, gradients)  # type: ignore[arg-type]
        i = next(i for i, known in enumerate(divisors) if not known)
        decay = self.beta2 if isinstance(self, Adam) else self.decay
        correction = 1 - decay ** (i + 1) if isinstance(self, Adam) else 1.0
        for name in parameters:
            root = (after[f"square.{name}"] / correction).sqrt()
            divisors[i][name] = root.detach() + self.epsilon
        return moved, after

    with monkeypatch.context() as patched:
        patched.setattr(type(optimizer), "step", recorded)
        value = unrolled(optimizer, metas())
    assert all(divisors)

    def fixed(meta: Meta) -> Tensor:
        return unrolled(optimizer, meta, divisors=divisors)

    torch.testing.assert_close(fixed(metas()), value, rtol=1e-12, atol=0.0)
    gradients = meta_gradients(lambda meta: unrolled(optimizer, meta))
    exact = meta_gradients(lambda meta: unrolled(replace(optimizer, denominator="exact"), meta))
    for name, gradient in gradients.items():
        assert (gradient != 0).all() and not torch.allclose(gradient, exact[name])
        torch.testing.assert_close(gradient, differences(fixed, name), rtol=1e-6, atol=1e-9)


def idle_meta_gradients(optimizer: Optimizer) -> list[Tensor]:
    """Meta-gradients by rate [P] and weight [P] where one parameter's gradient is exactly 0."""
    rate = RATES.clone().requires_grad_()
    weight = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    optimizer = replace(optimizer, learning_rate=rate)
    parameters = {
        "used": torch.ones(P, dtype=torch.float64, requires_grad=True),
        "idle": torch.ones(P, dtype=torch.float64, requires_grad=True),
    }
    state = optimizer.init(parameters)
    for _ in range(3):
        loss = (weight * (parameters["used"] - 3).square() + 0 * weight * parameters["idle"]).sum()
        found = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        assert (found[1] == 0).all()
        parameters, state = optimizer.step(
            parameters, state, dict(zip(parameters, found, strict=True))
        )
    outer = (parameters["used"] + parameters["idle"]).square().sum()
    return list(torch.autograd.grad(outer, [rate, weight]))


@dividing
@pytest.mark.parametrize("denominator", ["stopped", "smooth"])
def test_a_gradient_of_exactly_zero_leaves_meta_gradients_finite(
    optimizer: Adam | RmsProp, denominator: Denominator
) -> None:
    for gradient in idle_meta_gradients(replace(optimizer, denominator=denominator)):
        assert gradient.isfinite().all() and (gradient != 0).all()


@dividing
def test_a_gradient_of_exactly_zero_breaks_meta_gradients_of_an_exact_denominator(
    optimizer: Adam | RmsProp,
) -> None:
    """The root's slope at 0 is infinite, and one idle parameter spoils what all share."""
    _, of_weight = idle_meta_gradients(replace(optimizer, denominator="exact"))
    assert not of_weight.isfinite().any()
