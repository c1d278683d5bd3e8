"""Half-cheetahs: Gymnasium's HalfCheetah-v5, and EPG's, which is not told its direction."""

from __future__ import annotations

from typing import Any

from epg.tasks.draws import Draw
from epg.tasks.runner import DIRECTION, Rules, Runner, wide_noise


class HalfCheetah(Runner):
    """Gymnasium's HalfCheetah-v5."""

    name = "half-cheetah"
    summary = "Gymnasium's HalfCheetah-v5"
    observation_size = 17
    action_size = 6
    asset = "half_cheetah.xml"
    rules = Rules(frame_skip=5, control_cost=0.1)

    def noise(self, model: Any) -> Draw:
        return wide_noise(model)


class DirHalfCheetah(HalfCheetah):
    """Run forward or backward, not told which, paid for velocity alone."""

    name = "dir-half-cheetah"
    summary = "run forward or backward, not told which"
    varied = (DIRECTION,)
    rules = Rules(frame_skip=5)
