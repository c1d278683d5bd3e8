"""`epg inspect`: what a loss has learned, seen in the gradients that it gives to policies.

Shape letters: P lifetimes, U updates, M new rows, n parameters of a policy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cosine_similarity

from epg import tasks
from epg.agents.actor_critic import ActorCritic, Experience
from epg.agents.loss import Loss, Objective
from epg.agents.policy_gradient import PolicyGradientAgents
from epg.errors import UserError
from epg.evaluation.beside import beside
from epg.evaluation.bootstrap import LIFETIMES, Interval, summarise
from epg.evaluation.plot import band, png
from epg.evaluation.protocol import SavedFiles
from epg.evaluation.scores import Sample
from epg.evaluation.tables import cells_of, wrap
from epg.evaluation.verdict import answers
from epg.lifetime import live
from epg.methods.base import Dissection
from epg.methods.footprint import check_lifetimes
from epg.process.progress import Progress
from epg.seeds import LifetimeSeeds, Purpose
from epg.tasks.base import draw_mdps

LEARNED = "learned loss"
"""What a single saved file is called."""


@dataclass
class GradientProbe:
    """A loss under which agents live as ever, while the gradients of others are noted.

    Before every update, at the policy as it stands and over all M new rows: the gradient of the
    learned loss alone, of PPO, and of the learned loss blind to each of its inputs.
    """

    loss: Loss
    parts: Dissection
    cosines: list[Tensor] = field(default_factory=list)
    """an update each, [P]; as all below"""
    norms: list[Tensor] = field(default_factory=list)
    ppo_norms: list[Tensor] = field(default_factory=list)
    changes: dict[str, list[Tensor]] = field(default_factory=dict)
    """‖g − g without the input‖ / ‖g‖, by input"""
    noted: Callable[[int], None] = lambda updates: None
    """is told of how many updates something is noted"""

    @property
    def history(self) -> int:
        return self.loss.history

    def objective(self, agents: ActorCritic, experience: Experience) -> Objective:
        ours, ppos = (
            self._gradient(loss, agents, experience)
            for loss in (self.parts.learned, self.parts.ppo)
        )
        self.norms.append(ours.norm(dim=1))
        self.ppo_norms.append(ppos.norm(dim=1))
        nothing = (self.norms[-1] == 0) | (self.ppo_norms[-1] == 0)
        self.cosines.append(cosine_similarity(ours, ppos).masked_fill(nothing, torch.nan))
        for name, loss in self.parts.without.items():
            change = (ours - self._gradient(loss, agents, experience)).norm(dim=1)
            self.changes.setdefault(name, []).append(change / self.norms[-1])
        self.noted(len(self.norms))
        return self.loss.objective(agents, experience)

    def _gradient(self, loss: Loss, agents: ActorCritic, experience: Experience) -> Tensor:
        """[P, n] of the policies' parameters."""
        policy = [p for name, p in agents.parameters.items() if name.startswith("policy")]
        count = experience.new.rewards.shape[1]
        outputs = agents.outputs(experience.observations[:, -max(loss.history, count) :])
        rows = torch.arange(count, device=agents.device).expand(agents.lifetimes, -1)
        value = loss.objective(agents, experience)(outputs, rows).sum()
        return torch.cat([g.flatten(1) for g in torch.autograd.grad(value, policy)], 1)


@dataclass(frozen=True)
class GradientReport:
    """What was noted of P lifetimes."""

    task: str
    loss: str
    """sha256 of its file"""
    settings: dict[str, float]
    """with which the agents learn, such as α, the weight of PPO beside the loss"""
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
    finals: dict[str, np.ndarray]
    """[P] final returns of the agents that were watched, and of what stands beside them; where
    learning failed, the worst of all"""

    def rows(self) -> dict[str, Interval | None]:
        """Means over a lifetime, with intervals over lifetimes; None where nothing was finite."""
        measured = (
            {f"final return, {name}": v[:, None] for name, v in self.finals.items()}
            | {
                "cosine with PPO's gradient": self.cosine,
                "norm of the gradient": self.norm,
                "norm of PPO's gradient": self.ppo_norm,
            }
            | {f"changes without {name}": values for name, values in self.change.items()}
        )
        return {name: _mean(values) for name, values in measured.items()}

    def table(self) -> str:
        """For people."""
        head = (
            f"{self.task}: returns, and gradients of the learned loss alone, means over "
            f"{len(self.cosine)} lifetimes with 95 % intervals"
        )
        foot = "changes without X: ‖g − g without X‖ / ‖g‖, where the loss is blind to that input"
        width = max(map(len, self.rows()))
        rows = [f"{name:<{width}}  {cell}" for name, cell in self.cells().items()]
        samples = {n: Sample(v[:, None], v[:, None], 0) for n, v in self.finals.items()}
        said = [line for answer in answers(samples, [LEARNED]) for line in wrap(answer)]
        return "\n".join([*wrap(head), *rows, *wrap(foot), *said])

    def cells(self) -> dict[str, str]:
        """The rows for people, each with a precision of its own: they have no common unit."""
        return {name: cells_of([row])[0] or "–" for name, row in self.rows().items()}

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        rows = {name: interval and vars(interval) for name, interval in self.rows().items()}
        return {
            "task": self.task, "loss": self.loss, "settings": self.settings, "seed": self.seed,
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
    files: SavedFiles, task: str | dict[str, Any], lifetimes: int = 16, seed: int = 0
) -> GradientReport:
    """The gradients that a learned loss gives to agents that live as in an evaluation.

    files: a single one. Raises `UserError` for what a user can mend.
    """
    [saved] = files.saved
    if isinstance(task, list):
        raise UserError(f"task: found {task}, allowed: NAME or {{name: NAME, …}}, one at a time")
    made = tasks.make(task)
    if why := saved.misfit(made):
        raise UserError(f"{files.paths[0]}: does not fit {why}")
    check_lifetimes(saved.config.setup, made, lifetimes)
    torch.set_num_threads(saved.config.threads)
    # agents as ever, their loss watched
    method = saved.method(made)
    seeds = LifetimeSeeds.of(seed, Purpose.EVALUATION, 0, lifetimes)
    agents, parts = method.agents(saved.params, seeds), method.dissect(saved.params, lifetimes)
    if parts is None or not isinstance(agents, PolicyGradientAgents) or agents.loss is None:
        raise UserError(
            f"{files.paths[0]}: the method {saved.config.method.name} learns no loss to look into"
        )
    agents.loss = probe = GradientProbe(agents.loss, parts)
    updates = saved.config.lifetime.updates
    about = f"of {updates} updates of {lifetimes} lifetimes"
    with Progress(updates, text=f"gradients: 0 {about}") as progress:
        probe.noted = lambda n: progress.show(n, f"gradients: {n} {about}, {progress.left(n)}")
        mdps = draw_mdps(method.task, seeds)
        lived = live(method.task, mdps, agents, seeds, saved.config.lifetime)
    finals = {LEARNED: lived.final_return} | beside(files, task, made.name, lifetimes, seed)
    worst = np.nanmin(np.concatenate([*finals.values(), [np.inf]]))  # what failures count as
    finals = {name: np.where(np.isnan(v), worst, v) for name, v in finals.items()}
    return GradientReport(
        made.name,
        files.digests[0],
        method.about(),
        seed,
        saved.config.lifetime.steps_per_update,
        _stack(probe.cosines),
        _stack(probe.norms),
        _stack(probe.ppo_norms),
        {name: _stack(values) for name, values in probe.changes.items()},
        finals,
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
