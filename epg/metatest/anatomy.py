"""`epg inspect`: what a loss has learned, seen in the gradients that it gives to policies.

Shape letters: P lifetimes, U updates, M new rows, n parameters of a policy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cosine_similarity

from epg import tasks
from epg.agents.agents import Agents, Experience
from epg.errors import UserError
from epg.files import read_object, write_durably
from epg.losses.base import Loss, Objective
from epg.metatest.baselines import raising_of
from epg.metatest.methods import fit, learned_loss, mixture, policy_of
from epg.metatest.plot import band, png
from epg.metatest.protocol import Losses, misfit
from epg.metatest.statistics import LIFETIMES, Interval, summarise
from epg.seeds import Purpose


@dataclass
class Watched:
    """A loss under which agents live as ever, while the gradients of others are noted.

    Before every update, at the policy as it stands and over all M new rows: the gradient of the
    learned loss alone, of PPO, and of the learned loss blind to each of its inputs.
    """

    loss: Loss
    learned: Loss
    ppo: Loss
    blind: dict[str, Loss]
    cosines: list[Tensor] = field(default_factory=list)
    """an update each, [P]; as all below"""
    norms: list[Tensor] = field(default_factory=list)
    ppo_norms: list[Tensor] = field(default_factory=list)
    changes: dict[str, list[Tensor]] = field(default_factory=dict)
    """‖g − g without the input‖ / ‖g‖, by input"""

    @property
    def history(self) -> int:
        return self.loss.history

    def objective(self, agents: Agents, experience: Experience) -> Objective:
        ours, ppos = (self._gradient(loss, agents, experience) for loss in (self.learned, self.ppo))
        self.norms.append(ours.norm(dim=1))
        self.ppo_norms.append(ppos.norm(dim=1))
        nothing = (self.norms[-1] == 0) | (self.ppo_norms[-1] == 0)
        self.cosines.append(cosine_similarity(ours, ppos).masked_fill(nothing, torch.nan))
        for name, loss in self.blind.items():
            change = (ours - self._gradient(loss, agents, experience)).norm(dim=1)
            self.changes.setdefault(name, []).append(change / self.norms[-1])
        return self.loss.objective(agents, experience)

    def _gradient(self, loss: Loss, agents: Agents, experience: Experience) -> Tensor:
        """[P, n] of the policies' parameters."""
        policy = [p for name, p in agents.parameters.items() if name.startswith("policy")]
        count = experience.new.rewards.shape[1]
        outputs = agents.outputs(experience.observations[:, -max(loss.history, count) :])
        rows = torch.arange(count, device=agents.device).expand(agents.lifetimes, -1)
        value = loss.objective(agents, experience)(outputs, rows).sum()
        return torch.cat([g.flatten(1) for g in torch.autograd.grad(value, policy)], 1)


@dataclass(frozen=True)
class Anatomy:
    """What was noted of P lifetimes."""

    task: str
    loss: str
    """sha256 of its file"""
    alpha: float
    """weight of PPO beside it, in what the agents live with"""
    seed: int
    steps_per_update: int
    cosine: np.ndarray
    """[P, U] of the learned loss's gradient with PPO's; NaN where one of them is 0"""
    norm: np.ndarray
    """[P, U]"""
    ppo_norm: np.ndarray
    """[P, U]"""
    change: dict[str, np.ndarray]
    """[P, U] by input: the share of the gradient that goes with it"""

    def rows(self) -> dict[str, Interval | None]:
        """Means over a lifetime, with intervals over lifetimes; None where nothing was finite."""
        measured = {
            "cosine with PPO's gradient": self.cosine,
            "norm of the gradient": self.norm,
            "norm of PPO's gradient": self.ppo_norm,
        } | {f"changes without {name}": values for name, values in self.change.items()}
        return {name: _mean(values) for name, values in measured.items()}

    def table(self) -> str:
        """For people."""
        lines = [
            f"{self.task}: gradients of the learned loss alone, means over {len(self.cosine)} "
            "lifetimes with 95 % intervals"
        ]
        lines += [f"{name:<28}{interval or '–'}" for name, interval in self.rows().items()]
        lines.append(
            "changes without X: ‖g − g without X‖ / ‖g‖, where the loss is blind to that input"
        )
        return "\n".join(lines)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        rows = {name: interval and vars(interval) for name, interval in self.rows().items()}
        return {
            "task": self.task, "loss": self.loss, "alpha": self.alpha, "seed": self.seed,
            "lifetimes": len(self.cosine), "means": rows,
        }  # fmt: skip

    def picture(self) -> bytes:
        """Three panels as a PNG: direction and length of the gradient, and what it hangs on."""
        figure = Figure(figsize=(12, 3.8), layout="constrained")
        direction, length, inputs = figure.subplots(1, 3)
        steps = self.steps_per_update * np.arange(1, self.cosine.shape[1] + 1)
        band(direction, steps, self.cosine, "learned loss with PPO")
        direction.set(title="cosine of gradients", xlabel="environment steps of a lifetime")
        direction.axhline(0, color="black", linewidth=0.8)
        band(length, steps, self.norm, "learned loss")
        band(length, steps, self.ppo_norm, "PPO")
        length.set(title="norm of the gradient", xlabel="environment steps of a lifetime")
        length.set_yscale("log")
        length.legend()
        rows = {name: mean for name, v in self.change.items() if (mean := _mean(v))}
        found = [(r.value, r.value - r.low, r.high - r.value) for r in rows.values()]
        values, below, above = np.array(found).reshape(-1, 3).T
        inputs.barh(list(rows), values, xerr=[below, above])
        inputs.invert_yaxis()
        inputs.set(title="change of the gradient without …", xlabel="‖difference‖ / ‖gradient‖")
        for axes in (direction, length, inputs):
            axes.grid(alpha=0.3)
        return png(figure)


