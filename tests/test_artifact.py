"""A loss on disk and as a module: it comes back whole or not at all, and judges as it did."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import epg
from epg import artifact, tasks
from epg.agents.agents import Agents, Experience, bear
from epg.config import Config, load
from epg.errors import UserError
from epg.genome import genome_of
from epg.lifetime import act, body_of
from epg.losses.temporal_conv import TemporalConvLoss
from epg.seeds import Fate, Fates, Purpose

AGENTS = 3


@pytest.fixture(params=["point-goal", "cart-pole"])
def config(request: pytest.FixtureRequest, tiny: Path) -> Config:
    """A continuous task and a discrete one."""
    return load(tiny, [f"task={request.param}"])


@pytest.fixture
def saved(config: Config, tmp_path: Path) -> Path:
    """A loss with random φ."""
    genome = genome_of(config, tasks.make(config.task))
    path = tmp_path / "loss.safetensors"
    phi = genome.draw(0, zero_output=False)
    about = config.model_dump(mode="json")
    artifact.Artifact(genome, phi, 0.25, about, 7, (config.task,)).save(path)
    return path


def lived(config: Config) -> tuple[Agents, Experience]:
    """Agents in their second update, their buffer full."""
    task = tasks.make(config.task)
    fates = Fates([Fate(0, Purpose.TRAINING, 0, i) for i in range(AGENTS)], range(AGENTS))
    agents = bear(body_of(task, config.lifetime), fates, train_memory=True)
    rngs = [np.random.default_rng(i) for i in range(AGENTS)]
    world = task.batch([task.draw(rng) for rng in rngs], rngs)
    buffer = agents.buffer(config.lifetime.buffer)
    seen = world.reset()
    for _ in range(2):
        new, seen = act(agents, world, seen, fates, config.lifetime.steps_per_update)
        experience = agents.remember(buffer, new)
    return agents, experience


def test_it_comes_back_as_it_was(saved: Path, config: Config) -> None:
    found = artifact.load(saved)
    assert found.genome == genome_of(config, tasks.make(config.task))
    assert torch.equal(found.phi, found.genome.draw(0, zero_output=False))
    assert (found.alpha, found.generation, found.tasks) == (0.25, 7, (config.task,))
    assert found.config == config.model_dump(mode="json")
    assert found.version == epg.__version__
    again = saved.with_name("again.safetensors")
    found.save(again)
    assert again.read_bytes() == saved.read_bytes()


def test_the_file_is_plain_safetensors(saved: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        names, about = set(file.keys()), json.loads(file.metadata()["epg"])
        sizes = [file.get_tensor(name).numel() for name in names]
    assert {"conv0.weight", "output.bias"} <= names
    assert about["format"] == 1 and about["architecture"] == "temporal_conv"
    content = saved.read_bytes()
    header = int.from_bytes(content[:8], "little")
    assert isinstance(json.loads(content[8 : 8 + header]), dict)
    assert len(content) == 8 + header + 4 * sum(sizes)


def test_a_flipped_bit_is_noticed_or_harmless(saved: Path) -> None:
    """In the length, here and there in the description, and in the numbers."""
    whole, clean = saved.read_bytes(), artifact.load(saved)
    header = 8 + int.from_bytes(whole[:8], "little")
    noticed = 0
    places = [*range(8), *range(8, header, 11), *range(header, len(whole), 2999)]
    for place in places:
        broken = bytearray(whole)
        broken[place] ^= 1
        saved.write_bytes(broken)
        try:
            found = artifact.load(saved)
        except UserError:
            noticed += 1
        else:
            assert torch.equal(found.phi, clean.phi)
            assert (found.genome, found.alpha, found.config, found.tasks) == (
                clean.genome, clean.alpha, clean.config, clean.tasks
            )  # fmt: skip
    assert noticed > 0.9 * len(places)


def test_a_cut_file_is_noticed(saved: Path) -> None:
    whole = saved.read_bytes()
    for end in (0, 1, 8, 100, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"loss\.safetensors: "):
            artifact.load(saved)


def test_numbers_that_are_not_finite_are_refused(saved: Path) -> None:
    found = artifact.load(saved)
    found.phi[3] = torch.nan
    found.save(saved)
    with pytest.raises(UserError, match="not finite"):
        artifact.load(saved)


def test_a_later_format_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = artifact.load(saved)
    with monkeypatch.context() as later:
        later.setattr(artifact, "FORMAT", 2)
        found.save(saved)
    with pytest.raises(UserError, match="format 2 of temporal_conv; this version reads format 1"):
        artifact.load(saved)


# The module


def judge(saved: Path, config: Config, **changes: object) -> Tensor:
    """What the module says of what agents lived."""
    agents, experience = lived(config)
    count = config.lifetime.steps_per_update
    outputs = agents.outputs(experience.observations)
    arguments = {
        "observations": experience.observations,
        "actions": experience.actions,
        "rewards": experience.rewards,
        "dones": experience.dones,
        "policy_outputs": outputs.exp() if config.task == "cart-pole" else outputs,
        "memory": agents.memory(),
        "newest": count,
        **changes,
    }
    loss: Tensor = epg.load_loss(saved)(**arguments)
    return loss


def test_it_agrees_with_the_loss_in_a_lifetime(saved: Path, config: Config) -> None:
    agents, experience = lived(config)
    found = artifact.load(saved)
    phi = found.phi.expand(AGENTS, -1)
    inside = TemporalConvLoss(found.genome.architecture, phi, config.lifetime.buffer)
    rows = torch.tensor([[3, 1, 30], [0, 0, 2], [31, 5, 6]])
    expected = inside.objective(agents, experience)(agents.outputs(experience.observations), rows)
    loss = judge(saved, config, rows=rows)
    assert loss.shape == (AGENTS,) and len(set(loss.tolist())) == AGENTS
    assert torch.allclose(loss, expected, rtol=1e-5, atol=1e-7)


def test_all_newest_rows_are_judged_unless_told_otherwise(saved: Path, config: Config) -> None:
    every = torch.arange(config.lifetime.steps_per_update).expand(AGENTS, -1)
    assert torch.equal(judge(saved, config), judge(saved, config, rows=every))
    fewer = judge(saved, config, rows=every[:, :4])
    assert not torch.allclose(judge(saved, config), fewer)


def test_its_gradient_reaches_the_policy_and_not_phi(saved: Path, config: Config) -> None:
    agents, experience = lived(config)
    outputs = agents.outputs(experience.observations).detach().requires_grad_()
    module = epg.load_loss(saved)
    loss = module(
        experience.observations,
        experience.actions,
        experience.rewards,
        experience.dones,
        outputs,
        newest=32,
    )
    loss[1].backward()
    assert outputs.grad is not None
    assert outputs.grad[1].abs().sum() > 0 and outputs.grad[[0, 2]].abs().sum() == 0
    assert isinstance(module, torch.nn.Module) and list(module.parameters()) == []
    assert module.alpha == 0.25


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("observations", torch.zeros(3, 64)),
        ("observations", torch.zeros(3, 20, 2)),
        ("observations", torch.zeros(3, 64, 9)),
        ("actions", torch.zeros(3, 64)),
        ("rewards", torch.zeros(3, 64, 1)),
        ("dones", torch.zeros(3, 63)),
        ("policy_outputs", torch.zeros(3, 32, 4)),
        ("memory", torch.zeros(3, 5)),
        ("newest", 65),
        ("newest", 0),
        ("rows", torch.zeros(2, 8, dtype=torch.int64)),
    ],
)
def test_a_wrong_shape_is_named(
    saved: Path, config: Config, name: str, wrong: Tensor | int
) -> None:
    with pytest.raises(ValueError, match=f"^{name}: found "):
        judge(saved, config, **{name: wrong})
