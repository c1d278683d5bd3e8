"""What the predictions that a rule has agents make have come to mean: how well they tell values.

Shape letters: P lifetimes, R rows, M rows of an update, m numbers of a prediction, G discounts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from epg import tasks
from epg.agents.base import Agents, Metrics, Policy
from epg.agents.buffer import Transitions
from epg.errors import UserError
from epg.evaluation.beside import beside
from epg.evaluation.bootstrap import LIFETIMES, Interval, summarise
from epg.evaluation.gradients import LEARNED
from epg.evaluation.plot import png
from epg.evaluation.protocol import SavedFiles
from epg.evaluation.scores import Sample
from epg.evaluation.tables import cells_of, wrap
from epg.evaluation.verdict import answers
from epg.lifetime import live
from epg.losses.lpg_loss import LpgLoss
from epg.methods.footprint import check_lifetimes
from epg.rules.lpg_agents import LpgAgents
from epg.rules.returns import backwards_sum
from epg.seeds import LifetimeSeeds, Purpose
from epg.tasks.base import draw_mdps

DISCOUNTS = (0.0, 0.5, 0.9, 0.99)
LEFT_OUT = 0.1
"""Rows whose return is cut off where later rewards still count for so much."""
NEWEST = 10
"""Updates before the end of life whose rows are looked at."""
RIDGE = 1e-3


class Watched(Agents):
    """Agents as they are, of whose newest updates rows are kept."""

    def __init__(self, agents: LpgAgents, updates: int) -> None:
        self._agents = agents
        self._from = updates - NEWEST
        self._done = 0
        self.kept_rows: list[tuple[Tensor, Tensor, Tensor]] = []
        """of an update each: predictions [P, M, m], rewards and ends [P, M]"""

    def policy(self, episodes: int | None = None) -> Policy:
        return self._agents.policy(episodes)

    def learn(self, new: Transitions) -> Metrics:
        if self._done >= self._from:
            ended = (new.terminated | new.truncated).to(new.rewards.dtype)
            self.kept_rows.append((self._agents.predictions(new), new.rewards, ended))
        self._done += 1
        return self._agents.learn(new)

    @property
    def failed(self) -> Tensor:
        return self._agents.failed


@dataclass(frozen=True)
class PredictionReport:
    """How much of the return that follows a state its prediction tells, by a linear probe."""

    task: str
    loss: str
    """sha256 of its file"""
    seed: int
    told: dict[str, np.ndarray]
    """by whose predictions, [P, G] R² on rows that the probe has not seen; NaN where all returns
    are equal"""
    finals: dict[str, np.ndarray]
    """[P] final returns of the agents that were watched, and of what stands beside them"""

    def rows(self) -> dict[str, Interval | None]:
        """Means over lifetimes, with intervals; None where nothing was to be told."""
        found = {f"final return, {n}": _mean(v) for n, v in self.finals.items()}
        for whose, each in self.told.items():
            found |= {
                f"R² of returns at γ {discount:g}, {whose}": _mean(each[:, place])
                for place, discount in enumerate(DISCOUNTS)
            }
        return found

    def cells(self) -> dict[str, str]:
        """The rows for people."""
        return {name: cells_of([row])[0] or "–" for name, row in self.rows().items()}

    def table(self) -> str:
        """For people."""
        lives = len(next(iter(self.told.values())))
        head = (
            f"{self.task}: returns, and how much of the discounted return that follows a state a "
            f"linear probe reads from its prediction, means over {lives} lifetimes with 95 % "
            "intervals"
        )
        foot = (
            f"R² on every other one of the last {NEWEST} updates, the probe fitted to those "
            "between; 0: no better than the mean; untrained: predictions under a random rule"
        )
        width = max(map(len, self.rows()))
        rows = [f"{name:<{width}}  {cell}" for name, cell in self.cells().items()]
        samples = {n: Sample(v[:, None], v[:, None], 0) for n, v in self.finals.items()}
        said = [line for answer in answers(samples, [LEARNED]) for line in wrap(answer)]
        return "\n".join([*wrap(head), *rows, *wrap(foot), *said])

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        rows = {name: interval and vars(interval) for name, interval in self.rows().items()}
        lives = len(next(iter(self.told.values())))
        return {
            "task": self.task, "loss": self.loss, "seed": self.seed, "lifetimes": lives,
            "means": rows,
        }  # fmt: skip

    def picture(self) -> bytes:
        """R² over discounts as a PNG."""
        figure = Figure(figsize=(5, 3.8), layout="constrained")
        axes = figure.subplots()
        for whose, each in self.told.items():
            found = {i: r for i, column in enumerate(each.T) if (r := _mean(column))}
            low = [r.value - r.low for r in found.values()]
            high = [r.high - r.value for r in found.values()]
            values = [r.value for r in found.values()]
            axes.errorbar(list(found), values, yerr=[low, high], label=whose)
        axes.set_xticks(range(len(DISCOUNTS)), [f"{g:g}" for g in DISCOUNTS])
        axes.set(title="what predictions tell of returns", xlabel="γ", ylabel="R²")
        axes.axhline(0, color="black", linewidth=0.8)
        axes.legend()
        axes.grid(alpha=0.3)
        return png(figure)


def predicts(files: SavedFiles) -> bool:
    """Whether the agents of a single file make predictions that mean what a rule made of them."""
    [saved] = files.saved
    return isinstance(getattr(saved.method(), "loss", None), LpgLoss)


def inspect_predictions(
    files: SavedFiles, task: str | dict[str, Any], lifetimes: int = 16, seed: int = 0
) -> PredictionReport:
    """What predictions of agents under a saved rule tell, beside those under a random one.

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
    method, life = saved.method(made), saved.config.lifetime
    if life.updates < 2:
        raise UserError(f"{files.paths[0]}: lives of {life.updates} update: 2 are needed at least")
    told, finals = {}, {}
    for whose, params in ((LEARNED, saved.params), ("untrained", method.init())):
        seeds = LifetimeSeeds.of(seed, Purpose.EVALUATION, 0, lifetimes)
        agents = method.agents(params, seeds)
        assert isinstance(agents, LpgAgents)
        watched = Watched(agents, life.updates)
        lived = live(method.task, draw_mdps(method.task, seeds), watched, seeds, life)
        told[whose], finals[whose] = _told(watched.kept_rows), lived.final_return
    finals |= beside(files, task, made.name, lifetimes, seed)
    worst = np.nanmin(np.concatenate([*finals.values(), [np.inf]]))  # what failures count as
    finals = {name: np.where(np.isnan(v), worst, v) for name, v in finals.items()}
    return PredictionReport(made.name, files.digests[0], seed, told, finals)


