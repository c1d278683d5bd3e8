"""The loss, PPO and the update against numbers of the original implementation.

What the arrays are: tests/epg_vectors/README.md. Each file is lived by two agents at once,
so that the batch is tested with the numbers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from epg.agents.actor_critic import Experience
from epg.agents.buffer import Transitions
from epg.agents.released import ReleasedActorCritic, ReleasedAdam
from epg.agents.spec import AgentSpec
from epg.losses.released import ReleasedPpo, ReleasedTemporalConv
from epg.losses.temporal_conv import TemporalConvLoss
from epg.losses.weighted_sum import WeightedSum
from epg.settings import Named

VECTORS = Path(__file__).parent.parent / "epg_vectors"
NAMES = sorted(path.stem for path in VECTORS.glob("*.npz"))
LAYERS = {
    "traj_c0": "conv0", "traj_c1": "conv1", "traj_d0": "context",
    "loss_d0": "step", "loss_d1": "output",
}  # fmt: skip
P = 2


def close(ours: torch.Tensor, theirs: np.ndarray, what: str) -> None:
    """1e-4 relative, 1e-5 absolute where values are tiny; the same in every agent."""
    for agent in range(P):
        np.testing.assert_allclose(
            ours[agent].detach().numpy(), theirs, rtol=1e-4, atol=1e-5, err_msg=what
        )


def name_of(key: str) -> str:
    """`policy.W0` → `policy.0.weight`, as our parameters are called."""
    if key == "logstd":
        return "policy.log_std"
    network, short = key.split(".")
    kind = {"W": "weight", "b": "bias"}[short[0]]
    return f"{network}.{short[1:] or 0}.{kind}"


def laid_out(array: np.ndarray) -> np.ndarray:
    """Their weights are (out, in), ours (in, out)."""
    return array.T if array.ndim == 2 else array


def group(data: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {
        name_of(key.removeprefix(prefix)): laid_out(array)
        for key, array in data.items()
        if key.startswith(prefix)
    }


@pytest.fixture(params=NAMES)
def data(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    with np.load(VECTORS / f"{request.param}.npz") as arrays:
        return dict(arrays)


def loss_of(data: dict[str, np.ndarray], spec: AgentSpec) -> TemporalConvLoss:
    named = Named(name="temporal_conv")
    layout = ReleasedTemporalConv(named, spec, int(data["buffer_size"]))
    theirs = {LAYERS[key[6:-2]] + "." + {"W": "weight", "b": "bias"}[key[-1]]: array
              for key, array in data.items() if key.startswith("theta/")}  # fmt: skip
    assert {name: array.shape for name, array in theirs.items()} == layout.shapes
    params = {n: torch.from_numpy(a).repeat(P, *[1] * a.ndim) for n, a in theirs.items()}
    return TemporalConvLoss(layout, params)


def test_every_array_is_reproduced(data: dict[str, np.ndarray]) -> None:
    spec = AgentSpec(int(data["obs_dim"]), int(data["act_dim"]), discrete=False)
    learned, alpha = loss_of(data, spec), float(data["ppo_factor"])
    before, after = group(data, "before/"), group(data, "after/")
    parameters = {
        name: torch.from_numpy(before.get(name, np.zeros(shape, np.float32)).copy()).repeat(
            P, *[1] * len(shape)
        )
        for name, shape in spec.shapes().items()
    }
    agents = ReleasedActorCritic(spec, parameters, train_memory=bool(data["use_memory"]))
    adam = ReleasedAdam(agents, float(data["inner_lr"]))
    ppo = ReleasedPpo()
    weighted = WeightedSum([(1 - alpha, learned), (alpha, ppo)])
    buffer = agents.buffer(int(data["buffer_size"]))
    size, step, start = int(data["minibatch"]), int(data["update_every"]), int(data["filled"])
    lived = slices(data, start, 0)
    count, kls, epg_losses = 0, [], []

    for update in range(int(data["updates"])):
        if update == 0 and start > step:
            buffer.append(slices(data, start - step, 0))
            lived = slices(data, step, start - step)
        elif update > 0:
            lived = slices(data, step, start + step * (update - 1))
        experience = agents.remember(buffer, lived)
        which = "trajectory_update0" if update == 0 else "trajectory_last_update"
        trajectory = trajectory_of(experience)
        close(trajectory, data[which], which)
        reader = learned.reader(trajectory, step)
        objective = weighted.objective(agents, experience)
        learned_alone = learned.objective(agents, experience)
        ppo_alone = ppo.objective(agents, experience)
        for rows in torch.from_numpy(data["permutations"][update]).split(size):
            rows = rows.repeat(P, 1)
            outputs = agents.outputs(experience.observations)
            value = learned_alone(outputs, rows)
            close(value, data["epg_loss_per_minibatch"][count], f"EPG loss {count}")
            epg_losses.append(value[0].item())
            context = reader.context(agents.distribution.features(outputs), agents.memory())
            close(context[:, 0], data["context_per_minibatch"][count], f"context {count}")
            if data["use_ppo"]:
                value = ppo_alone(outputs, rows)
                close(value, data["ppo_loss_per_minibatch"][count], f"PPO loss {count}")
            adam.descend(objective(outputs, rows))
            if count == 0:
                for name, gradient in group(data, "grad_minibatch0/").items():
                    close(agents.parameters[name].grad, gradient, f"gradient of {name}")
            count += 1
        new = agents.outputs(experience.observations[:, -step:])
        kls.append(agents.distribution.kl(experience.old_outputs, new).mean(1))
    for name, array in after.items():
        close(agents.parameters[name], array, name)
    for update, kl in enumerate(kls):
        close(kl, data["kl_per_update"][update], f"KL of update {update}")
    means = np.reshape(epg_losses, (len(kls), -1)).mean(1)
    np.testing.assert_allclose(means, data["mean_epg_loss_per_update"], rtol=1e-4, atol=1e-5)


def trajectory_of(e: Experience) -> torch.Tensor:
    """What the loss is told of each row but the policy's outputs and memory, [P, N, F]."""
    assert e.auxiliary is not None
    single = (e.rewards, e.auxiliary, e.dones)
    return torch.cat([e.observations, e.actions, *(c[..., None] for c in single)], dim=-1)


def slices(data: dict[str, np.ndarray], count: int, start: int) -> Transitions:
    """`count` transitions from `start` on, for each agent."""

    def rows(key: str) -> torch.Tensor:
        return torch.from_numpy(data[key][start : start + count]).repeat(P, *[1] * data[key].ndim)

    dones = rows("dones").bool()
    return Transitions(
        rows("obs"), rows("acts"), rows("rews"), dones, torch.zeros_like(dones), rows("obs")
    )
