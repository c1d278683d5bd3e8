"""A loss on disk and as a module: it comes back whole or not at all, and judges as it did."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from probes import mdps_of, networks_of, seeds_of
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

import epg
from epg import tasks
from epg.agents.actor_critic import ActorCritic, Experience
from epg.agents.sampling import LearningPolicy, NoiseAhead
from epg.config import Config, load
from epg.errors import UserError
from epg.evaluation.protocol import SavedFiles
from epg.lifetime import act, live
from epg.methods import saved as files
from epg.methods.base import make_method
from epg.methods.epg import Epg
from epg.methods.saved import Saved
from epg.process import shipped
from epg.seeds import Stream
from epg.tasks.base import first_step

AGENTS = 3
PUBLISHED = sorted((Path(__file__).parents[2] / "results").glob("*/best.safetensors"))


@pytest.fixture(params=["point-goal", "cart-pole"])
def config(request: pytest.FixtureRequest, tiny: Path) -> Config:
    """A continuous task and a discrete one."""
    return load(tiny, [f"task={request.param}", "method.alpha=0.25"])


@pytest.fixture
def saved(config: Config, tmp_path: Path) -> Path:
    """A loss with random φ."""
    task = tasks.make(config.task)
    path = tmp_path / "loss.safetensors"
    sizes = (task.observation_size, task.action_size, task.discrete)
    Saved(config, make_method(config, task).init(), sizes, 7, (config.task,)).save(path)
    return path


def lived(config: Config) -> tuple[ActorCritic, Experience]:
    """Agents in their second update, their buffer full."""
    task, seeds = tasks.make(config.task), seeds_of(range(AGENTS))
    agents = networks_of(task, config.setup, seeds)
    resets = [seed.rng(Stream.RESET) for seed in seeds.each()]
    environments = task.batch(mdps_of(task, seeds), resets)
    buffer, noise = agents.buffer(config.learner.buffer), NoiseAhead(agents, seeds)
    step = first_step(environments.reset())
    for _ in range(2):
        policy = LearningPolicy(agents, noise)
        new, step = act(policy, environments, step, config.lifetime.steps_per_update)
        experience = agents.remember(buffer, new)
    assert buffer.filled == buffer.length
    return agents, experience


def same(ours: Saved, theirs: Saved) -> bool:
    """Whether two files say the same, bitwise."""
    about = [
        (s.config, list(s.params), s.sizes, s.step, s.tasks, s.task, s.version)
        for s in (ours, theirs)
    ]
    return about[0] == about[1] and all(
        torch.equal(tensor, theirs.params[name]) for name, tensor in ours.params.items()
    )


def test_it_comes_back_as_it_was(saved: Path, config: Config) -> None:
    found, task = files.load(saved), tasks.make(config.task)
    params = make_method(config, task).init()
    assert list(found.params) == list(params)
    for name, tensor in params.items():
        assert torch.equal(found.params[name], tensor)
    assert found.sizes == (task.observation_size, task.action_size, task.discrete)
    assert (found.step, found.tasks, found.task) == (7, (config.task,), config.task)
    assert found.config == config.model_copy(update={"task": files.NOWHERE})
    method = found.method()
    assert isinstance(method, Epg) and method.final_alpha == 0.25
    assert found.version == epg.__version__
    again = saved.with_name("again.safetensors")
    found.save(again)
    assert again.read_bytes() == saved.read_bytes()
    assert same(files.load(again), found)


def test_a_name_stands_for_a_loss_that_comes_with_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless a file or folder is called so."""
    monkeypatch.chdir(tmp_path)
    here = shipped.named("loss")
    assert list(here.values()) == PUBLISHED
    mine = shutil.copy(here["dir-hopper"], "mine.safetensors")
    judged = SavedFiles(["shared-skill", "random-hopper", mine])
    assert judged.names == ["shared-skill", "random-hopper", "mine"]
    assert judged.digests[0] == hashlib.sha256(here["shared-skill"].read_bytes()).hexdigest()
    for name, path in here.items():
        assert same(files.load(name), files.load(path))
    Path(mine).rename("quickstart")
    Path("dir-hopper").mkdir()
    assert files.load("quickstart").tasks == ("dir-hopper",)
    with pytest.raises(UserError, match="dir-hopper: not a file, expected a saved loss"):
        files.load("dir-hopper")
    with pytest.raises(
        UserError, match=f"quikstart: no such loss file; .* epg: {', '.join(here)}$"
    ):
        files.load("quikstart")


