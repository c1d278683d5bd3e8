"""log/rank-N.log in a run directory: what each process did."""

from __future__ import annotations

import errno
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
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a home that is not writable


def open_log(folder: Path, rank: int) -> None:
    """Append to this rank's file from now on; where that cannot be opened, say so and go on."""
    path = folder / f"rank-{rank}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise OSError(errno.EEXIST, "not a file")  # a link leads elsewhere, a pipe waits
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        print(f"warning: {path}: {error.strerror}; without this log", flush=True)
        return
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
