"""What a runner measures of a unit."""

from __future__ import annotations

import time

from epg.config import Config
from epg.farm.work import Result, Runner, Shared, Unit
from epg.seeds import Purpose

BURNT = 0.05
SLEPT = 0.5


class HalfAsleep(Runner):
    """Works for a while, and waits for longer, as on a machine where others are at work."""

    def run(self, shared: Shared | None, unit: Unit) -> Result:
        over = time.process_time() + BURNT
        while time.process_time() < over:
            pass
        time.sleep(SLEPT)
        return Result(unit, {})


def test_cost_is_what_processors_worked_and_deadlines_are_of_time_that_passed() -> None:
    runner = HalfAsleep(Config(task="point-goal"))
    outcome = runner.attempt(None, Unit(Purpose.TRAINING, 0, 0, 1))
    assert isinstance(outcome, Result)
    assert outcome.seconds >= SLEPT + BURNT
    assert BURNT <= outcome.core_seconds < outcome.seconds - SLEPT / 2
