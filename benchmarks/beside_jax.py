"""What an update of LPG's rule costs here and in JAX, in CPU time, one core, compilation apart.

    pip install 'epg[jax]'
    taskset -c 0 python benchmarks/beside_jax.py                # agents with tables; GRU of 256
    taskset -c 0 python benchmarks/beside_jax.py --networks

64 agents of 16 environments, rollouts of 20 steps, K = 5: the updates of all agents and the rule's
gradient through them, of the same rollouts; no environment steps. JAX's side is written from the
equations of docs/methods/lpg.md. First both gradients are compared (of networks, whose Adam divides
by the size of small gradients, they agree to some per cent in float32 alone); then medians of 5
rounds, both sides in turn. Shape letters: P agents, W environments, T steps, O observation.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)

import jax
import jax.numpy as jnp
import numpy as np
import torch

from epg.agents.optimizers import Adam, Sgd
from epg.rules.lpg import Lpg, LpgNetworks
from epg.rules.lpg_gradient import Apart, LpgGradient, Regularisers
from epg.rules.rollout import Rollout

P, W, T, K, HIDDEN, M = 64, 16, 20, 5, 32, 8
TABLE_RATE, CLIP, NETWORK_RATE, WEIGHT, SMALL = 40.0, 0.5, 1e-3, 0.5, 1e-8
COUNTS = {"tables": (1936, 5), "networks": (105, 5)}
"""States or observations, and actions: grid-dense, random-grid-small."""
ROUNDS = 5
Arrays = dict[str, Any]


# JAX's side


def chosen_networks(theta: Arrays, name: str, seen: Any) -> Any:
    """[P, W, T, n] probabilities of a table or a network."""
    if f"{name}.1.weight" not in theta:
        rows = jax.vmap(lambda table, places: table[places])(theta[f"{name}.0.weight"], seen)
        return jax.nn.softmax(rows)
    below = jnp.einsum("pwto,poh->pwth", seen, theta[f"{name}.0.weight"])
    below = jax.nn.relu(below + theta[f"{name}.0.bias"][:, None, None])
    said = jnp.einsum("pwth,phn->pwtn", below, theta[f"{name}.1.weight"])
    return jax.nn.softmax(said + theta[f"{name}.1.bias"][:, None, None])


def dense(eta: Arrays, name: str, rows: Any) -> Any:
    return rows @ eta[f"{name}.weight"][0] + eta[f"{name}.bias"][0]


def rule(eta: Arrays, theta: Arrays, ro: Arrays) -> tuple[Any, Any]:
    """π̂ [P, W, T] and ŷ [P, W, T, m]."""

    def embedded(y: Any) -> Any:
        return dense(eta, "embed.1", jax.nn.relu(dense(eta, "embed.0", y)))[..., 0]

    pi = taken(theta, ro) + SMALL
    present = embedded(chosen_networks(theta, "prediction", ro["obs"]))
    later = embedded(chosen_networks(theta, "prediction", ro["after"]))
    inputs = jnp.stack((ro["r"], ro["done"], pi, present, later * (1 - ro["done"])), -1)
    gates = [dense(eta, f"gru.{gate}", inputs) for gate in ("reset", "update", "new")]
    whole = jnp.concatenate([eta[f"gru.{g}.recurrent"][0] for g in ("reset", "update", "new")], -1)
    bias = eta["gru.new.recurrent_bias"][0]

    def step(state: Any, at: Any) -> tuple[Any, Any]:
        known, done = at
        state = state * (1 - done)[..., None]
        parts = jnp.split(state @ whole, 3, -1)
        reset = jax.nn.sigmoid(known[0] + parts[0])
        update = jax.nn.sigmoid(known[1] + parts[1])
        new = jnp.tanh(known[2] + reset * (parts[2] + bias))
        state = (1 - update) * new + update * state
        return state, state

    over = ([jnp.moveaxis(g, 2, 0) for g in gates], jnp.moveaxis(ro["done"], 2, 0))
    start = jnp.zeros((P, W, whole.shape[0]), jnp.float32)
    _, states = jax.lax.scan(step, start, over, reverse=True)
    rows = jax.nn.relu(jnp.moveaxis(states, 0, 2))
    return dense(eta, "policy", rows)[..., 0], jax.nn.softmax(dense(eta, "prediction", rows))


def taken(theta: Arrays, ro: Arrays) -> Any:
    each = chosen_networks(theta, "policy", ro["obs"])
    return jnp.take_along_axis(each, ro["action"][..., None], -1)[..., 0]


def inner(theta: Arrays, said: tuple[Any, Any], ro: Arrays) -> Any:
    y = chosen_networks(theta, "prediction", ro["obs"])
    divergence = (y * (jnp.log(y + SMALL) - jnp.log(said[1] + SMALL))).sum(-1)
    loss = -(said[0] * jnp.log(taken(theta, ro) + SMALL)).mean((1, 2))
    return (loss + WEIGHT * divergence.mean((1, 2))).sum()


def stepped(theta: Arrays, moments: Arrays, gradient: Arrays, count: int) -> tuple[Arrays, Arrays]:
    """SGD with each table's gradient clipped, or Adam whose denominator counts as constant."""
    if not moments:
        norms = {n: jnp.sqrt((g**2).sum((1, 2), keepdims=True)) for n, g in gradient.items()}
        clipped = {
            n: jnp.where(norms[n] <= CLIP, g, g * CLIP / jnp.maximum(norms[n], CLIP))
            for n, g in gradient.items()
        }
        return {n: p - TABLE_RATE * clipped[n] for n, p in theta.items()}, moments
    after, moved = {}, {}
    for name, p in theta.items():
        mean, square = moments[name]
        mean = 0.9 * mean + 0.1 * gradient[name]
        square = 0.999 * square + 0.001 * jax.lax.stop_gradient(gradient[name]) ** 2
        after[name] = mean, square
        root = jnp.sqrt(square / (1 - 0.999**count)) + 1e-8
        moved[name] = p - NETWORK_RATE * mean / (1 - 0.9**count) / root
    return moved, after


