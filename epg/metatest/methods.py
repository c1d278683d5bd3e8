"""All methods of an evaluation, on all of its tasks."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from epg import tasks
from epg.artifact import Artifact
from epg.config import Config, Lifetime
from epg.errors import UserError
from epg.lifetime import ppo_of
from epg.losses.mixture import Mixture
from epg.losses.temporal_conv import TemporalConvLoss
from epg.metatest.baselines import TUNABLE, UNTRAINED, raising_of, settings_of, subject_of
from epg.metatest.protocol import Losses, Protocol, misfit
from epg.metatest.subjects import Subject
from epg.seeds import Purpose
from epg.tasks.base import Task
from epg.tasks.mixture import Padded


def subjects_of(protocol: Protocol, losses: Losses) -> Iterator[Subject]:
    """All methods, task by task; of losses those that fit."""
    reference = losses.configs[0].lifetime.but(**protocol.changes())
    for spec in protocol.tasks:
        task = tasks.make(spec)
        fitting = [
            (name, artifact, config)
            for name, artifact, config in zip(
                losses.names, losses.artifacts, losses.configs, strict=True
            )
            if not misfit(artifact, task)
        ]
        for name, artifact, config in fitting:
            yield _of_loss(name, artifact, config, artifact.phi, task, protocol)
        for baseline in protocol.baselines:
            if baseline == UNTRAINED:
                for name, artifact, config in fitting:
                    called = UNTRAINED if len(losses.names) == 1 else f"{UNTRAINED} {name}"
                    phi = _first_phi(name, artifact, config)
                    yield _of_loss(called, artifact, config, phi, task, protocol)
                continue
            life, about = reference, ""
            if baseline in TUNABLE:
                setting = protocol.tuned[task.name][baseline]
                life = reference.but(**setting.model_dump(exclude={"exact"}))
                about = "" if setting.exact else "; not tuned for this task and budget: epg tune"
            yield subject_of(baseline, task, life, protocol.seed, Purpose.EVALUATION, about)


def _of_loss(
    name: str, artifact: Artifact, config: Config, phi: Tensor, task: Task, protocol: Protocol
) -> Subject:
    changes = protocol.changes()
    if protocol.learning_rate is not None:
        changes["learning_rate"] = protocol.learning_rate
    life = config.lifetime.but(**changes)
    alpha = artifact.alpha if protocol.alpha is None else protocol.alpha
    about = f"α {alpha:g}, {settings_of(life)}"
    for setting, other in changes.items():
        trained = getattr(config.lifetime, setting)
        if other != trained:
            about += f", {setting} {_show(other)} (trained with {_show(trained)})"
    fitted = fit(artifact, task)
    if fitted is not task:
        sizes = fitted.observation_size, fitted.action_size
        about += f", padded to {sizes[0]} observations, {sizes[1]} actions"
    raising = raising_of(
        fitted,
        lambda count: mixture(learned_loss(artifact, phi, life, count), alpha, life, config),
        life, protocol.seed, Purpose.EVALUATION, policy_of(artifact, phi), config.reference,
    )  # fmt: skip
    return Subject(task.name, name, about, life, raising)


def _show(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def fit(artifact: Artifact, task: Task) -> Task:
    """The task, padded where the loss is made for a larger one."""
    body = artifact.genome.architecture.body
    sizes = (body.observation_size, body.action_size)
    return task if sizes == (task.observation_size, task.action_size) else Padded(task, *sizes)


def learned_loss(artifact: Artifact, phi: Tensor, life: Lifetime, count: int) -> TemporalConvLoss:
    """The loss of φ [size], the same for so many agents."""
    loss_phi, _ = artifact.genome.split(phi.unsqueeze(0))
    return TemporalConvLoss(
        artifact.genome.architecture, loss_phi.expand(count, -1), life.buffer,
        artifact.config["reference"],
    )  # fmt: skip


def policy_of(artifact: Artifact, phi: Tensor) -> Tensor | None:
    """The initial policy [n] in φ [size], where it evolved."""
    _, policy = artifact.genome.split(phi.unsqueeze(0))
    return policy[0] if policy is not None else None


def mixture(learned: TemporalConvLoss, alpha: float, life: Lifetime, config: Config) -> Mixture:
    """What agents are raised with: PPO has the weight α."""
    return Mixture([(1 - alpha, learned), (alpha, ppo_of(life, config.reference))])


def _first_phi(name: str, artifact: Artifact, config: Config) -> Tensor:
    """The φ that evolution began with."""
    if config.start_from is not None:
        raise UserError(
            f"{name}: its evolution began with a saved loss ({config.start_from}); evaluate that "
            f"one beside it, without the baseline {UNTRAINED}"
        )
    return artifact.genome.draw(config.seed, zero_output=config.evolution.start == "residual")
