"""log/rank-N.log in a run directory: what each process did."""

from __future__ import annotations

import logging
import os
import platform
import sys
from pathlib import Path

import torch

from epg.version import __version__

logger = logging.getLogger("epg")
logger.addHandler(logging.NullHandler())  # until a log is open, nothing is logged
logging.raiseExceptions = False  # on a full disk the log must not be what ends a run


def open_log(folder: Path, rank: int) -> None:
    """Append to this rank's file from now on."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / f"rank-{rank}.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.info(
        "epg %s, rank %d, pid %d on %s, Python %s, torch %s with %d threads",
        __version__, rank, os.getpid(), platform.node(), sys.version.split()[0],
        torch.__version__, torch.get_num_threads(),
    )  # fmt: skip