def entropy(theta: Arrays, name: str, ro: Arrays) -> Any:
    each = chosen_networks(theta, name, ro["obs"]) + SMALL
    return -(each * jnp.log(each)).sum(-1).mean()


def outer(eta: Arrays, theta: Arrays, moments: Arrays, rollouts: list[Arrays], gained: Any) -> Any:
    weights, total = Regularisers(), 0.0
    for k in range(K):
        said = rule(eta, theta, rollouts[k])
        gradient = jax.grad(inner)(theta, said, rollouts[k])
        theta, moments = stepped(theta, moments, gradient, k + 1)
        total += (
            weights.policy_size * (said[0] ** 2).mean()
            + weights.prediction_size * (said[1] ** 2).sum(-1).mean()
            - weights.policy_entropy * entropy(theta, "policy", rollouts[k])
            - weights.prediction_entropy * entropy(theta, "prediction", rollouts[k])
        ) / K
    return total - (gained * jnp.log(taken(theta, rollouts[K]) + SMALL)).mean()


# Ours, the same rollouts for both, and the clock


def drawn(kind: str) -> tuple[Lpg, dict[str, np.ndarray], Arrays, list[Arrays], np.ndarray]:
    """The rule, η, θ, K + 1 rollouts and the advantages of the last one."""
    rng, (size, actions) = np.random.default_rng(0), COUNTS[kind]
    networks = LpgNetworks(size, actions, (HIDDEN,) if kind == "networks" else (), M)
    rule_of_ours = Lpg(networks, W, prediction_weight=WEIGHT)
    eta = {n: a[None] for n, a in rule_of_ours.init_eta(rng).items()}
    each = [networks.init(rng) for _ in range(P)]
    theta = {n: np.stack([e[n] for e in each]) for n in each[0]}

    def seen() -> np.ndarray:
        if kind == "tables":
            return rng.integers(0, size, (P, W, T))
        return (rng.random((P, W, T, size)) < 0.05).astype(np.float32)

    rollouts = [
        {
            "obs": seen(), "after": seen(), "action": rng.integers(0, actions, (P, W, T)),
            "r": rng.standard_normal((P, W, T)).astype(np.float32),
            "done": (rng.random((P, W, T)) < 0.05).astype(np.float32),
        }
        for _ in range(K + 1)
    ]  # fmt: skip
    return rule_of_ours, eta, theta, rollouts, rng.standard_normal((P, W, T)).astype(np.float32)


