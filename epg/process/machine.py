"""What this machine is."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path


def cpu_model() -> str:
    """The processor's name; bits may differ between two of them."""
    for line in _lines("/proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def boot_id() -> str:
    """What tells this boot of the machine from all others, so that a process id means something."""
    return "".join(_lines("/proc/sys/kernel/random/boot_id"))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def memory_gigabytes() -> float:
    """Of the whole machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def memory_limit() -> tuple[int, str]:
    """Bytes of memory that this process can have at most, and who says so."""
    limits = [(round(memory_gigabytes() * 2**30), "this machine")]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.append((soft, "ulimit -v"))
    for line in _lines("/proc/self/cgroup"):
        _, controllers, group = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = Path("/sys/fs/cgroup", controllers)
        file = "memory.limit_in_bytes" if controllers else "memory.max"
        for folder in (place := root / group.lstrip("/"), *place.parents):
            if folder.is_relative_to(root):
                told = "".join(_lines(str(folder / file)))
                limits += [(int(told), "its control group")] if told.isdecimal() else []
    return min(limits)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
