"""A2C on CartPole-v1 that tunes its γ, as in "Replication: Meta-Gradient Reinforcement Learning"
(Kao, Tsai & Chang, of Xu, van Hasselt & Silver 2018, arXiv 1805.09801), beside A2C that does not.

    python results/replication/run.py                           # `make replication`
    python results/replication/run.py --line-11 literal --seeds 2 --iterations 50 --out DIR

Nine seeds of every setting learn side by side, each with the starts, resets and chance of its seed
whatever the setting. Writes iterations.csv and summary.csv, and by pictures.py figures and tables.
Shape letters: P agents, T steps, U iterations, R rows, K policy outputs.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pictures
import torch
import torch.autograd.forward_ad as forward
from torch import Tensor
from torch.nn import functional

from epg import tasks
from epg.agents.base import Metrics
from epg.agents.buffer import Transitions
from epg.agents.distributions import Categorical
from epg.agents.network import Parameters, layer_shapes, mlp
from epg.agents.optimizers import Adam, Sgd, State, Stepped, clip_by_norm
from epg.agents.spec import Shapes
from epg.lifetime import act, final_returns
from epg.rules.a2c import A2c
from epg.rules.agents import RuleAgents
from epg.rules.networks import HeadedNetworks
from epg.rules.online import Tuning
from epg.rules.rollout import Rollout
from epg.rules.rule import Fixed, Update, meta_gradient
from epg.seeds import LifetimeSeed, LifetimeSeeds, Purpose, Stream
from epg.tasks.base import draw_mdps, first_step

SEEDS = (0, 1, 2, 3, 4, 5, 6, 7, 9)
"""Nine, those that the text names."""
STARTS = (1.5, 1.1, 1.0, 0.99, 0.9, 0.8)
"""γ₀"""
GAMMA = "discount"
OUTER_GAMMA = 0.99
STEPS, ITERATIONS, HIDDEN, RATE, CLIP, META_RATE = 30, 500, 40, 0.01, 0.5, 1e-4
SOLVED = 475.0
FRESH = 20
"""Episodes by which the policy that an agent ended with is judged besides."""


@dataclass(frozen=True)
class Setting:
    """How γ moves, by name.

    naive: not at all; definition: by ∂f/∂γ of the update by τ, through clip and Adam; formula: by
    line 10 with what equation 11 says of ∂f/∂γ, on τ, with γ̄, without clip and Adam; literal: by
    line 11 as printed; second: as definition, but of an update by τ′ at θ′.
    """

    way: str
    starts: tuple[float, ...] = STARTS
    shown: tuple[float, ...] = STARTS
    """of which iterations are written"""
    joint: bool = False
    """whether both nets are clipped as one"""

    @property
    def name(self) -> str:
        return f"{self.way}, joint clip" if self.joint else self.way


ALONE = (OUTER_GAMMA,)
SETTINGS = (
    Setting("naive", shown=ALONE),
    Setting("definition"),
    Setting("formula"),
    Setting("literal"),
    Setting("second", ALONE, ()),
    Setting("naive", ALONE, (), joint=True),
    Setting("definition", ALONE, (), joint=True),
)
LEFT_OUT = {"both": (), "definition": ("literal", "second"), "literal": ("definition", "formula")}
"""By what is asked for."""


@dataclass(frozen=True)
class TwoNetworks(HeadedNetworks):
    """A policy and a value that share nothing, of layers as torch.nn.Linear begins them."""

    @property
    def shapes(self) -> Shapes:
        sizes = (self.observation_size, *self.hidden)
        said = self.distribution.output_size
        return layer_shapes("policy", (*sizes, said)) | layer_shapes("value", (*sizes, 1))

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        drawn, bound = {}, 0.0
        for name, shape in self.shapes.items():  # a weight (in, out), and then its bias (out)
            bound = shape[0] ** -0.5 if name.endswith(".weight") else bound
            drawn[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
        return drawn

    def features(self, theta: Parameters, inputs: Tensor) -> Tensor:
        return inputs

    def _says(self, theta: Parameters, name: str, rows: Tensor) -> Tensor:
        layers = len(self.hidden) + 1
        return mlp(theta, name, layers, rows, self.activation, differentiable=True)

    def outputs(self, theta: Parameters, features: Tensor, name: str = "policy") -> Tensor:
        return functional.log_softmax(self._says(theta, name, features), dim=-1)

    def value(self, theta: Parameters, features: Tensor, name: str = "value") -> Tensor:
        return self._says(theta, name, features).squeeze(-1)

    def acting(self, theta: Parameters, context: Tensor | None = None) -> Parameters:
        return {name: p.detach() for name, p in theta.items() if name.startswith("policy.")}


@dataclass(frozen=True)
class ClippedAdam(Adam):
    """Adam after each net's gradient is clipped by itself."""

    def step(self, parameters: Parameters, state: State, gradients: Parameters) -> Stepped:
        clipped: Parameters = {}
        for net in ("policy.", "value."):
            own = {name: g for name, g in gradients.items() if name.startswith(net)}
            clipped |= clip_by_norm(own, CLIP)
        return super().step(parameters, state, clipped)


