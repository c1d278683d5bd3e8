"""Bodies with drawn dynamics: mass, thickness and friction of each link, and gravity.

The compiler makes every inertia follow its mass and its size; it is all that does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from epg.tasks.base import Mdp, Varied


def dynamics(
    links: int, factor: tuple[float, float], gravity: tuple[float, float], source: str
) -> tuple[Varied, ...]:
    """What such a task varies; `factor` is the range of mass, friction and thickness."""

    def each(name: str, meaning: str, most: float) -> Varied:
        return Varied(
            name, *factor, "×", f"of each of {links} links{meaning}", count=links,
            allowed=(0.1, most), source=source,
        )  # fmt: skip

    return (
        each("mass", "; does not follow thickness", 10.0),
        Varied("gravity", *gravity, "m/s²", allowed=(-100.0, 0.0), source=source),
        each("friction", " with the floor", 10.0),
        each("thickness", ": the radius, not the length", 3.0),
    )


class Bodies:
    """Makes the models of drawn MDPs out of one whose links are a capsule each.

    spec: an MjSpec whose bodies `links` have one geom each, named after them with "_geom".
    """

    def __init__(self, spec: Any, links: Sequence[str]) -> None:
        self._spec = spec
        self._geoms = [spec.geom(f"{link}_geom") for link in links]
        floor = spec.geom("floor")
        model = spec.compile()
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        ids = [model.geom(f"{link}_geom").id for link in links]
        self._mass = model.body_mass[[model.body(link).id for link in links]]
        self._radius = model.geom_size[ids, 0]
        # MuJoCo takes the larger friction of two geoms. The floor gives its own to each link and
        # keeps none, so that a drawn friction holds and a factor of 1 is the original.
        self._friction = np.maximum(model.geom_friction[ids, 0], floor.friction[0])
        floor.friction = np.zeros(3)
        # Lowest point of each capsule's axis: the radius below it touches the floor first.
        half_length, upright = model.geom_size[ids, 1], np.abs(data.geom_xmat[ids, 8])
        self._axis = data.geom_xpos[ids, 2] - half_length * upright
        self._clearance = (self._axis - self._radius).min()

    def compile(self, mdp: Mdp) -> Any:
        """The model of an MDP: 0.5 ms and 16 KB."""
        radius = self._radius * mdp["thickness"]
        mass, friction = self._mass * mdp["mass"], self._friction * mdp["friction"]
        for i, geom in enumerate(self._geoms):
            geom.size[0], geom.mass, geom.friction[0] = radius[i], mass[i], friction[i]
        self._spec.option.gravity[2] = mdp["gravity"]
        return self._spec.compile()

    def lift(self, mdp: Mdp) -> float:
        """Added to the initial height (m), so that the body starts as far above the floor."""
        lowest = (self._axis - self._radius * mdp["thickness"]).min()
        return float(self._clearance - lowest)
