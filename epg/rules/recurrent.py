"""An LSTM that goes backwards over rollouts, of P agents' own weights, differentiable any number of
times.

Shape letters: P agents, T steps, I inputs, L units.
"""

from __future__ import annotations

import torch
from torch import Tensor


def backward_lstm(
    inputs: Tensor, joined: Tensor, weight: Tensor, recurrent: Tensor, bias: Tensor
) -> Tensor:
    """[P, T, L] what it puts out for each row of inputs [P, T, I], from the last to the first.

    joined: [P, T] whether the next row is the step that followed; where it is not, the LSTM begins
    anew. weight: [P, 4L, I], recurrent: [P, 4L, L], bias: [P, 4L], for gates i, f, g, o.
    """
    agents, steps, _ = inputs.shape
    units = recurrent.shape[-1]
    known = torch.baddbmm(bias.unsqueeze(1), inputs, weight.transpose(1, 2))
    hidden = cell = inputs.new_zeros(agents, units)
    outputs = []
    for step in range(steps - 1, -1, -1):
        goes_on = joined[:, step].unsqueeze(1).to(inputs.dtype)
        hidden, cell = hidden * goes_on, cell * goes_on
        gates = known[:, step] + torch.bmm(recurrent, hidden.unsqueeze(-1)).squeeze(-1)
        enter, forget, candidate, leave = gates.chunk(4, dim=-1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(candidate)
        hidden = torch.sigmoid(leave) * torch.tanh(cell)
        outputs.append(hidden)
    return torch.stack(outputs[::-1], 1)
