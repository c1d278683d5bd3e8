"""A run as a report reads it from disk."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from epg.config import Config
from epg.errors import UserError
from epg.methods.base import Method
from epg.process.progress import duration
from epg.registry import find
from epg.runs.directory import read_config
from epg.runs.files import read_object
from epg.runs.metrics import FILE, columns_of, read_rows

CONFIG = "config.yaml"


@dataclass(frozen=True)
class Run:
    """A run as it stands on disk."""

    path: Path
    config: Config
    method: type[Method]
    state: dict[str, Any]
    final: float
    """validation of the newest φ, after the last generation; NaN before"""
    metrics: dict[str, np.ndarray]
    """a column each, [generations]; NaN where not measured"""

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    def standing(self) -> str:
        """How far it is, when it came there, and how long that took, for people."""
        why = f" ({self.state['why']})" if self.state.get("why") else ""
        written = datetime.datetime.fromtimestamp((self.path / FILE).stat().st_mtime)
        return (
            f"{self.state.get('state', 'state unknown')}{why} after "
            f"{len(self.metrics['generation'])} of {self.config.steps} generations, on "
            f"{written:%Y-%m-%d at %H:%M}, in {duration(self.seconds())}"
        )

    def seconds(self) -> float:
        """Of the clock on the wall, in all generations; pauses between two starts not counted."""
        steps = self.metrics["environment_steps"] + np.nan_to_num(self.metrics["validation_steps"])
        return float(np.nansum(np.diff(steps, prepend=0) / self.metrics["steps_per_second"]))

    def cost(self) -> dict[str, str]:
        """What the evolution took, for people."""
        last = {name: column[-1] for name, column in self.metrics.items()}
        return {
            "generations": f"{len(self.metrics['generation'])} of {self.config.steps}",
            "environment steps of training": f"{last['environment_steps']:,.0f}",
            "environment steps of validation": f"{last['validation_steps']:,.0f}",
            "core-hours of lifetimes": f"{last['core_seconds'] / 3600:.3g}",
            "time": duration(self.seconds()),
        }


def read_run(path: Path, trust: bool = False) -> Run:
    """Raises `UserError` for what is no run, or one that has not lived a generation."""
    if not (path / CONFIG).is_file():
        raise UserError(f"{path}: no run directory (it has no {CONFIG})")
    config = read_config(path, trust)
    method = find("method", config.method.name)
    try:
        rows, _ = read_rows(path / FILE)
        metrics = {
            name: np.array([float(row.get(name) or "nan") for row in rows])
            for name in columns_of(method.metrics)
        }
    except (OSError, ValueError) as error:
        raise UserError(f"{path / FILE}: cannot be read ({error})") from None
    if not rows:
        raise UserError(f"{path}: not a generation is done yet")
    final = read_object(path / "DONE").get("validation")
    state = read_object(path / "state.json")
    return Run(path, config, method, state, float("nan") if final is None else final, metrics)