def _told(kept: Sequence[tuple[Tensor, Tensor, Tensor]]) -> np.ndarray:
    """[P, G]; every other update is fitted to, for rows of one have much of their returns in
    common."""
    columns = []
    for discount in DISCOUNTS:
        seen: list[Tensor] = []
        returns: list[Tensor] = []
        for predictions, rewards, ended in kept:
            rows = _whole_rows(discount, rewards.shape[1])
            following = backwards_sum(rewards.double(), discount * (1 - ended.double()))
            seen.append(predictions[:, :rows].double())
            returns.append(following[:, :rows])
        fitted, rest = (
            [torch.cat(each[place::2], 1) for each in (seen, returns)] for place in (0, 1)
        )
        columns.append([probe(*life) for life in zip(*fitted, *rest, strict=True)])
    return np.array(columns).T


def _whole_rows(discount: float, rows: int) -> int:
    """Of so many, those whose return is not cut off; half of them at least."""
    tail = math.ceil(math.log(LEFT_OUT) / math.log(discount)) if discount else 0
    return max(rows // 2, rows - tail)


def probe(x: Tensor, y: Tensor, other_x: Tensor, other_y: Tensor) -> float:
    """R² of a linear probe of y [R] in x [R, m] on other rows; NaN where their y are all equal."""
    x, other_x = (torch.cat((each, torch.ones_like(each[:, :1])), 1) for each in (x, other_x))
    square = x.T @ x + RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(square, x.T @ y)
    spread = (other_y - other_y.mean()).square().sum()
    if not torch.isfinite(weights).all() or spread < 1e-12:
        return math.nan
    return float(1 - (other_y - other_x @ weights).square().sum() / spread)


def _mean(values: np.ndarray) -> Interval | None:
    known = values[np.isfinite(values)]
    return summarise(known[:, None], LIFETIMES).mean if known.size else None
