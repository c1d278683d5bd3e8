"""The temporal-convolution loss against plain torch convolutions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from probes import Choose, Follow, grow, half_ppo, learned_loss, seeds_of
from torch import Tensor
from torch.nn.functional import conv1d, leaky_relu, linear

from epg.agents.actor_critic import ActorCritic, Experience
from epg.agents.loss import Loss
from epg.agents.spec import AgentSpec
from epg.config import Setup
from epg.losses.ppo import Ppo
from epg.losses.released import ReleasedPpo, ReleasedTemporalConv
from epg.losses.temporal_conv import TemporalConv, TemporalConvLoss
from epg.losses.weighted_sum import WeightedSum
from epg.methods.parameters import ParameterSpec
from epg.settings import Named
from epg.tasks import Task

M = 16
TASKS = pytest.mark.parametrize("task", [Follow(), Choose()], ids=["continuous", "discrete"])


def settings(buffer: int = 40, updates: int = 2) -> Setup:
    return Setup().change(
        updates=updates, steps_per_update=M, minibatch=8, buffer=buffer, hidden=(8,), memory=5
    )


def layout_of(spec: AgentSpec, released: bool = False) -> TemporalConv:
    kind = ReleasedTemporalConv if released else TemporalConv
    return kind(Named(name="temporal_conv"), spec, 512)


def size_of(layout: TemporalConv) -> int:
    """Length of φ."""
    return sum(math.prod(shape) for shape in layout.shapes.values())


def plain(
    loss: TemporalConvLoss,
    agents: ActorCritic,
    experience: Experience,
    outputs: Tensor,
    rows: Tensor,
) -> Tensor:
    """One agent at a time, one row at a time, with torch's own convolutions."""
    totals = []
    for p in range(len(rows)):
        w = {name: t[p] for name, t in loss.params.items()}
        trajectory = torch.cat(
            (experience.observations[p], experience.actions[p],
             experience.rewards[p, :, None], experience.dones[p, :, None]), 1,
        )  # fmt: skip
        features, memory = agents.distribution.features(outputs[p]), agents.memory()[p]
        count = len(trajectory)
        everything = torch.cat((trajectory, features, memory.detach().expand(count, -1)), 1)
        hidden = conv1d(everything.T[None], w["conv0.weight"], w["conv0.bias"], stride=5)
        hidden = leaky_relu(hidden, 0.2)
        hidden = conv1d(hidden, w["conv1.weight"], w["conv1.bias"], stride=2)
        context = linear(leaky_relu(hidden, 0.2).mean(2)[0], w["context.weight"], w["context.bias"])
        total = torch.zeros(())
        for row in (count - M + rows[p]).tolist():
            told = torch.cat((trajectory[row], context, features[row], memory))
            step = leaky_relu(linear(told, w["step.weight"], w["step.bias"]), 0.2)
            total = total + linear(step, w["output.weight"], w["output.bias"])[0]
        totals.append(total / rows.shape[1])
    return torch.stack(totals)


@TASKS
@pytest.mark.parametrize("buffer", [21, 22, 25, 26, 31, 40, 63])
def test_value_and_gradient_are_those_of_plain_convolutions(task: Task, buffer: int) -> None:
    """Buffers that are full and such that are not, that fit the strides and such that do not."""
    agents, experience = grow(task, settings(buffer), Ppo(), seeds_of(range(2)))
    loss = learned_loss(task, settings(buffer), 2)
    generator = torch.Generator().manual_seed(0)
    for parameter in agents.trained():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    for name in loss.layout.shapes:
        if name.endswith("bias"):
            loss.params[name].normal_(generator=generator)
    loss = TemporalConvLoss(loss.layout, loss.params)
    rows = torch.stack([torch.randperm(M, generator=generator)[:7] for _ in range(2)])
    names = [name for name in agents.parameters if not name.startswith("value")]
    parameters = [agents.parameters[name] for name in names]
    outputs = agents.outputs(experience.observations)
    ours = loss.objective(agents, experience)(outputs, rows)
    theirs = plain(loss, agents, experience, agents.outputs(experience.observations), rows)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    gradients = zip(
        names,
        torch.autograd.grad(ours.sum(), parameters),
        torch.autograd.grad(theirs.sum(), parameters),
        strict=True,
    )
    for name, our, their in gradients:
        assert their.abs().sum() > 0, name
        torch.testing.assert_close(our, their, rtol=1e-3, atol=1e-5, msg=name)


@TASKS
def test_a_residual_start_moves_exactly_as_ppo_does(task: Task) -> None:
    """α = 0.5 halves PPO's gradient, which Adam does not feel."""
    setup = settings(updates=4)
    loss = learned_loss(task, setup, 2, residual=True)
    alone, _ = grow(task, setup, Ppo(), seeds_of(range(2)))
    residual, experience = grow(task, setup, half_ppo(loss), seeds_of(range(2)))
    for name, parameter in alone.parameters.items():
        ours = residual.parameters[name]
        torch.testing.assert_close(ours, parameter, rtol=0, atol=5e-6, msg=name)
    policy = [p for name, p in residual.parameters.items() if name.startswith("policy")]
    outputs = residual.outputs(experience.observations)
    value = loss.objective(residual, experience)(outputs, torch.arange(M).repeat(2, 1)).sum()
    assert all((g == 0).all() for g in torch.autograd.grad(value, policy))


