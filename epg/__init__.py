"""epg: learns how agents should learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from epg.version import __version__

if TYPE_CHECKING:
    from epg.agents.history import History
    from epg.evaluation.evaluate import evaluate
    from epg.methods.loss_module import LossModule, load_loss
    from epg.methods.saved import Saved, load
    from epg.training.loop import train

__all__ = [
    "History", "LossModule", "Saved", "__version__", "evaluate", "load", "load_loss", "train",
]  # fmt: skip

_LAZY = {
    "load": "epg.methods.saved",
    "Saved": "epg.methods.saved",
    "load_loss": "epg.methods.loss_module",
    "LossModule": "epg.methods.loss_module",
    "History": "epg.agents.history",
    "evaluate": "epg.evaluation.evaluate",
    "train": "epg.training.loop",
}


def __getattr__(name: str) -> Any:
    """The functions above, imported when first used: torch takes its time."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'epg' has no attribute {name!r}")