# What moves γ


def slopes(rule: A2c, eta: Parameters, theta: Parameters, rollout: Rollout) -> Tensor:
    """[P, T] ∂g_η/∂γ"""
    with torch.no_grad(), forward.dual_level():
        fixed = {name: p.detach() for name, p in eta.items()}
        fixed[GAMMA] = forward.make_dual(fixed[GAMMA], torch.ones_like(fixed[GAMMA]))
        slope = forward.unpack_dual(rule.returns(fixed, theta, rollout)).tangent
    assert isinstance(slope, Tensor)
    return slope


def policy_gradient(
    rule: A2c, eta: Parameters, theta: Parameters, rollout: Rollout, weights: Tensor
) -> Tensor:
    """[P, |θ|] ∇_θ of the mean over steps of weights [P, T] times log π."""
    leaves = {name: p.detach().requires_grad_() for name, p in theta.items()}
    log_probs = rule.distribution.log_prob(
        rule.outputs(eta, leaves, rollout.observations), rollout.actions
    )
    mean = (weights.detach() * log_probs).mean(1).sum()
    found = torch.autograd.grad(mean, list(leaves.values()), materialize_grads=True)
    return torch.cat([g.reshape(len(g), -1) for g in found], 1)


@dataclass(frozen=True)
class Parts:
    """What Δγ is made of, each [P]: u = ∇_θ mean(∂g/∂γ · log π) on τ, w = the policy gradient on
    τ′ at θ′ with γ̄."""

    error: Tensor
    """mean of g(τ′) − v(s′), which weighs w"""
    cosine: Tensor
    """of u and w"""
    inner: Tensor
    """u · w"""


def decompose(
    rule: A2c, eta: Parameters, before: Parameters, after: Parameters, first: Rollout,
    second: Rollout,
) -> Parts:  # fmt: skip
    """Of the pair of τ, which θ = `before` learned from, and τ′, which judges θ′ = `after`."""
    with torch.no_grad():
        errors = rule.outer_returns(eta, after, second) - rule.values(
            eta, after, second.observations
        )
    u = policy_gradient(rule, eta, before, first, slopes(rule, eta, before, first))
    w = policy_gradient(rule, eta, after, second, errors)
    inner = (u * w).sum(1)
    return Parts(errors.mean(1), inner / (u.norm(dim=1) * w.norm(dim=1)), inner)


def line_11(
    rule: A2c, eta: Parameters, before: Parameters, after: Parameters, first: Rollout,
    second: Rollout,
) -> Tensor:  # fmt: skip
    """[P] by which γ rises, over α, as printed: ∂g_η(τ′)/∂η beside ∂log π of τ at θ, step by step,
    and g_η(τ′) − v_φ′(S′) with the γ that is learned."""
    with torch.no_grad():
        errors = rule.returns(eta, after, second) - rule.values(eta, after, second.observations)
    u = policy_gradient(rule, eta, before, first, slopes(rule, eta, after, second))
    return (u * policy_gradient(rule, eta, after, second, errors)).sum(1)


