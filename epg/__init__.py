"""epg: evolves reinforcement-learning loss functions with evolution strategies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epg.artifact import LearnedLoss, load_loss
    from epg.metatest.evaluate import evaluate
    from epg.training import train

__all__ = ["LearnedLoss", "evaluate", "load_loss", "train"]
__version__ = "0.1.0"

_LAZY = {
    "load_loss": "epg.artifact",
    "LearnedLoss": "epg.artifact",
    "evaluate": "epg.metatest.evaluate",
    "train": "epg.training",
}


def __getattr__(name: str) -> Any:
    """`load_loss`, `evaluate` and `train`, imported when first used: torch takes its time."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'epg' has no attribute {name!r}")
