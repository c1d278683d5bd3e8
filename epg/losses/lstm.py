"""MetaGenRL's objective: an LSTM that goes backwards over pieces of episodes and says of every
step what the policy's present action there is worth (Kirsch et al. 2020, arXiv 1910.04098).

It knows neither the observations nor how many actions there are, so one objective fits any
continuous task. Shape letters: P agents, B pieces, T steps, A action, H units.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from epg.agents.deterministic import dense, standardised_rows
from epg.agents.network import Parameters
from epg.agents.pieces import Pieces
from epg.agents.spec import Shapes
from epg.agents.twice import half_squared

UNITS, SUMMARY = 32, 8
"""Of every layer; of the last one of the branch that sees no action."""
SCALE = 1e-3
"""The objective of a step stays within ± 1 / SCALE."""
SMALL = 1e-8
"""Added to variances."""
PIECE = 20.0
"""Steps that count as 1 in the input of time."""


@dataclass(frozen=True)
class LstmObjective:
    """How the objective is computed; each switch is False where it is as in the released code.

    Parameters by name: action, other, lstm, out; each [P, …].
    """

    mask_values_first: bool = True
    """what follows an end is worth 0 before values are standardised, not the mean after it (D1)"""
    start_at_length: bool = True
    """the LSTM starts where a piece ends, not in its padding (D5)"""
    exact_norm: bool = True
    """second derivatives of layer norms are exact (D11)"""
    without: tuple[str, ...] = ()
    """inputs that are 0: time, value, next_value (the paper's figure 5)"""

    @property
    def shapes(self) -> Shapes:
        """15,497 numbers."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name, sizes, normed in (
            ("action", (2, UNITS, UNITS, UNITS), 3),
            ("other", (4, UNITS, UNITS, SUMMARY), 0),
            ("out", (UNITS, UNITS, UNITS, 1), 2),
        ):
            for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
                layer = f"{name}.{i}"
                shapes |= {f"{layer}.weight": (inputs, outputs), f"{layer}.bias": (outputs,)}
                if i < normed:
                    shapes |= {f"{layer}.gain": (outputs,), f"{layer}.shift": (outputs,)}
        seen = UNITS + SUMMARY
        lstm = {"lstm.weight": (seen + UNITS, 4 * UNITS), "lstm.bias": (4 * UNITS,)}
        return shapes | lstm

    def judge(
        self, parameters: Parameters, pieces: Pieces, actions: Tensor, values: Tensor
    ) -> Tensor:
        """[P, B, T] the objective of every step, padding included.

        actions: [P, B, T, A] of the policy as it is, through which alone it learns; values:
        [P, B, T + 1], through which it does not.
        """
        agents, count, steps, size = actions.shape
        # what is seen of the actions: pairs of the replayed and the present one, whichever many
        pairs = torch.stack((pieces.actions, actions), dim=-1).reshape(agents, -1, 2)
        pairs = self._layers(parameters, "action", 3, pairs)
        sums = pairs.reshape(agents, -1, size, UNITS).sum(2)
        gain, shift = (parameters[f"action.2.{kind}"].unsqueeze(1) for kind in ("gain", "shift"))
        seen_actions = torch.addcmul(shift, sums, gain / size)
        # what is seen besides: reward, time, the next value, the present one
        others = self._others(pieces, values.detach()).reshape(agents, -1, 4)
        for i in range(2):
            others = half_squared(dense(parameters, f"other.{i}", others))
        others = dense(parameters, "other.2", others)
        # backwards over the steps, then what comes of each
        seen = torch.cat((seen_actions, others), dim=-1).reshape(agents, count, steps, -1)
        remembered = self._backwards(parameters, seen, pieces.lengths)
        rows = self._layers(parameters, "out", 2, remembered.reshape(agents, -1, UNITS))
        judged = torch.tanh(SCALE * dense(parameters, "out.2", rows, "out.1")) / SCALE
        return judged.reshape(agents, count, steps)

    def _others(self, pieces: Pieces, values: Tensor) -> Tensor:
        """[P, B, T, 4]"""
        going_on = 1 - pieces.ended
        mean, spread = _moments(values)
        present = (values[..., :-1] - mean) / spread
        if self.mask_values_first:
            following = (values[..., 1:] * going_on - mean) / spread
        else:
            following = (values[..., 1:] - mean) / spread * going_on
        time = torch.arange(values.shape[-1] - 1, dtype=values.dtype, device=values.device) / PIECE
        seen = {
            "reward": standardised(pieces.rewards), "time": time.expand_as(present),
            "next_value": following, "value": present,
        }  # fmt: skip
        return torch.stack(
            [torch.zeros_like(x) if n in self.without else x for n, x in seen.items()], dim=-1
        )

    def _layers(self, parameters: Parameters, name: str, count: int, rows: Tensor) -> Tensor:
        """What comes of the first layers of a branch, without the last one's gain and shift."""
        normed = None
        for layer in (f"{name}.{i}" for i in range(count)):
            active = half_squared(dense(parameters, layer, rows, normed))
            rows, normed = standardised_rows(active, self.exact_norm), layer
        return rows

    def _backwards(self, parameters: Parameters, seen: Tensor, lengths: Tensor) -> Tensor:
        """[P, B, T, H] what the LSTM puts out, of [P, B, T, inputs]."""
        agents, count, steps, inputs = seen.shape
        weight, bias = parameters["lstm.weight"], parameters["lstm.bias"].unsqueeze(1)
        known = torch.baddbmm(bias, seen.reshape(agents, -1, inputs), weight[:, :inputs])
        known_at = known.reshape(agents, count, steps, 4 * UNITS).unbind(2)
        hidden = cell = seen.new_zeros(agents, count, UNITS)
        outputs = []
        for step in range(steps - 1, -1, -1):
            # gates in the order of the released code's kernel; the bias of forgetting is 1 more
            gates = torch.baddbmm(known_at[step], hidden, weight[:, inputs:])
            enter, candidate, forget, leave = gates.chunk(4, dim=-1)
            kept = torch.sigmoid(forget + 1) * cell
            new_cell = kept + torch.sigmoid(enter) * torch.tanh(candidate)
            new_hidden = torch.sigmoid(leave) * torch.tanh(new_cell)
            started = step if self.start_at_length else steps - 1 - step
            active = (started < lengths).unsqueeze(-1)
            hidden = torch.where(active, new_hidden, hidden)
            cell = torch.where(active, new_cell, cell)
            outputs.append(torch.where(active, new_hidden, torch.zeros_like(new_hidden)))
        return torch.stack(outputs[::-1], dim=2)


def standardised(values: Tensor) -> Tensor:
    """[P, …] with mean 0 and variance 1 for each agent, padding included."""
    mean, spread = _moments(values)
    return (values - mean) / spread


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    axes = tuple(range(1, values.ndim))
    mean = values.mean(axes, keepdim=True)
    spread = (values - mean).square().mean(axes, keepdim=True)
    return mean, (spread + SMALL).sqrt()