class Agents(RuleAgents):
    """P of them in one setting; they tell what Δγ was made of."""

    def __init__(
        self, rule: A2c, setting: Setting, meta_rate: float, seeds: LifetimeSeeds, starts: Tensor
    ) -> None:
        joint, moves = setting.joint, setting.way == "definition"
        update = Update(rule, Adam(RATE) if joint else ClippedAdam(RATE), CLIP if joint else None)
        tuning = Tuning(Sgd(meta_rate) if moves else None)
        super().__init__(update, tuning, seeds, "relu", eta={GAMMA: starts})
        self._a2c, self._way, self._meta_rate = rule, setting.way, meta_rate
        self._last: tuple[Parameters, Rollout] | None = None

    @property
    def theta(self) -> Parameters:
        """θ as it is, by name."""
        return {name: p.detach() for name, p in self._online.theta.items()}

    def stand(self, theta: Parameters) -> None:
        """From now on it is these that act."""
        self._policies.append((self.eta, theta))

    def learn(self, new: Transitions) -> Metrics:
        second, found = Rollout.of(new), {}
        if self._last is not None:
            pair = (self._a2c, self.eta, self._last[0], self.theta, self._last[1], second)
            parts = decompose(*pair)
            found = {"error": parts.error, "cosine": parts.cosine}
            # "definition" moves γ in `Online.learn`, at the same moment
            if self._way == "literal":
                self._raise(line_11(*pair))
            elif self._way == "formula":
                self._raise(parts.inner)
            elif self._way == "second":
                self._raise(-self._second(second))
        self._last = self.theta, second
        super().learn(new)
        return found

    def _raise(self, slope: Tensor) -> None:
        eta = self.eta
        self._online.eta = {**eta, GAMMA: eta[GAMMA] + self._meta_rate * slope}

    def _second(self, rollout: Rollout) -> Tensor:
        """[P] ∂J̄(τ′, θ′)/∂θ′ · ∂f/∂γ of the update by τ′ at θ′, down which γ goes."""
        eta, update = self.eta, self._online.update
        theta = {name: p.requires_grad_() for name, p in self.theta.items()}
        fixed = Fixed.of(eta, theta, theta, {})
        outer = self._a2c.outer(eta, theta, fixed, [rollout], update).sum()
        slopes_of = torch.autograd.grad(outer, list(theta.values()), materialize_grads=True)
        leaf = {name: p.requires_grad_() for name, p in eta.items()}
        moved, _ = update(leaf, theta, self._online.moments, rollout)
        each = zip(slopes_of, moved.values(), strict=True)
        return meta_gradient(torch.stack([(g * p).sum() for g, p in each]), leaf)[GAMMA]


# Lives, and what is written of them


@dataclass
class Course:
    """What became of P agents; the rows of an agent count up to its end."""

    returns: np.ndarray
    """[P, U] mean return of the episodes that ended in an iteration's steps; NaN where none did"""
    gamma: np.ndarray
    """[P, U] with which an iteration was played"""
    error: np.ndarray
    """[P, U], as `cosine`, of its steps and those before them; NaN in the first"""
    cosine: np.ndarray
    end: np.ndarray
    """[P] iterations until it was solved, left the finite, or the last"""
    solved: np.ndarray
    finite: np.ndarray
    fresh: np.ndarray
    """[P] mean return of FRESH episodes of the policy it ended with"""


