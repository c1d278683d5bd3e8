"""What lifetimes take of memory is known before: never less than is said, and not much more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from epg.config import Setup, load
from epg.methods.footprint import footprint
from epg.process.machine import memory_gigabytes
from epg.tasks import make

LIVES = """
import resource, sys
import torch
from epg.config import Setup
from epg.lifetime import live
from epg.methods.base import make_algorithm
from epg.seeds import LifetimeSeeds, Purpose
from epg.tasks import make
from epg.tasks.base import draw_mdps
torch.set_num_threads(1)
def lives(hidden, buffer):
    setup = Setup().change(hidden=hidden, buffer=buffer, updates=2, final_episodes=1)
    task, seeds = make("point-goal"), LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 64)
    agents = make_algorithm("ppo").agents(task, setup, seeds)
    live(task, draw_mdps(task, seeds), agents, seeds, setup.lifetime)
pages = int(open("/proc/self/statm").read().split()[1])  # now: the most so far is more
lives((256, 256), 20_000)
most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(most - pages * resource.getpagesize())
"""


def test_lifetimes_take_no_less() -> None:
    setup = Setup().change(hidden=(256, 256), buffer=20_000, updates=2, final_episodes=1)
    said = sum(footprint(setup, make("point-goal"), 64).values())
    done = subprocess.run([sys.executable, "-c", LIVES], capture_output=True, text=True, check=True)
    assert said <= int(done.stdout) < 10 * said


def test_it_is_what_its_parts_say_times_the_lifetimes() -> None:
    setup, task = Setup(), make("random-cart-pole")
    one, many = (footprint(setup, task, count, {"a": (3, 5)}) for count in (1, 7))
    assert many == {name: 7 * size for name, size in one.items()}
    assert one["what they learn by"] == 4 * 15


def test_a_limit_below_the_machines_counts() -> None:
    """Of a process's own; that of a control group is read from the same place as the machine's."""
    code = (
        "import resource; from epg.process.machine import memory_limit; print(memory_limit());"
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)); print(memory_limit())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    usual, limited = map(eval, said.stdout.splitlines())
    assert 0 < usual[0] <= round(memory_gigabytes() * 2**30)
    assert limited == (2**30, "ulimit -v")


def test_what_comes_with_epg_fits_in_a_gigabyte() -> None:
    for path in (Path(__file__).parents[2] / "configs").glob("*.yaml"):
        config = load(path)
        sizes = footprint(config.setup, make(config.task), 2 * config.farm.chunk)
        assert sum(sizes.values()) < 2**30, path