@TASKS
def test_a_random_start_does_not(task: Task) -> None:
    setup = settings(updates=4)
    alone, _ = grow(task, setup, Ppo(), seeds_of(range(2)))
    mixed, _ = grow(task, setup, half_ppo(learned_loss(task, setup, 2)), seeds_of(range(2)))
    name = "policy.0.bias"
    assert (alone.parameters[name] - mixed.parameters[name]).abs().max() > 1e-3


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("which", ["learned", "ppo"])
def test_which_rows_are_judged(which: str, released: bool) -> None:
    """Defect 12: both losses judge the newest M rows, and not the oldest of the buffer.

    A row that is not judged reaches the learned loss through the context only; with the context
    cut off, the gradient by the outputs says which rows are judged.
    """
    agents, experience = grow(Follow(), settings(), Ppo(), seeds_of(range(2)))
    loss: Loss = ReleasedPpo() if released else Ppo()
    if which == "learned":
        kind = ReleasedTemporalConv if released else TemporalConv
        learned = learned_loss(Follow(), settings(), 2, kind=kind)
        learned.params["context.weight"].zero_()
        loss = TemporalConvLoss(learned.layout, learned.params)
        assert loss.layout.oldest == released
        experience = replace(experience, auxiliary=torch.ones_like(experience.rewards))
    outputs = agents.outputs(experience.observations).detach().requires_grad_()
    rows = torch.tensor([[0, 2, 15], [0, 2, 15]])
    value = WeightedSum([(1.0, loss)]).objective(agents, experience)(outputs, rows).sum()
    touched = torch.autograd.grad(value, outputs)[0].abs().sum((0, 2)).nonzero().flatten()
    first = 0 if released and which == "learned" else 40 - M
    assert touched.tolist() == [first, first + 2, first + 15]


def test_the_size_of_the_release() -> None:
    spec = AgentSpec(11, 3, discrete=False, memory=32)
    assert size_of(layout_of(spec, released=True)) == 9857
    assert size_of(layout_of(spec)) == 9857 - (16 * 6 + 16)


def test_the_constant_signal_is_an_input_of_the_release_only() -> None:
    """Defect 10."""
    spec = AgentSpec(11, 3, discrete=False)
    assert layout_of(spec).row_size == 11 + 3 + 1 + 1
    assert layout_of(spec, released=True).row_size == 11 + 3 + 1 + 1 + 1
    _, experience = grow(Follow(), settings(), Ppo(), seeds_of([0]))
    assert experience.auxiliary is None


@pytest.mark.parametrize("discrete", [False, True])
def test_drawn_with_a_deviation_of_one_by_root_of_fan_in(discrete: bool) -> None:
    layout = layout_of(AgentSpec(11, 3, discrete))
    draws = [layout.init(np.random.default_rng(i)) for i in range(20)]
    for name, shape in layout.shapes.items():
        piece = np.stack([drawn[name] for drawn in draws])
        assert piece.shape == (20, *shape) and piece.dtype == np.float32
        if name.endswith("bias"):
            assert (piece == 0).all()
        else:
            fan_in = piece[0, 0].size
            assert piece.std() == pytest.approx(fan_in**-0.5, rel=0.15), name
    zero = layout.residual(draws[0])
    assert (zero["output.weight"] == 0).all() and (zero["step.weight"] != 0).all()


@pytest.mark.parametrize("with_policy", [False, True])
@pytest.mark.parametrize("discrete", [False, True])
def test_phi_by_name_and_back(discrete: bool, with_policy: bool) -> None:
    agent = AgentSpec(4, 2, discrete, hidden=(8,))
    layout = layout_of(agent)
    spec = ParameterSpec(layout.shapes, agent.policy_shapes() if with_policy else {})
    phi = torch.arange(float(spec.size))
    named = spec.name(phi)
    assert {name: tuple(t.shape) for name, t in named.items()} == spec.shapes
    assert list(named) == [*layout.shapes, *(agent.policy_shapes() if with_policy else ())]
    assert torch.equal(spec.flatten(dict(reversed(named.items()))), phi)
    loss, policy = spec.split(phi.repeat(2, 1))
    assert list(loss) == list(layout.shapes)
    for name, piece in loss.items():
        assert torch.equal(piece[1], named[name])
    flat = torch.cat([piece[1].reshape(-1) for piece in loss.values()])
    assert torch.equal(flat, phi[: size_of(layout)])
    assert (policy is not None) == with_policy
    if policy is not None:
        assert torch.equal(torch.cat((flat, policy[1])), phi)
        assert any(name.startswith("policy") for name in named)