def ours(kind: str, together: int) -> Callable[[], dict[str, np.ndarray]]:
    """The gradient by units of so many agents."""
    lpg, eta, theta, rollouts, gained = drawn(kind)
    if lpg.networks.hidden:
        parts: Any = dict.fromkeys(("policy", "prediction"), Adam(NETWORK_RATE))
        optimizer = Apart(parts)
    else:
        parts = dict.fromkeys(("policy", "prediction"), Sgd(TABLE_RATE))
        optimizer = Apart(parts, CLIP)
    learner = LpgGradient(lpg, optimizer)

    def part(first: int) -> dict[str, np.ndarray]:
        rows = slice(first, first + together)
        mine = {n: torch.from_numpy(p[rows].copy()) for n, p in theta.items()}
        lived = [_rollout({n: torch.from_numpy(a[rows]) for n, a in r.items()}) for r in rollouts]
        numbers = {n: torch.from_numpy(a).requires_grad_() for n, a in eta.items()}
        start = optimizer.init(mine)
        learned, _, noted = learner.updates(numbers, mine, start, lived[:-1])
        advantages = torch.from_numpy(gained[rows]).flatten(1)
        loss = learner.loss(learned, noted, lived[-1], advantages).sum() / P
        found = torch.autograd.grad(loss, list(numbers.values()))
        return {n: g.numpy() for n, g in zip(numbers, found, strict=True)}

    def whole() -> dict[str, np.ndarray]:
        parts = [part(first) for first in range(0, P, together)]
        return {name: np.sum([each[name] for each in parts], 0) for name in parts[0]}

    return whole


def _rollout(r: dict[str, torch.Tensor]) -> Rollout:
    joined = r["done"] == 0
    joined[..., -1] = False
    return Rollout(
        r["obs"].flatten(1, 2), r["action"].flatten(1, 2), r["r"].flatten(1, 2),
        1 - r["done"].flatten(1, 2), joined.flatten(1, 2), r["after"].flatten(1, 2),
        truncated=torch.zeros_like(r["done"].flatten(1, 2)),
    )  # fmt: skip


def theirs(kind: str) -> Callable[[], dict[str, np.ndarray]]:
    _, eta, theta, rollouts, gained = drawn(kind)
    given = jax.tree.map(jnp.asarray, (eta, theta, rollouts, gained))
    numbers, start, lived, advantages = given
    moments = {}
    if kind == "networks":
        moments = {n: (jnp.zeros_like(p), jnp.zeros_like(p)) for n, p in start.items()}
    compiled = jax.jit(jax.grad(outer))

    def whole() -> dict[str, np.ndarray]:
        found = compiled(numbers, start, moments, lived, advantages)
        return {name: np.asarray(gradient) for name, gradient in found.items()}

    return whole


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", action="store_true", help="instead of tables")
    parser.add_argument("--together", type=int, default=16, help="agents of a unit of ours")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kind = "networks" if arguments.networks else "tables"
    sides = {"here": ours(kind, arguments.together), "JAX": theirs(kind)}
    gradients = {name: side() for name, side in sides.items()}  # and compilation
    off = max(
        float(np.abs(gradients["here"][n] - g).max() / np.abs(g).max())
        for n, g in gradients["JAX"].items()
    )
    print(f"{kind}: largest difference of the gradients, of their largest entries: {off:.1e}")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            begun = time.process_time()
            side()
            seconds[name].append(time.process_time() - begun)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    for name, median in medians.items():
        print(f"{name}: {median:.2f} s of CPU")
    print(f"here / JAX {jax.__version__}: {medians['here'] / medians['JAX']:.2f}")


if __name__ == "__main__":
    main()
