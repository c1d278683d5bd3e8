"""Agents at first: sizes and norms as in the release; policies, values, memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from probes import Choose, Follow, seeds_of

from epg.agents.actor_critic import ActorCritic, init_parameters
from epg.agents.network import layer_shapes, mlp
from epg.agents.spec import AgentSettings, AgentSpec, unflatten
from epg.tasks import Task


def initial(spec: AgentSpec, lifetimes: int = 3, train_memory: bool = True) -> ActorCritic:
    return ActorCritic(spec, init_parameters(spec, seeds_of(range(lifetimes))), train_memory)


@pytest.mark.parametrize("discrete", [False, True])
def test_weights_have_norm_1_and_in_the_last_layer_a_hundredth(discrete: bool) -> None:
    parameters = initial(AgentSpec(5, 4, discrete)).parameters
    last = {"policy.2.weight", "value.2.weight", "memory.0.weight"}
    assert last < set(parameters)
    for name, parameter in parameters.items():
        if name.endswith("weight"):
            norms = parameter.detach().norm(dim=2)
            wanted = torch.full_like(norms, 0.01 if name in last else 1.0)
            torch.testing.assert_close(norms, wanted, msg=name)
        else:
            assert (parameter == 0).all(), name
    assert ("policy.log_std" in parameters) != discrete


def test_no_two_agents_or_networks_start_alike() -> None:
    parameters = initial(AgentSpec(5, 4, False)).parameters
    first = parameters["policy.0.weight"].detach()
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, parameters["value.0.weight"].detach())


def test_the_two_of_a_pair_start_alike() -> None:
    """Defect 4: the same parameters, in tensors of their own."""
    spec = AgentSpec(5, 4, False)
    agents = ActorCritic(spec, init_parameters(spec, seeds_of(range(2), signs=2)), True)
    weight = agents.parameters["policy.0.weight"].detach()
    assert torch.equal(weight[0], weight[1]) and torch.equal(weight[2], weight[3])
    assert not torch.equal(weight[0], weight[2])
    weight[0] += 1
    assert not torch.equal(weight[0], weight[1])


def test_an_initial_policy_is_nearly_uniform_or_standard_normal() -> None:
    seen = torch.randn(3, 20, 5, generator=torch.Generator().manual_seed(0))
    outputs = initial(AgentSpec(5, 4, True)).outputs(seen)
    torch.testing.assert_close(outputs.exp().sum(-1), torch.ones(3, 20))
    assert (outputs.exp() - 0.25).abs().max() < 0.05
    agents = initial(AgentSpec(5, 4, False))
    mean, log_std = agents.outputs(seen).chunk(2, -1)
    assert mean.abs().max() < 0.1 and (log_std == 0).all()
    assert agents.values(seen).shape == (3, 20) and agents.values(seen).abs().max() < 0.2


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_networks_are_what_their_names_say(activation: str) -> None:
    spec = AgentSpec(5, 4, False, hidden=(8, 6), activation=activation)
    act = getattr(torch, activation)
    agents = initial(spec)
    for parameter in agents.parameters.values():
        parameter.data.normal_()
    seen = torch.randn(3, 7, 5)
    p = {name: parameter[1] for name, parameter in agents.parameters.items()}
    hidden = act(seen[1] @ p["policy.0.weight"] + p["policy.0.bias"])
    hidden = act(hidden @ p["policy.1.weight"] + p["policy.1.bias"])
    mean = hidden @ p["policy.2.weight"] + p["policy.2.bias"]
    outputs = torch.cat((mean, p["policy.log_std"].expand(7, 4)), -1)
    torch.testing.assert_close(agents.outputs(seen)[1], outputs)
    names = [name for name in p if name.startswith("policy")]
    slopes = torch.autograd.grad(outputs.square().sum(), [agents.parameters[n] for n in names])
    ours = agents.outputs(seen)[1].square().sum()
    for slope, expected in zip(
        torch.autograd.grad(ours, [agents.parameters[n] for n in names]), slopes, strict=True
    ):
        torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-3)
    actor = agents.actor()
    torch.testing.assert_close(
        actor.act(seen.double().flatten(0, 1), actor.spread(torch.zeros(3, 7, 4))),
        agents.outputs(agents._observations.normalise(seen)).chunk(2, -1)[0].flatten(0, 1),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    memory = torch.tanh(torch.ones(64) @ p["memory.0.weight"] + p["memory.0.bias"])
    torch.testing.assert_close(agents.memory()[1], memory)


@pytest.mark.parametrize("train", [False, True])
def test_the_memory_is_trained_where_it_shall_be(train: bool) -> None:
    agents = initial(AgentSpec(5, 4, False), train_memory=train)
    memory = set(agents.spec.memory_shapes())
    moved = {name for name, p in agents.parameters.items() if p.requires_grad}
    assert moved == (set(agents.parameters) if train else set(agents.parameters) - memory)
    assert len(agents.trained()) == len(moved)


def test_unflatten_keeps_the_order_of_a_draw() -> None:
    spec = AgentSpec(2, 1, False, hidden=(3,))
    flat = torch.from_numpy(spec.init(np.random.default_rng(0))).repeat(2, 1)
    named = unflatten(flat, spec.shapes())
    assert list(named) == list(spec.shapes())
    assert flat.shape[1] == sum(math.prod(shape) for shape in spec.shapes().values())
    again = torch.cat([named[name].flatten(1) for name in spec.shapes()], 1)
    assert torch.equal(again, flat)


@pytest.mark.parametrize("task", [Follow(), Choose()], ids=["continuous", "discrete"])
def test_an_initial_policy_may_be_given(task: Task) -> None:
    """Defect 7: for continuous actions too."""
    spec = AgentSpec.of(task, AgentSettings(hidden=(4,)))
    size = sum(math.prod(shape) for shape in spec.policy_shapes().values())
    given = torch.arange(2.0 * size).view(2, size)
    seeds = seeds_of(range(2))
    ours, usual = init_parameters(spec, seeds, given), init_parameters(spec, seeds_of(range(2)))
    for name, parameter in unflatten(given, spec.policy_shapes()).items():
        assert torch.equal(ours[name], parameter)
    assert torch.equal(ours["value.0.weight"], usual["value.0.weight"])


@pytest.mark.parametrize("lifetimes", [3, 8, 9, 17])
def test_a_network_is_bitwise_the_same_in_every_batch(lifetimes: int) -> None:
    """Eight of these fit into the cache together; the last one does not go alone."""
    generator = torch.Generator().manual_seed(0)
    shapes = layer_shapes("value", (11, 64, 64, 1))
    whole = {
        name: torch.randn(lifetimes, *shape, generator=generator) for name, shape in shapes.items()
    }
    seen = torch.randn(lifetimes, 512, 11, generator=generator)

    def pass_through(which: slice) -> list[torch.Tensor]:
        parameters = {n: p[which].clone().requires_grad_() for n, p in whole.items()}
        outputs = mlp(parameters, "value", 3, seen[which])
        slopes = torch.autograd.grad(outputs.square().sum(), list(parameters.values()))
        return [outputs.detach(), *slopes]

    for ours, pair in zip(
        pass_through(slice(None)), pass_through(slice(lifetimes - 2, None)), strict=True
    ):
        assert torch.equal(ours[-2:], pair)


@pytest.mark.parametrize("discrete", [False, True])
def test_agents_can_be_differentiated_twice_and_by_their_inputs_where_that_is_asked(
    discrete: bool,
) -> None:
    spec = AgentSpec(3, 2, discrete, hidden=(5,), memory=2)
    seeds = seeds_of(range(2))
    networks = ActorCritic(spec, init_parameters(spec, seeds), train_memory=True)
    observations = torch.randn(2, 4, 3)
    fast = networks.outputs(observations), networks.values(observations), networks.memory()
    networks.differentiable = True
    plain = networks.outputs(observations), networks.values(observations), networks.memory()
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b)
    observations.requires_grad_()
    policy = [p for name, p in networks.parameters.items() if name.startswith("policy")]
    loss = ((1 + networks.outputs(observations)) ** 3).sum()
    gradients = torch.autograd.grad(loss, policy, create_graph=True)
    whole = sum((gradient**2).sum() for gradient in gradients)
    assert isinstance(whole, torch.Tensor)
    for found in torch.autograd.grad(whole, [*policy, observations]):
        assert found.abs().sum() > 0
