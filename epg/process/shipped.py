"""What comes with epg besides its code: configurations, saved losses, batch scripts.

In a clone they lie beside the package, in an installed wheel within it, by the same names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from epg import version
from epg.errors import UserError

_PACKAGE = Path(version.__file__).parent
_ROOT = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent
BATCH_SCRIPTS = _ROOT / "mpi_launch" / "slurm"
Kind = Literal["configuration", "loss"]


def named(kind: Kind) -> dict[str, Path]:
    """The files of a kind, by name; a loss has that of its folder, as its configuration has."""
    if kind == "configuration":
        return {path.stem: path for path in sorted(_ROOT.glob("configs/*.yaml"))}
    return {path.parent.name: path for path in sorted(_ROOT.glob("results/*/best.safetensors"))}


def names(kind: Kind) -> str:
    """Those names, for people."""
    return ", ".join(named(kind))


def find(kind: Kind, path: str | Path) -> Path:
    """The file that a user means: one of their own, or else the one that has this name here.

    Raises `UserError` if there is neither.
    """
    if os.path.lexists(path):
        return Path(path)
    if found := named(kind).get(str(path)):
        return found
    raise UserError(f"{path}: no such {kind} file; these come with epg: {names(kind)}")
