"""LPG: an update rule that is a network, which reads rollouts backwards and says what policy and
predictions should become (Oh et al. 2020, arXiv 2007.08794).

Shape letters: P agents, W environments of each, T steps, m numbers of a prediction, H units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from epg.agents.network import Parameters, draw_layer, mlp
from epg.agents.spec import Shapes
from epg.rules.rollout import Rollout

SMALL = 1e-8
"""Added to probabilities within logarithms."""


class Said(NamedTuple):
    """What the rule says of every step."""

    policy: Tensor
    """[P, W, T] π̂: how strongly the action's probability should rise (fall where it is below 0)"""
    prediction: Tensor
    """[P, W, T, m] ŷ: what the prediction of the state should be"""


@dataclass(frozen=True)
class LpgNetworks:
    """Policies and predictions of agents, each a network of its own; without layers and biases they
    are tables."""

    observation_size: int
    actions: int
    hidden: tuple[int, ...] = ()
    predictions: int = 30
    """m"""

    @property
    def shapes(self) -> Shapes:
        """Of one agent."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name, size in (("policy", self.actions), ("prediction", self.predictions)):
            sizes = (self.observation_size, *self.hidden, size)
            for i in range(len(sizes) - 1):
                shapes[f"{name}.{i}.weight"] = sizes[i : i + 2]
                if self.hidden:
                    shapes[f"{name}.{i}.bias"] = sizes[i + 1 : i + 2]
        return shapes

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One agent's parameters at first: tables of 0; weights of norm 1 from an input, in last
        layers of norm 0.01, and biases 0."""
        return {
            name: draw_layer(rng, shape, 0.01 if f".{len(self.hidden)}." in name else 1.0)
            if self.hidden and len(shape) > 1
            else np.zeros(shape, np.float32)
            for name, shape in self.shapes.items()
        }

    def probabilities(self, theta: Parameters, name: str, observations: Tensor) -> Tensor:
        """[P, R, n] a softmax of what a network says of observations [P, R, O]; of a table also
        by the numbers of states, [P, R] int64."""
        if not self.hidden:
            table = theta[f"{name}.0.weight"]
            if observations.dtype != torch.int64:
                return torch.softmax(torch.bmm(observations, table), -1)
            agents, states, size = table.shape
            first = states * torch.arange(agents, device=table.device).unsqueeze(1)
            rows = table.reshape(-1, size).index_select(0, (first + observations).flatten())
            return torch.softmax(rows.reshape(agents, -1, size), -1)
        layers = len(self.hidden) + 1
        said = mlp(theta, name, layers, observations, "relu", differentiable=True)
        return torch.softmax(said, -1)


