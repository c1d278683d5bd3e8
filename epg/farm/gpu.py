"""Which GPU a worker uses: the workers of a node take its GPUs in turn."""

from __future__ import annotations

import os

import torch

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""CUDA's own word for what a process may use; SLURM sets it for the GPUs of a job."""


def visible_gpus() -> list[str]:
    """What CUDA calls the GPUs that this process may use: numbers, or UUIDs."""
    told = os.environ.get(VISIBLE)
    if told is None:
        return [str(number) for number in range(torch.cuda.device_count())]
    return [name for name in told.split(",") if name not in ("", "-1")]


def gpu_of(seat: int, device: str) -> str | None:
    """The GPU of the worker on a node's seat 0, 1, …; None if lifetimes need none of their own.

    device: as configured. `cuda` lets the seat decide; `cuda:1` is the second GPU for everyone.
    """
    gpus = visible_gpus()
    if device != "cuda" or not gpus:
        return None
    return gpus[seat % len(gpus)]


def use_only(gpu: str) -> None:
    """Hide all others from this process. To be called before it uses CUDA."""
    os.environ[VISIBLE] = gpu
