"""Walkers: Gymnasium's Walker2d-v5, and one with drawn dynamics as in EPG."""

from __future__ import annotations

from dataclasses import replace

from epg.tasks.bodies import dynamics
from epg.tasks.runner import RandomRunner, Rules, Runner

ASSET = "walker2d_v5.xml"
EPG_RULES = Rules(frame_skip=4, heights=(0.8, 2.0), max_lean=1.0, max_seen_speed=10.0)


class Walker2d(Runner):
    """Gymnasium's Walker2d-v5."""

    name = "walker2d"
    summary = "Gymnasium's Walker2d-v5"
    observation_size = 17
    action_size = 6
    asset = ASSET
    rules = replace(EPG_RULES, alive_bonus=1.0, control_cost=1e-3)


class RandomWalker(RandomRunner):
    """Walk forward with drawn dynamics, paid for velocity alone.

    The paper gives no ranges. In these every body can stand, also with its thighs tilted by 30°:
    the heaviest weighs 398 N, then 0.225 m beside its knees, which hold 2 × 100 N m.
    """

    name = "random-walker"
    summary = "walk forward with drawn masses, thicknesses, frictions and gravity"
    observation_size = 17
    action_size = 6
    links = ("torso", "thigh", "leg", "foot", "thigh_left", "leg_left", "foot_left")
    varied = dynamics(7, (0.7, 1.4), (-12.0, -6.0), "range ours")
    asset = ASSET
    rules = EPG_RULES
