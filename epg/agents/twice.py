"""Steps of networks whose gradient is differentiated again, in few passes over their numbers.

Such networks are narrow and their rows many: memory is what they wait for. torch's own second
derivative of a layer norm goes through it some twenty times.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def standardise(values: Tensor, epsilon: float) -> Tensor:
    """[…, n] with mean 0 and variance 1 along n; it can be differentiated twice.

    epsilon is added to variances.
    """
    standardised: Tensor = _Standardise.apply(values, epsilon)  # type: ignore[no-untyped-call]
    return standardised


def half_squared(values: Tensor) -> Tensor:
    """[…, n]: the first half rectified, the second squared; it can be differentiated twice."""
    found: Tensor = _HalfSquared.apply(values)  # type: ignore[no-untyped-call]
    return found


# y = (x − mean x) r, where r = 1 / √(variance of x + ε); ⟨⟩ is the mean of a row.


class _Standardise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, epsilon: float) -> Tensor:
        y, mean, r = torch.native_layer_norm(x, x.shape[-1:], None, None, epsilon)
        ctx.save_for_backward(x, y, mean, r)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        x, y, mean, r = ctx.saved_tensors
        return _Slope.apply(g, x, y.detach(), mean, r), None  # type: ignore[no-untyped-call]


class _Slope(torch.autograd.Function):
    """What g at y is at x: r (g − ⟨g⟩ − y ⟨g y⟩), where y and r depend on x."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, y: Tensor, mean: Tensor, r: Tensor) -> Tensor:
        ctx.save_for_backward(g, x, y, mean, r)
        return _slope(g, x, mean, r)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        g, x, y, mean, r = ctx.saved_tensors
        for_g = _slope(h, x, mean, r) if ctx.needs_input_grad[0] else None  # it is symmetric
        for_x = None
        if ctx.needs_input_grad[1]:
            # −r² (⟨g y⟩ (h − ⟨h⟩) + ⟨h y⟩ (g − ⟨g⟩) + y (⟨h g⟩ − ⟨h⟩⟨g⟩ − 3 ⟨g y⟩⟨h y⟩))
            g_mean, h_mean = g.mean(-1, keepdim=True), h.mean(-1, keepdim=True)
            g_y, h_y, h_g = ((a * b).mean(-1, keepdim=True) for a, b in ((g, y), (h, y), (h, g)))
            for_x = y * (h_g - h_mean * g_mean - 3 * g_y * h_y)
            for_x.addcmul_(g_y, h).addcmul_(h_y, g).sub_(g_y * h_mean + h_y * g_mean)
            for_x.mul_(-r.square())
        return for_g, for_x, None, None, None


def _slope(g: Tensor, x: Tensor, mean: Tensor, r: Tensor) -> Tensor:
    found: Tensor = torch.ops.aten.native_layer_norm_backward(
        g, x, x.shape[-1:], mean, r, None, None, [True, False, False]
    )[0]
    return found


class _HalfSquared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        y = torch.empty_like(x)
        (first, second), (to_first, to_second) = x.chunk(2, -1), y.chunk(2, -1)
        torch.clamp_min(first, 0, out=to_first)
        torch.mul(second, second, out=to_second)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        slope: Tensor = _HalfSquaredSlope.apply(g, x)  # type: ignore[no-untyped-call]
        return slope


class _HalfSquaredSlope(torch.autograd.Function):
    """What g at y is at x: g where x is positive, and 2 g x."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(g, x)
        return _half_squared_slope(g, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, Tensor | None]:
        g, x = ctx.saved_tensors
        for_g = _half_squared_slope(h, x) if ctx.needs_input_grad[0] else None
        for_x = None
        if ctx.needs_input_grad[1]:
            for_x = torch.zeros_like(x)
            half = x.shape[-1] // 2
            torch.mul(g[..., half:], h[..., half:], out=for_x[..., half:]).mul_(2)
        return for_g, for_x


def _half_squared_slope(g: Tensor, x: Tensor) -> Tensor:
    found = torch.empty_like(x)
    half = x.shape[-1] // 2
    torch.ops.aten.threshold_backward(g[..., :half], x[..., :half], 0, grad_input=found[..., :half])
    torch.mul(g[..., half:], x[..., half:], out=found[..., half:]).mul_(2)
    return found
