"""Hoppers: Gymnasium's Hopper-v5, and those of EPG, with two physics steps per action."""

from __future__ import annotations

from dataclasses import replace

from epg.tasks.bodies import dynamics
from epg.tasks.runner import DIRECTION, RandomRunner, Rules, Runner

ASSET = "hopper.xml"
EPG_RULES = Rules(frame_skip=2, heights=(0.7, float("inf")), max_state=100.0, max_seen_speed=10.0)


class Hopper(Runner):
    """Gymnasium's Hopper-v5."""

    name = "hopper"
    summary = "Gymnasium's Hopper-v5"
    observation_size = 11
    action_size = 3
    asset = ASSET
    rules = replace(EPG_RULES, frame_skip=4, max_lean=0.2, alive_bonus=1.0, control_cost=1e-3)


class DirHopper(Hopper):
    """Hop forward or backward, not told which."""

    name = "dir-hopper"
    summary = "hop forward or backward, not told which"
    varied = (DIRECTION,)
    rules = EPG_RULES


class RandomHopper(RandomRunner):
    """Hop forward with drawn dynamics; the episode also ends at a lean of 0.5 rad."""

    name = "random-hopper"
    summary = "hop forward with drawn masses, thicknesses, frictions and gravity"
    observation_size = 11
    action_size = 3
    links = ("torso", "thigh", "leg", "foot")
    varied = dynamics(4, (0.5, 2.0), (-20.0, -2.0), "as released with the paper")
    asset = ASSET
    rules = replace(EPG_RULES, max_lean=0.5)
