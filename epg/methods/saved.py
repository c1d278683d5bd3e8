"""A saved file: what a method has learned, with all that is needed to learn by it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeInt, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from epg.agents.base import Agents
from epg.config import Config, Setup, refuse_own, validate
from epg.errors import UserError
from epg.methods.base import Method, make_method
from epg.process.shipped import find
from epg.runs.files import write_durably
from epg.seeds import LifetimeSeeds
from epg.settings import Settings, explain
from epg.tasks.base import Sizes, Task
from epg.tasks.mixture import Padded
from epg.upgrade import upgrade
from epg.version import __version__

FORMAT = 2
Size = Annotated[int, Field(gt=0, le=1_000_000)]
Line = Annotated[str, Field(max_length=10_000)]
NOWHERE = "point-goal"
"""In place of the task that it was trained on, which need not be at hand, nor may make code run."""


class _About(Settings):
    """What a file says of itself."""

    format: Literal[2]
    method: str
    config: dict[str, Any]
    sizes: tuple[Size, Size, bool]
    step: NonNegativeInt
    tasks: tuple[Line, ...]
    version: Line


@dataclass(frozen=True)
class Saved:
    """What a method has learned, and what is known of it."""

    config: Config
    """the configuration it was trained with; its task is a placeholder in a file that was read"""
    params: Mapping[str, Tensor]
    """by name, float32"""
    sizes: tuple[int, int, bool]
    """observations, actions, and whether these are discrete"""
    step: int
    """of the outer loop, after which it was saved"""
    tasks: tuple[str, ...]
    """what it was trained on"""
    task: Any = None
    """the same as the configuration says it"""
    version: str = __version__

    def save(self, path: Path) -> None:
        """Write the file durably. No pickle."""
        config = self.config.model_dump(mode="json")
        if self.task is not None:
            config["task"] = self.task
        about = {
            "format": FORMAT,
            "method": self.config.method.name,
            "config": config,
            "sizes": self.sizes,
            "step": self.step,
            "tasks": self.tasks,
            "version": self.version,
        }
        about["sha256"] = _digest(about, self.params)
        tensors = {name: tensor.contiguous() for name, tensor in self.params.items()}
        write_durably(path, save(tensors, {"epg": json.dumps(about)}))

    def misfit(self, task: Task) -> str:
        """Why it does not fit a task; empty if it does, padded with zeros or not."""
        observations, actions, discrete = self.sizes
        if not self.sized:
            return ""
        if discrete != task.discrete:
            kinds = ("discrete" if d else "continuous" for d in (task.discrete, discrete))
            return "task {}: its actions are {}, the loss is made for {} ones".format(
                task.name, *kinds
            )
        if observations >= task.observation_size and actions >= task.action_size:
            return ""
        return (
            f"task {task.name}: it has {task.observation_size} observations and "
            f"{task.action_size} actions, the loss is made for {observations} and {actions}; "
            "zeros can pad tasks up to that size, not a loss"
        )

    def fit(self, task: Task) -> Task:
        """The task, padded with zeros where this is made for a larger one."""
        sizes = self.sizes[:2]
        if not self.sized or sizes == (task.observation_size, task.action_size):
            return task
        return Padded(task, *sizes)

    @cached_property
    def sized(self) -> bool:
        """Whether it is for tasks of its sizes alone."""
        return make_method(self.config, Sizes(*self.sizes)).sized

    @property
    def blindable(self) -> bool:
        """Whether it is known what its agents are without reward."""
        return self.method().blindable

    def method(self, task: Task | None = None, config: Config | None = None) -> Method:
        """The method that learned it, for a task that it fits; as it was configured if None.

        Without a task, for one of which nothing but the sizes is known. Raises `UserError`.
        """
        made = self.fit(task) if task is not None else Sizes(*self.sizes)
        method = make_method(config or self.config, made)
        method.trained = self.config
        return method

    def agents(self, task: Task, seeds: LifetimeSeeds, setup: Setup | None = None) -> Agents:
        """Fresh agents that learn by it, one for each of P seeds.

        setup: how they are built, live and learn; as in its training if None.
        """
        if why := self.misfit(task):
            raise UserError(why)
        config = self.config if setup is None else self.config.with_setup(setup)
        return self.method(task, config).agents(self.params, seeds)


def load(path: str | Path, trust: bool | Collection[str] = False) -> Saved:
    """Read a saved file; `UserError` in one line for a missing, broken or foreign one.

    path: or the name of one that comes with epg; trust: whether classes of a user's own that it
    names, module:Class, may be imported, which makes their code run; or the names of those that
    may.
    """
    path = find("loss", path)
    described, tensors = _read(path)
    try:
        if described["format"] == 1:
            described = _upgraded(described)
        if described["format"] != FORMAT:
            raise UserError(
                f"{path}: format {described['format']}; this version reads formats 1 and {FORMAT}"
            )
        about = _About.model_validate_json(json.dumps(described))
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, _About)}") from None
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"{path}: broken description of the loss ({error!r})") from None
    data = upgrade(about.config, str(path))
    refuse_own({"method": data.get("method")}, str(path), trust)
    config = validate(data | {"task": NOWHERE}, str(path))
    if about.method != config.method.name:
        raise UserError(f"{path}: method {about.method} is not that of its configuration")
    saved = Saved(
        config, tensors, about.sizes, about.step, about.tasks, data.get("task"), about.version
    )
    try:
        shapes = dict(saved.method().shapes)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != shapes:
        raise UserError(f"{path}: its tensors do not have the shapes that its description says")
    return replace(saved, params={name: tensors[name] for name in shapes})


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and tensors of a file that matches its checksum."""
    if not path.is_file():
        best = path / "best.safetensors"
        hint = f", such as {best}" if best.is_file() else ""
        raise UserError(f"{path}: not a file, expected a saved loss{hint}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a loss file, or a truncated one ({reason})") from None
    if "epg" not in metadata:
        raise UserError(f"{path}: a safetensors file, but not a loss saved by epg")
    for tensor in tensors.values():
        if tensor.dtype != torch.float32 or not torch.isfinite(tensor).all():
            raise UserError(f"{path}: holds numbers that are not finite float32")
    try:
        about = json.loads(metadata["epg"])
        checksum = about.pop("sha256")
        ordered = tensors
        if about["format"] == 1:
            ordered = _in_order_of_format_1(about, tensors)
        if _digest(about, ordered) != checksum:
            raise UserError(f"{path}: damaged; it does not match its checksum")
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"{path}: broken description of the loss ({error!r})") from None
    return about, tensors


