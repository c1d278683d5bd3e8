"""A learned loss as a module of torch, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from epg.errors import UserError
from epg.losses.temporal_conv import SHORTEST_BUFFER, TemporalConv, TemporalConvLoss
from epg.methods.epg import Epg
from epg.methods.saved import Saved, load


class LossModule(nn.Module):
    """An evolved temporal convolution for a training loop of one's own.

    Attributes: `alpha`, the weight of PPO beside it at the end of its training; `spec`, the sizes
    of the agents it is for; `saved`, all that its file says. Its parameters are buffers: optimisers
    leave them alone.
    """

    def __init__(self, saved: Saved) -> None:
        """Raises `UserError` for a file that holds something else."""
        super().__init__()
        method = saved.method()
        if not isinstance(method, Epg) or not isinstance(method.loss, TemporalConv):
            raise UserError(
                f"load_loss: the file is of {saved.config.method.name}, expected an evolved "
                "temporal convolution; epg.load takes any"
            )
        self.saved = saved
        self.alpha = method.final_alpha
        self.spec = method.loss.spec
        self._layout = method.loss
        for name in method.spec.loss:
            self.register_buffer(name.replace(".", "_"), saved.params[name].unsqueeze(0))

    def forward(
        self,
        observations: Tensor,
        actions: Tensor,
        rewards: Tensor,
        dones: Tensor,
        policy_outputs: Tensor,
        memory: Tensor | None = None,
        newest: int = 64,
        rows: Tensor | None = None,
    ) -> Tensor:
        """The loss of each of P agents, [P]; minimise it.

        All rows are the newest N ≥ 21 steps of an agent, oldest first, padded in front with zeros.
        observations: [P, N, O] and actions: [P, N, A] (one-hot if discrete), both normalised to
        mean 0 and variance 1; rewards: [P, N]; dones: [P, N], 1 where an episode ended;
        policy_outputs: [P, N, K] of the policy as it is now, padded rows too, with gradient:
        mean and log standard deviation, or probabilities if discrete; memory: [P, H] of the agent,
        zeros if left out; newest: M, how many of the newest rows are judged (the oldest, if
        the loss was trained with `match_release: true`); rows: [P, B], the
        minibatch among these, all if left out.

        Raises ValueError naming the first argument whose shape does not fit, and for rows that are
        none of the newest.
        """
        layout = self._layout
        spec = layout.spec
        if observations.dim() != 3:
            raise ValueError(f"observations: found shape {list(observations.shape)}, not [P, N, O]")
        agents, length, _ = observations.shape
        if length < SHORTEST_BUFFER:
            raise ValueError(f"observations: found N = {length}, at least {SHORTEST_BUFFER} needed")
        if not 1 <= newest <= length:
            raise ValueError(f"newest: found {newest}, allowed 1 to N = {length}")
        if memory is None:
            memory = observations.new_zeros(agents, spec.memory)
        if rows is None:
            rows = torch.arange(newest, device=observations.device).expand(agents, newest)
        output_size = spec.distribution.output_size
        for name, found, shape in (
            ("observations", observations, (agents, length, spec.observation_size)),
            ("actions", actions, (agents, length, spec.action_size)),
            ("rewards", rewards, (agents, length)),
            ("dones", dones, (agents, length)),
            ("policy_outputs", policy_outputs, (agents, length, output_size)),
            ("memory", memory, (agents, spec.memory)),
            ("rows", rows, (agents, *rows.shape[-1:])),
        ):
            if tuple(found.shape) != shape:
                raise ValueError(f"{name}: found shape {list(found.shape)}, expected {list(shape)}")
        if rows.dtype != torch.int64 or not rows.numel():
            raise ValueError(f"rows: found {rows.numel()} of {rows.dtype}, expected int64")
        if rows.min() < 0 or rows.max() >= newest:
            raise ValueError(
                f"rows: found {int(rows.min())} to {int(rows.max())}, allowed 0 to {newest - 1}"
            )
        columns = {
            "observation": observations,
            "action": actions,
            "reward": rewards.unsqueeze(-1),
            "done": dones.unsqueeze(-1),
            "auxiliary": torch.zeros_like(rewards).unsqueeze(-1),
        }
        trajectory = torch.cat([columns[name] for name in layout.inputs], dim=-1)
        params = {
            name: self.get_buffer(name.replace(".", "_")).expand(agents, *shape)
            for name, shape in layout.shapes.items()
        }
        losses = TemporalConvLoss(layout, params)
        loss: Tensor = losses.reader(trajectory, newest)(policy_outputs, memory, rows)
        return loss


def load_loss(path: str | Path, trust: bool | Collection[str] = False) -> LossModule:
    """A saved loss as a module; see `LossModule.forward`. trust: as of `epg.load`."""
    return LossModule(load(path, trust))
