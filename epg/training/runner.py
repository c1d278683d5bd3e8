"""What a worker does in a run: units of its method, and validations."""

from __future__ import annotations

from epg import tasks
from epg.config import Config
from epg.farm.work import Result, Runner, Shared, Unit
from epg.lifetime import live
from epg.methods.base import make_method, tensors_of
from epg.seeds import LifetimeSeeds, Purpose
from epg.tasks.base import draw_mdps


class TrainingRunner(Runner):
    """Runs the units of any method. Raises `UserError` for what does not fit together."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config
        self.task = tasks.make(config.task)
        self.method = make_method(config, self.task)

    def run(self, shared: Shared | None, unit: Unit) -> Result:
        assert shared is not None
        if unit.purpose == Purpose.VALIDATION:
            return self._validate(shared, unit)
        return self.method.run(shared, unit)

    def _validate(self, shared: Shared, unit: Unit) -> Result:
        """The fitness [lifetimes] of agents that learn by what is learned so far.

        They have the same MDPs and chance in every step.
        """
        config = self.config
        seeds = LifetimeSeeds.of(
            config.seed, Purpose.VALIDATION, unit.first, unit.count, config.device
        )
        mdps = draw_mdps(self.task, seeds)
        agents = self.method.agents(tensors_of(shared), seeds)
        lived = live(self.task, mdps, agents, seeds, config.lifetime)
        arrays = {"fitness": self.task.score(mdps, lived.final_return)}
        return Result(unit, arrays, lived.steps, lived.exploded)
