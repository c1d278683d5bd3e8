"""`loss.safetensors`: a learned loss on disk, and the module that a person trains with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

import epg
from epg.agents.agents import Body
from epg.errors import UserError
from epg.files import write_durably
from epg.genome import Genome
from epg.losses.temporal_conv import SHORTEST_BUFFER, Architecture, TemporalConvLoss

FORMAT = 1
KIND = "temporal_conv"


@dataclass(frozen=True)
class Artifact:
    """A learned loss with what is known of it."""

    genome: Genome
    phi: Tensor
    """[size] float32"""
    alpha: float
    """weight of PPO beside the loss at the end of its training"""
    config: dict[str, Any]
    """the configuration it was trained with"""
    generation: int
    tasks: tuple[str, ...]
    """what it was trained on"""
    version: str = epg.__version__

    def save(self, path: Path) -> None:
        """Write the file durably. No pickle."""
        body = self.genome.architecture.body
        about = {
            "format": FORMAT,
            "architecture": KIND,
            "inputs": self.genome.architecture.inputs,
            "observation_size": body.observation_size,
            "action_size": body.action_size,
            "discrete": body.discrete,
            "hidden": body.hidden,
            "memory": body.memory,
            "evolve_policy_init": self.genome.with_policy,
            "alpha": self.alpha,
            "config": self.config,
            "generation": self.generation,
            "tasks": self.tasks,
            "version": self.version,
        }
        about["sha256"] = _digest(about, self.phi)
        tensors = {name: t.contiguous() for name, t in self.genome.name(self.phi).items()}
        write_durably(path, save(tensors, {"epg": json.dumps(about)}))


def load(path: str | Path) -> Artifact:
    """Read a loss; `UserError` in one line for a missing, truncated, broken or foreign file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such loss file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a loss file, or a truncated one ({reason})") from None
    if "epg" not in metadata:
        raise UserError(f"{path}: a safetensors file, but not a loss saved by epg")
    try:
        about = json.loads(metadata["epg"])
        if (about["format"], about["architecture"]) != (FORMAT, KIND):
            raise UserError(
                f"{path}: format {about['format']} of {about['architecture']}; "
                f"this version reads format {FORMAT} of {KIND}"
            )
        body = Body(
            about["observation_size"], about["action_size"], about["discrete"],
            tuple(about["hidden"]), about["memory"],
        )  # fmt: skip
        genome = Genome(Architecture(body, tuple(about["inputs"])), about["evolve_policy_init"])
        artifact = {
            "alpha": about["alpha"],
            "config": about["config"],
            "generation": about["generation"],
            "tasks": tuple(about["tasks"]),
            "version": about["version"],
        }
        checksum, shapes = about.pop("sha256"), genome.shapes
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: broken description of the loss ({error!r})") from None
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != shapes:
        raise UserError(f"{path}: its tensors do not have the shapes that its description says")
    phi = genome.flatten(tensors)
    if phi.dtype != torch.float32 or not torch.isfinite(phi).all():
        raise UserError(f"{path}: holds numbers that are not finite float32")
    if _digest(about, phi) != checksum:
        raise UserError(f"{path}: damaged; it does not match its checksum")
    return Artifact(genome, phi, **artifact)


def _digest(about: dict[str, Any], phi: Tensor) -> str:
    content = json.dumps(about).encode() + phi.contiguous().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()


class LearnedLoss(nn.Module):
    """A learned loss for a training loop of one's own.

    Attributes: `alpha`, the weight of PPO beside it at the end of its training; `artifact`, all
    that its file says. φ is a buffer, not a parameter: optimisers leave it alone.
    """

    phi: Tensor

    def __init__(self, artifact: Artifact) -> None:
        super().__init__()
        self.artifact = artifact
        self.alpha = artifact.alpha
        loss, _ = artifact.genome.split(artifact.phi.unsqueeze(0))
        self.register_buffer("phi", loss)

    def forward(
        self,
        observations: Tensor,
        actions: Tensor,
        rewards: Tensor,
        dones: Tensor,
        policy_outputs: Tensor,
        memory: Tensor | None = None,
        newest: int = 64,
        rows: Tensor | None = None,
    ) -> Tensor:
        """The loss of each of P agents, [P]; minimise it.

        All rows are the newest N ≥ 21 steps of an agent, oldest first, padded in front with zeros.
        observations: [P, N, O] and actions: [P, N, A] (one-hot if discrete), both normalised to
        mean 0 and variance 1; rewards: [P, N]; dones: [P, N], 1 where an episode ended;
        policy_outputs: [P, N, K] of the policy as it is now, padded rows too, with gradient:
        mean and log standard deviation, or probabilities if discrete; memory: [P, H] of the agent,
        zeros if left out; newest: M, how many of the newest rows are judged (the oldest, if
        the loss was trained with `reference: true`); rows: [P, B], the
        minibatch among these, all if left out.

        Raises ValueError naming the first argument whose shape does not fit.
        """
        architecture = self.artifact.genome.architecture
        body = architecture.body
        if observations.dim() != 3:
            raise ValueError(f"observations: found shape {list(observations.shape)}, not [P, N, O]")
        agents, length, _ = observations.shape
        if length < SHORTEST_BUFFER:
            raise ValueError(f"observations: found N = {length}, at least {SHORTEST_BUFFER} needed")
        if not 1 <= newest <= length:
            raise ValueError(f"newest: found {newest}, allowed 1 to N = {length}")
        if memory is None:
            memory = observations.new_zeros(agents, body.memory)
        if rows is None:
            rows = torch.arange(newest, device=observations.device).expand(agents, newest)
        output_size = body.distribution.output_size
        for name, found, shape in (
            ("observations", observations, (agents, length, body.observation_size)),
            ("actions", actions, (agents, length, body.action_size)),
            ("rewards", rewards, (agents, length)),
            ("dones", dones, (agents, length)),
            ("policy_outputs", policy_outputs, (agents, length, output_size)),
            ("memory", memory, (agents, body.memory)),
            ("rows", rows, (agents, rows.shape[-1])),
        ):
            if tuple(found.shape) != shape:
                raise ValueError(f"{name}: found shape {list(found.shape)}, expected {list(shape)}")
        columns = {
            "observation": observations,
            "action": actions,
            "reward": rewards.unsqueeze(-1),
            "done": dones.unsqueeze(-1),
            "auxiliary": torch.zeros_like(rewards).unsqueeze(-1),
        }
        trajectory = torch.cat([columns[name] for name in architecture.inputs], dim=-1)
        losses = TemporalConvLoss(
            architecture, self.phi.expand(agents, -1), length, self.artifact.config["reference"]
        )
        loss: Tensor = losses.reader(trajectory, newest)(policy_outputs, memory, rows)
        return loss


def load_loss(path: str | Path) -> LearnedLoss:
    """A saved loss as a module; see `LearnedLoss.forward`."""
    return LearnedLoss(load(path))