def test_the_file_is_plain_safetensors(saved: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        names, about = set(file.keys()), json.loads(file.metadata()["epg"])
        sizes = [file.get_tensor(name).numel() for name in names]
    assert {"conv0.weight", "output.bias"} <= names
    assert about["format"] == 2 and about["method"] == "epg"
    content = saved.read_bytes()
    header = int.from_bytes(content[:8], "little")
    assert isinstance(json.loads(content[8 : 8 + header]), dict)
    assert len(content) == 8 + header + 4 * sum(sizes)


def test_a_flipped_bit_is_noticed_or_harmless(saved: Path) -> None:
    """In the length, here and there in the description, and in the numbers."""
    whole, clean = saved.read_bytes(), files.load(saved)
    header = 8 + int.from_bytes(whole[:8], "little")
    noticed = 0
    places = [*range(8), *range(8, header, 11), *range(header, len(whole), 2999)]
    for place in places:
        broken = bytearray(whole)
        broken[place] ^= 1
        saved.write_bytes(broken)
        try:
            found = files.load(saved)
        except UserError:
            noticed += 1
        else:
            assert same(found, clean)
    assert noticed > 0.9 * len(places)


def test_a_cut_file_is_noticed(saved: Path) -> None:
    whole = saved.read_bytes()
    for end in (0, 1, 8, 100, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"loss\.safetensors: "):
            files.load(saved)


def test_numbers_that_are_not_finite_are_refused(saved: Path) -> None:
    found = files.load(saved)
    found.params["conv0.weight"].view(-1)[3] = torch.nan
    found.save(saved)
    with pytest.raises(UserError, match="not finite"):
        files.load(saved)


def test_a_later_format_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = files.load(saved)
    with monkeypatch.context() as later:
        later.setattr(files, "FORMAT", 3)
        found.save(saved)
    with pytest.raises(UserError, match="format 3; this version reads formats 1 and 2"):
        files.load(saved)


# What was published, in format 1


OF_FORMAT_1 = [
    path
    for path in PUBLISHED
    if path.parent.name
    not in ("lpg", "masked-cart-pole", "masked-hopper", "metagenrl", "quickstart")
]


@pytest.mark.parametrize("path", OF_FORMAT_1, ids=lambda path: path.parent.name)
def test_published_losses_load(path: Path, tmp_path: Path) -> None:
    found, tensors = files.load(path), load_file(path)
    assert set(found.params) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(found.params[name], tensor), name
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["epg"])
    assert about["format"] == 1
    sizes = about["observation_size"], about["action_size"], about["discrete"]
    assert found.sizes == sizes
    assert (found.step, list(found.tasks)) == (about["generation"], about["tasks"])
    assert (found.task, found.version) == (about["config"]["task"], about["version"])
    assert found.config.agent.hidden == tuple(about["hidden"])
    assert found.config.steps == about["config"]["evolution"]["generations"]
    method = found.method()
    assert isinstance(method, Epg) and method.final_alpha == about["alpha"]
    assert list(method.init()) == list(found.params)
    module = epg.load_loss(path)
    assert module.alpha == about["alpha"]
    found.save(tmp_path / "again.safetensors")  # in the present format
    assert same(files.load(tmp_path / "again.safetensors"), found)


def test_there_are_published_losses() -> None:
    names = {path.parent.name for path in PUBLISHED}
    assert {"quickstart", "shared-skill", "random-hopper", "dir-hopper"} <= names
    assert len(OF_FORMAT_1) == 4