def _digest(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """sha256 of the description and of all numbers, in the order of names; format 1 had its own."""
    names = list(tensors) if about["format"] == 1 else sorted(tensors)
    content = [json.dumps(about).encode()]
    content += [tensors[name].contiguous().numpy().tobytes() for name in names]
    return hashlib.sha256(b"".join(content)).hexdigest()


# Format 1, of version 0.1: evolved temporal convolutions alone


def _in_order_of_format_1(
    about: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors in the order in which φ held them."""
    loss = ("conv0", "conv1", "context", "step", "output")
    names = [f"{layer}.{kind}" for layer in loss for kind in ("weight", "bias")]
    if about["evolve_policy_init"]:
        layers = range(len(about["hidden"]) + 1)
        names += [f"policy.{i}.{kind}" for i in layers for kind in ("weight", "bias")]
        names += [] if about["discrete"] else ["policy.log_std"]
    if set(names) != set(tensors):
        raise ValueError("its tensors are not those of a temporal convolution")
    return {name: tensors[name] for name in names}


def _upgraded(about: Mapping[str, Any]) -> dict[str, Any]:
    if about["architecture"] != "temporal_conv":
        raise ValueError(f"architecture {about['architecture']!r}")
    return {
        "format": FORMAT,
        "method": "epg",
        "config": about["config"],
        "sizes": (about["observation_size"], about["action_size"], about["discrete"]),
        "step": about["generation"],
        "tasks": about["tasks"],
        "version": about["version"],
    }