def train(setting: Setting, runs: Sequence[int], iterations: int, meta_rate: float) -> Course:
    """P = γ₀ × seeds agents of a setting, each until an iteration's return is above SOLVED."""
    task = tasks.make("cart-pole")
    networks = TwoNetworks(task.observation_size, Categorical(2), (HIDDEN, HIDDEN), "relu")
    rule = A2c(
        networks, OUTER_GAMMA, 1.0, (GAMMA,), free=True, value_weight=1.0, entropy_weight=0.0
    )
    # all γ₀ of a seed share its start, resets and chance
    each = [LifetimeSeed(run, Purpose.EVALUATION, 0, 0) for run in runs]
    seeds = LifetimeSeeds(each, [i for _ in setting.starts for i in range(len(runs))])
    mdps = draw_mdps(task, seeds)
    environments = task.batch(mdps, [seed.rng(Stream.RESET) for seed in seeds.each()])
    starts = torch.tensor(setting.starts).repeat_interleave(len(runs))
    agents = Agents(rule, setting, meta_rate, seeds, starts)
    # an agent that has ended goes on in the batch, but nothing is noted of it
    size = len(seeds)
    names = ("returns", "gamma", "error", "cosine")
    noted = {name: np.full((size, iterations), np.nan) for name in names}
    end, solved, ended = np.full(size, iterations), np.zeros(size, bool), np.zeros(size, bool)
    last, running = agents.theta, np.zeros(size)
    step = first_step(environments.reset())
    for i in range(iterations):
        playing, gamma = agents.theta, agents.eta[GAMMA]
        new, step = act(agents.policy(), environments, step, STEPS)
        running, returned = episodes(running, new)
        told = {"returns": returned, "gamma": gamma, **agents.learn(new)}
        for name, numbers in told.items():
            noted[name][:, i] = numbers
        # who ends here keeps the θ that played
        stops = ~ended & ((returned > SOLVED) | agents.failed.numpy())
        solved |= stops & (returned > SOLVED)
        end[stops], ended = i + 1, ended | stops
        still = torch.from_numpy(~ended | stops)
        last = {n: torch.where(_like(still, p), playing[n], p) for n, p in last.items()}
        if ended.all():
            break
    agents.stand(last)
    fresh, _, _ = final_returns(agents, task, mdps, seeds, FRESH)
    return Course(**noted, end=end, solved=solved, finite=solved | ~ended, fresh=fresh.numpy())


def episodes(running: np.ndarray, new: Transitions) -> tuple[np.ndarray, np.ndarray]:
    """Return so far of the episodes that go on [P], and the mean of those that ended [P]."""
    total, count = np.zeros_like(running), np.zeros_like(running)
    done = (new.terminated | new.truncated).numpy()
    for reward, over in zip(new.rewards.numpy().T, done.T, strict=True):
        running = running + reward
        total, count = total + over * running, count + over
        running = running * ~over
    return running, np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _like(which: Tensor, leaf: Tensor) -> Tensor:
    return which.reshape(-1, *[1] * (leaf.ndim - 1))


def rounded(number: float) -> str:
    """Five digits; nothing for NaN."""
    return "" if math.isnan(number) else f"{number:.5g}"


def names_of(setting: Setting, runs: Sequence[int]) -> list[tuple[str, str, str]]:
    """[P] setting, γ₀ and seed."""
    return [(setting.name, f"{start:g}", str(run)) for start in setting.starts for run in runs]


def iterations(course: Course, p: int) -> Iterator[tuple[str, ...]]:
    """Rows of an agent, up to its end."""
    told = (course.returns, course.gamma, course.error, course.cosine)
    for i in range(course.end[p]):
        yield str(i + 1), *(rounded(each[p, i]) for each in told)


def summary(course: Course, p: int) -> tuple[str, ...]:
    """What became of an agent."""
    gamma = course.gamma[p, : course.end[p]]
    numbers = (gamma[-1], gamma.min(), gamma.max(), course.fresh[p])
    solved, finite = bool(course.solved[p]), int(course.finite[p])
    return str(course.end[p]) if solved else "", *map(rounded, numbers), str(finite)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--line-11", choices=tuple(LEFT_OUT), default="both")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="nine, and then others")
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--meta-rate", type=float, default=META_RATE)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    runs = (*SEEDS, 8, *range(10, options.seeds))[: options.seeds]
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        (options.out / "iterations.csv").open("w") as courses,
        (options.out / "summary.csv").open("w") as ends,
    ):
        rows, agents = (csv.writer(file, lineterminator="\n") for file in (courses, ends))
        rows.writerow(pictures.ITERATIONS)
        agents.writerow(pictures.SUMMARY)
        for setting in SETTINGS:
            if setting.way in LEFT_OUT[options.line_11]:
                continue
            began = time.process_time()
            course = train(setting, runs, options.iterations, options.meta_rate)
            for p, name in enumerate(names_of(setting, runs)):
                agents.writerow((*name, *summary(course, p)))
                if float(name[1]) in setting.shown:
                    rows.writerows((*name, *row) for row in iterations(course, p))
            print(f"{setting.name}: {time.process_time() - began:.0f} s of CPU", flush=True)
    pictures.draw(options.out)


if __name__ == "__main__":
    main()