# Code of its maker's own, which a file may name


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that is there once the module `evil`, which can be imported, has been."""
    marker = tmp_path / "imported"
    (tmp_path / "evil.py").write_text(
        f"open({str(marker)!r}, 'w').close()\nclass Class: pass\nclass Task: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield marker
    sys.modules.pop("evil", None)


def rewritten(path: Path, change: Callable[[dict[str, Any]], None], new: Path) -> Path:
    """The file with another configuration, and a checksum that is right."""
    about, tensors = files._read(path)
    change(about["config"])
    if about["format"] == 1:
        tensors = files._in_order_of_format_1(about, tensors)
    about["sha256"] = files._digest(about, tensors)
    new.write_bytes(save(tensors, {"epg": json.dumps(about)}))
    return new


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(method="evil:Class"),
        lambda config: config["method"].update(name="evil:Class"),
        lambda config: config["method"].update(loss="evil:Class"),
        lambda config: config["method"]["loss"].update(name="evil:Class"),
        lambda config: config["method"].update(optimizer={"name": "evil:Class", "rate": 1}),
        lambda config: config["method"].update(shaping="evil:Class"),
    ],
    ids=["method", "method name", "loss", "loss name", "optimizer", "shaping"],
)
def test_a_class_that_a_file_names_is_not_imported(
    saved: Path, imported: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    refused(rewritten(saved, change, tmp_path / "evil.safetensors"), imported)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["evolution"].update(optimizer="evil:Class"),
        lambda config: config["evolution"].update(optimizer={"name": "evil:Class"}),
        lambda config: config["evolution"].update(shaping="evil:Class"),
        lambda config: config["evolution"].update(loss={"name": "evil:Class"}),
        lambda config: config.update(method="evil:Class"),
        lambda config: config.update(method={"name": "epg", "loss": "evil:Class"}),
    ],
    ids=["optimizer", "its name", "shaping", "loss", "method", "both layouts"],
)
def test_nor_one_that_the_old_layout_hides(
    imported: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    path = rewritten(PUBLISHED[0], lambda config: None, tmp_path / "same.safetensors")
    assert same(files.load(path), files.load(PUBLISHED[0]))
    refused(rewritten(path, change, tmp_path / "evil.safetensors"), imported)


def refused(path: Path, imported: Path) -> None:
    """Without trust the file is refused in one line and nothing is imported; with it, it is."""
    for opened in (files.load, epg.load, epg.load_loss):
        for trust in (False, (), ("evil:Other", "other:Class")):
            with pytest.raises(UserError) as caught:
                opened(path, trust)
            line = str(caught.value)
            assert "\n" not in line and line.startswith(f"{path}: ")
            assert "--trust" in line and "evil:Class" in line
    assert "evil" not in sys.modules and not imported.exists()
    with pytest.raises(UserError, match="evil:Class"):  # it is no method, loss, …
        files.load(path, ("evil:Class",))
    assert imported.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adma"}, "method.optimizer: unknown name 'adma'; did you mean adam?"),
        ({"shaping": "centered_rank"}, "method.shaping centered_rank: needs task_draw generation"),
    ],
)
def test_a_file_whose_settings_do_not_fit_is_named(
    saved: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    path = rewritten(saved, lambda c: c["method"].update(settings), tmp_path / "odd.safetensors")
    with pytest.raises(UserError) as caught:
        files.load(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and message in line and "\n" not in line


def test_a_file_of_agents_that_no_memory_holds_is_refused(saved: Path, tmp_path: Path) -> None:
    """Before anything is made of what it says, however small its tensors are."""
    for group, changes, message in (
        ("agent", {"hidden": [10**6] * 3}, "most of it for networks (agent.hidden 1000000,"),
        ("agent", {"hidden": [10**9]}, "agent.hidden.0: input should be less than"),
        ("agent", {"hidden": [-1]}, "agent.hidden.0: input should be greater than 0"),
        ("learner", {"buffer": 10**12}, "learner.buffer: input should be less than"),
        ("learner", {"passes": 10**7, "buffer": 10**7}, "most of it for minibatches"),
    ):

        def change(config: dict[str, Any]) -> None:
            config[group].update(changes)  # noqa: B023
            if "passes" in changes:  # noqa: B023
                config["lifetime"]["steps_per_update"] = 10**7
                config["learner"]["minibatch"] = 10**7

        path = rewritten(saved, change, tmp_path / "large.safetensors")
        with pytest.raises(UserError) as caught:
            files.load(path)
        line = str(caught.value)
        assert line.startswith(f"{path}: ") and message in line and "\n" not in line


def test_a_task_that_a_file_names_is_never_imported(
    saved: Path, imported: Path, tmp_path: Path
) -> None:
    """Nor need it be at hand: the sizes are enough to learn by the loss."""
    path = rewritten(saved, lambda c: c.update(task="evil:Task"), tmp_path / "evil.safetensors")
    found, clean = files.load(path, trust=True), files.load(saved)
    assert found.task == "evil:Task" and found.config == clean.config
    task, seeds = tasks.make(clean.task), seeds_of(range(2))
    agents = found.agents(task, seeds)
    result = live(task, mdps_of(task, seeds), agents, seeds, found.config.lifetime)
    assert np.isfinite(result.final_return).all() and (result.metrics["kl"] > 0).all()
    assert "evil" not in sys.modules and not imported.exists()


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
    found = files.load(saved)
    method = found.method()
    assert isinstance(method, Epg)
    each = {name: tensor.expand(AGENTS, *tensor.shape) for name, tensor in found.params.items()}
    inside = method.loss.bind(each)
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
        ("rows", torch.zeros(3, dtype=torch.int64)),
        ("rows", torch.tensor(0)),
        ("rows", torch.zeros(3, 2, 2, dtype=torch.int64)),
        ("rows", torch.zeros(3, 0, dtype=torch.int64)),
        ("rows", torch.zeros(3, 8)),
        ("rows", torch.full((3, 8), -1)),
        ("rows", torch.full((3, 8), 32)),
    ],
)
def test_a_wrong_argument_is_named(
    saved: Path, config: Config, name: str, wrong: Tensor | int
) -> None:
    with pytest.raises(ValueError, match=f"^{name}: found "):
        judge(saved, config, **{name: wrong})