@dataclass(frozen=True)
class Lpg:
    """The rule. η by name, each [P, …] or [1, …], one for all agents: embed.0, embed.1 (φ),
    gru.reset, gru.update, gru.new, policy, prediction."""

    networks: LpgNetworks
    environments: int
    """W"""
    units: int = 256
    """H"""
    embedded: int = 16
    """of φ's layer"""
    ages: bool = False
    """whether it reads how far the life is, n/N, and how long, log N (Jackson et al. 2024)"""
    prediction_weight: float | Tensor = 0.5
    """α_y, one for all or [P]"""

    @property
    def shapes(self) -> Shapes:
        """Of η."""
        inputs, units, m = 5 + 2 * self.ages, self.units, self.networks.predictions
        shapes: dict[str, tuple[int, ...]] = {
            "embed.0.weight": (m, self.embedded), "embed.0.bias": (self.embedded,),
            "embed.1.weight": (self.embedded, 1), "embed.1.bias": (1,),
        }  # fmt: skip
        for gate in ("reset", "update", "new"):
            shapes |= {
                f"gru.{gate}.weight": (inputs, units), f"gru.{gate}.bias": (units,),
                f"gru.{gate}.recurrent": (units, units),
            }  # fmt: skip
        shapes["gru.new.recurrent_bias"] = (units,)
        for name, size in (("policy", 1), ("prediction", m)):
            shapes |= {f"{name}.weight": (units, size), f"{name}.bias": (size,)}
        return shapes

    def init_eta(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Weights with variance 1 / inputs, biases 0."""
        return {
            name: (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
            if len(shape) > 1
            else np.zeros(shape, np.float32)
            for name, shape in self.shapes.items()
        }

    # What the rule says of a rollout

    def said(
        self, eta: Parameters, frozen: Parameters, rollout: Rollout, age: Tensor | None = None
    ) -> Said:
        """Of the W·T rows of a rollout, environment by environment; age: [P, 2] n/N and log N."""
        chosen = self._chosen(frozen, rollout) + SMALL  # as GROOVE's
        y = self.networks.probabilities(frozen, "prediction", rollout.observations)
        after = self.networks.probabilities(frozen, "prediction", rollout.next_observations)
        each = (
            self._by_environment(x)
            for x in (rollout.rewards, self.ended(rollout), chosen, y, after)
        )
        rewards, ended, seen, present, later = each
        return self.read(eta, rewards, ended, seen, present, later, age)

    def read(
        self, eta: Parameters, rewards: Tensor, ended: Tensor, chosen: Tensor, y: Tensor,
        after: Tensor, age: Tensor | None = None,
    ) -> Said:  # fmt: skip
        """The same of [P, W, T] rewards, ends, probabilities of the actions taken, and predictions
        [P, W, T, m] of each state and the next one."""
        agents, environments, steps = rewards.shape
        # inputs of every step; nothing follows an end
        seen, later = (self._embedded(eta, predictions) for predictions in (y, after))
        inputs = torch.stack((rewards, ended, chosen, seen, later * (1 - ended)), -1)
        if self.ages:
            assert age is not None
            known = age.reshape(agents, 1, 1, 2).expand(-1, environments, steps, -1)
            inputs = torch.cat((inputs, known), -1)
        # backwards, begun anew at the end of an episode before that step is read
        remembered = self._backwards(eta, inputs, ended)
        rows = torch.relu(remembered).reshape(agents, environments * steps, self.units)
        policy = _dense(eta, "policy", rows).reshape(agents, environments, steps)
        prediction = torch.softmax(_dense(eta, "prediction", rows), -1)
        return Said(policy, prediction.reshape(agents, environments, steps, -1))

    def _by_environment(self, rows: Tensor) -> Tensor:
        """[P, W, T, …] of [P, W·T, …]."""
        return rows.reshape(len(rows), self.environments, -1, *rows.shape[2:])

    def ended(self, rollout: Rollout) -> Tensor:
        """[P, W·T] 1 where an episode ended with the step, by the MDP or by its time limit."""
        if rollout.truncated is not None:
            return torch.maximum(1 - rollout.going_on, rollout.truncated)
        joined = self._by_environment(rollout.joined).clone()
        joined[..., -1] = True
        return torch.maximum(1 - rollout.going_on, (~joined).flatten(1).to(rollout.rewards.dtype))

    def _chosen(self, theta: Parameters, rollout: Rollout) -> Tensor:
        """[P, W·T] the probability of each action taken."""
        each = self.networks.probabilities(theta, "policy", rollout.observations)
        return each.gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1)

    def _embedded(self, eta: Parameters, predictions: Tensor) -> Tensor:
        """[P, W, T] φ of predictions."""
        rows = predictions.flatten(1, 2)
        hidden = torch.relu(_dense(eta, "embed.0", rows))
        return _dense(eta, "embed.1", hidden).reshape(predictions.shape[:3])

    def _backwards(self, eta: Parameters, inputs: Tensor, ended: Tensor) -> Tensor:
        """[P, W, T, H] a GRU's states."""
        agents, environments, steps, _ = inputs.shape
        rows = inputs.flatten(1, 2)
        known = [
            _dense(eta, f"gru.{gate}", rows).reshape(agents, environments, steps, -1)
            for gate in ("reset", "update", "new")
        ]
        recurrent = torch.cat([eta[f"gru.{g}.recurrent"] for g in ("reset", "update", "new")], -1)
        bias = eta["gru.new.recurrent_bias"].unsqueeze(1)
        state = inputs.new_zeros(agents, environments, self.units)
        states = []
        for step in range(steps - 1, -1, -1):
            state = state * (1 - ended[:, :, step]).unsqueeze(-1)
            parts = _times(state, recurrent).chunk(3, -1)
            reset = torch.sigmoid(known[0][:, :, step] + parts[0])
            update = torch.sigmoid(known[1][:, :, step] + parts[1])
            new = torch.tanh(known[2][:, :, step] + reset * (parts[2] + bias))
            state = (1 - update) * new + update * state
            states.append(state)
        return torch.stack(states[::-1], 2)

    # What agents go down

    def loss_of(self, said: Said, theta: Parameters, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """[P] of the policy, −mean(π̂ log π(a|s)), and of predictions, mean KL(y ‖ ŷ)."""
        log_chosen = self._by_environment(self.log_chosen(theta, rollout))
        y = self._by_environment(
            self.networks.probabilities(theta, "prediction", rollout.observations)
        )
        divergence = (y * (torch.log(y + SMALL) - torch.log(said.prediction + SMALL))).sum(-1)
        return -(said.policy * log_chosen).mean((1, 2)), divergence.mean((1, 2))

    def entropies(self, theta: Parameters, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """[P] of policies and of predictions, means over the rows of a rollout."""
        found = []
        for name in ("policy", "prediction"):
            each = self.networks.probabilities(theta, name, rollout.observations) + SMALL
            found.append(-(each * torch.log(each)).sum(-1).mean(1))
        return found[0], found[1]

    def log_chosen(self, theta: Parameters, rollout: Rollout) -> Tensor:
        """[P, W·T] log-probabilities of the actions taken."""
        return torch.log(self._chosen(theta, rollout) + SMALL)


def _dense(eta: Parameters, name: str, rows: Tensor) -> Tensor:
    """A linear layer on [P, R, in]; of η for all agents, or each its own."""
    return _times(rows, eta[f"{name}.weight"]) + eta[f"{name}.bias"].unsqueeze(1)


def _times(rows: Tensor, weight: Tensor) -> Tensor:
    """[P, R, out] of rows [P, R, in] and weights [P, in, out], or [1, in, out] for all, which is
    one product in half the time."""
    return rows @ weight[0] if len(weight) == 1 else torch.bmm(rows, weight)
