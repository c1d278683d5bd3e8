"""The end of this process."""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
from contextlib import suppress
from typing import NoReturn


def end(code: int) -> NoReturn:
    """End this process now: exit handlers run, MPI is finalised, the interpreter is left as it is.

    To take it apart, torch and all, is a second of work, and many on a loaded machine.
    """
    ray = sys.modules.get("ray")  # EvoTorch's; at exit it imports the rest of itself
    if ray is not None and not ray.is_initialized():
        atexit.unregister(ray.shutdown)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
        mpi.Finalize()
        ctypes.CDLL(None).exit(code)  # MPICH says goodbye to its launcher in C's exit handlers
    os._exit(code)