def inspect(
    loss: Losses, task: str | dict[str, Any], lifetimes: int = 16, seed: int = 0
) -> Anatomy:
    """Raise agents with a loss as in an evaluation, and note the gradients that it gives them.

    loss: a single one. Raises `UserError` for what a user can mend.
    """
    [artifact], [config] = loss.artifacts, loss.configs
    if isinstance(task, list):
        raise UserError(f"task: found {task}, allowed: NAME or {{name: NAME, …}}, one at a time")
    made = tasks.make(task)
    if why := misfit(artifact, made):
        raise UserError(f"{loss.paths[0]}: does not fit {why}")
    torch.set_num_threads(config.threads)
    life, phi, architecture = config.lifetime, artifact.phi, artifact.genome.architecture
    watched: list[Watched] = []

    def watch(count: int) -> Watched:
        learned = learned_loss(artifact, phi, life, count)
        loss_size = architecture.size
        blind: dict[str, Loss] = {}
        for name in architecture.removable:
            without = phi.clone()
            without[:loss_size] = architecture.without(phi[:loss_size].unsqueeze(0), name)[0]
            blind[name] = learned_loss(artifact, without, life, count)
        whole = mixture(learned, artifact.alpha, life, config)
        ppo = mixture(learned, 1.0, life, config)
        watched.append(Watched(whole, learned, ppo, blind))
        return watched[-1]

    raising = raising_of(
        fit(artifact, made), watch, life, seed, Purpose.EVALUATION,
        policy_of(artifact, phi), config.reference,
    )  # fmt: skip
    raising(0, lifetimes)
    [seen] = watched
    return Anatomy(
        made.name,
        loss.digests[0],
        artifact.alpha,
        seed,
        life.steps_per_update,
        _stack(seen.cosines),
        _stack(seen.norms),
        _stack(seen.ppo_norms),
        {name: _stack(values) for name, values in seen.changes.items()},
    )


def inspect_into(
    folder: Path, path: str | Path, task: str | dict[str, Any], lifetimes: int = 16, seed: int = 0
) -> Anatomy:
    """The same of a loss file; anatomy-TASK.json and .png go into a folder, new or not.

    Raises `UserError` if those of another inspection are there, and for what cannot be written.
    """
    loss = Losses([path])
    name = f"anatomy-{tasks.file_name(task)}"
    wanted = {"loss": loss.digests[0], "seed": seed, "lifetimes": lifetimes}
    _refuse_others(folder / f"{name}.json", wanted)  # before minutes of work
    anatomy = inspect(loss, task, lifetimes, seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(anatomy.plain(), indent=1, ensure_ascii=False) + "\n"
        write_durably(folder / f"{name}.json", text.encode())
        write_durably(folder / f"{name}.png", anatomy.picture())
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from None
    return anatomy


def _refuse_others(path: Path, about: Mapping[str, Any]) -> None:
    there = read_object(path)
    for key, here in about.items():
        if there and there.get(key) != here:
            shown = (str(value)[:8] for value in (there.get(key), here))
            raise UserError(
                "{}: holds another inspection ({}: there {}, here {}); name a new --out".format(
                    path, key, *shown
                )
            )


def _stack(values: list[Tensor]) -> np.ndarray:
    return torch.stack(values, 1).double().numpy()


def _mean(values: np.ndarray) -> Interval | None:
    """Of [P, U], what is not finite left out; over lifetimes. None if nothing is left."""
    finite = np.where(np.isfinite(values), values, np.nan)
    known = np.isfinite(finite).any(1)
    if not known.any():
        return None
    return summarise(np.nanmean(finite[known], axis=1)[:, None], LIFETIMES).mean
