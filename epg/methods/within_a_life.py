"""Ways of learning that tune themselves while an agent lives, beside the plain ones they tune.

docs/within-a-life.md says what each learns, and when that helped.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

from epg.agents.base import Agents
from epg.agents.distributions import distribution_of
from epg.agents.network import Parameters
from epg.agents.optimizers import Adam, RmsProp
from epg.config import Setup
from epg.errors import UserError
from epg.methods.base import Algorithm, Card
from epg.process.log import logger
from epg.rules.a2c import OUTER_VALUE, A2c
from epg.rules.agents import RuleAgents
from epg.rules.bmg import Bmg, LearnedEntropy
from epg.rules.frodo import Frodo
from epg.rules.lirpg import Lirpg
from epg.rules.networks import HeadedNetworks
from epg.rules.online import Tuning
from epg.rules.rule import Rule, Update
from epg.rules.stacx import NAMES, Stacx, heads
from epg.rules.trace import Tracer
from epg.seeds import LifetimeSeeds
from epg.tasks.base import Task

LEARNABLE = ("discount", "smoothing")
"""Of A2C's return: γ and λ."""
POLICY_GRADIENTS = "actor-critics on one torso; continuous or discrete actions"


class RuleAlgorithm(Algorithm):
    """Agents that learn by a rule, on rollouts of `lifetime.steps_per_update` steps."""

    searched: ClassVar[tuple[str, ...]] = (
        "steps_per_update", "learning_rate", "discount", "gae_lambda", "entropy",
    )  # fmt: skip
    tunes: ClassVar[bool] = True
    """whether η moves; where it does not, learning is the plain algorithm's"""
    inner_steps: ClassVar[int] = 1
    """K, updates that hang on one η"""
    optimizer: ClassVar[Literal["adam", "rmsprop"]] = "adam"
    """of θ"""
    judged: ClassVar[Literal["next", "halves"]] = "next"
    tracer: ClassVar[Tracer | None] = None
    exact: ClassVar[bool] = True
    clip: ClassVar[float | None] = 0.5
    """most that the norm of an agent's gradient may be"""
    ahead: ClassVar[int] = 0
    """L, updates between those and the rollout that judges"""
    lag: ClassVar[int] = 0
    """updates by which the policy that acts is behind"""
    value_weight: ClassVar[float] = 0.5

    sized: ClassVar[bool] = False
    """whether η is for observations of one size"""

    @abstractmethod
    def rule(self, networks: HeadedNetworks, setup: Setup) -> Rule:
        """For networks with a policy and a value."""

    def networks(self, task: Task, setup: Setup) -> HeadedNetworks:
        """Of an agent, on a task."""
        distribution = distribution_of(task.discrete, task.action_size)
        agent = setup.agent
        return HeadedNetworks(task.observation_size, distribution, agent.hidden, agent.activation)

    def a2c(self, setup: Setup) -> dict[str, Any]:
        """What every rule that is A2C's takes of a configuration."""
        learner = setup.learner
        return {
            "discount": learner.discount, "smoothing": learner.gae_lambda,
            "value_weight": self.value_weight, "entropy_weight": learner.entropy,
        }  # fmt: skip

    def about(self, setup: Setup) -> str:
        learner = setup.learner
        shown = (
            f"lr {learner.learning_rate:g}, rollouts of {setup.lifetime.steps_per_update}, "
            f"γ {learner.discount:g}, λ {learner.gae_lambda:g}, entropy {learner.entropy:g}"
        )
        meta = f", meta-rate {learner.meta_rate:g}" if self.tunes else ""
        return shown + (f", lag {self.lag}" if self.lag else "") + meta

    @property
    def least_updates(self) -> int:
        """A window of η's, and the rollout that judges."""
        return self.inner_steps + self.ahead + 1 if self.tunes else 1

    def rule_on(self, task: Task, setup: Setup) -> Rule:
        """For agents on a task."""
        return self.rule(self.networks(task, setup), setup)

    def agents(self, task: Task, setup: Setup, seeds: LifetimeSeeds) -> Agents:
        found, least = setup.lifetime.updates, self.least_updates
        if found < least:
            raise UserError(
                f"lives of {found} updates: method {self.tuned_as} tunes itself by windows of "
                f"{least - 1} and the one after; allowed: at least {least}"
            )
        rule = self.rule_on(task, setup)
        return self._agents(rule, setup, seeds, self.tunes, None)

    def agents_with(
        self, task: Task, setup: Setup, seeds: LifetimeSeeds, eta: Parameters
    ) -> Agents:
        """Agents that learn by an η which stays as it is, each leaf [P, …]."""
        return self._agents(self.rule_on(task, setup), setup, seeds, False, eta)

    def _agents(
        self, rule: Rule, setup: Setup, seeds: LifetimeSeeds, tunes: bool, eta: Parameters | None
    ) -> Agents:
        kind = {"adam": Adam, "rmsprop": RmsProp}[self.optimizer]
        update = Update(rule, kind(setup.learner.learning_rate), self.clip, self.exact)
        optimizer = Adam(setup.learner.meta_rate) if tunes else None
        tuning = Tuning(optimizer, self.inner_steps, self.judged, self.tracer)
        return RuleAgents(update, tuning, seeds, setup.agent.activation, self.lag, eta)


TUNING = (*RuleAlgorithm.searched, "meta_rate")
"""What is searched of methods whose η moves."""


class A2cMethod(RuleAlgorithm):
    """Advantage actor-critic: one step down each rollout."""

    card = Card(
        learns="a policy and its value, on one torso",
        how="by hand",
        agents=POLICY_GRADIENTS,
        paper="Mnih et al. 2016, arXiv 1602.01783",
    )
    tuned_as = "a2c"
    tunes = False
    learned: ClassVar[tuple[str, ...]] = ()
    embedding: ClassVar[int] = 0
    """inputs by which networks see γ and λ"""
    start: ClassVar[Mapping[str, float]] = {}
    """where γ and λ begin, if not at `learner.discount` and `learner.gae_lambda`"""
    free: ClassVar[bool] = False
    """whether γ and λ may leave 0 to 1"""

    def networks(self, task: Task, setup: Setup) -> HeadedNetworks:
        return replace(super().networks(task, setup), context=self.embedding)

    def rule(self, networks: HeadedNetworks, setup: Setup) -> Rule:
        for what, given in (("learned", self.learned), ("start", tuple(self.start))):
            if unknown := [name for name in given if name not in LEARNABLE]:
                raise UserError(
                    f"{what} of method {type(self).__name__}: found {unknown[0]!r}; allowed: "
                    + ", ".join(LEARNABLE)
                )
        if bool(self.learned) != self.tunes or (self.embedding and not self.learned):
            raise UserError(
                f"method {type(self).__name__}: learned is {self.learned!r}, tunes {self.tunes}, "
                f"embedding {self.embedding}; allowed: something learned where it tunes, and there "
                "alone"
            )
        for name, start in self.start.items():
            if not 0 < start < 1 and not self.free:
                raise UserError(
                    f"{name} of method {type(self).__name__}: found {start:g} to begin with; "
                    "allowed: above 0, below 1, or anything if it is free"
                )
            if start > 1:
                logger.warning("%s begins at %g: returns grow with every step", name, start)
        return A2c(
            networks, learned=self.learned, start=self.start, free=self.free,
            embedding=self.embedding, **self.a2c(setup),
        )  # fmt: skip


class Xu(A2cMethod):
    """A2C that tunes γ and λ of its return."""

    card = Card(
        learns="γ and λ",
        how="within a life",
        agents=POLICY_GRADIENTS,
        paper="Xu, van Hasselt & Silver 2018, arXiv 1805.09801",
    )
    tuned_as = "xu"
    tunes = True
    searched = TUNING
    learned: ClassVar[tuple[str, ...]] = ("discount", "smoothing")


class XuDiscount(Xu):
    """A2C that tunes γ."""

    card = Card("γ", Xu.card.how, Xu.card.agents, Xu.card.paper)
    tuned_as = "xu-discount"
    learned: ClassVar[tuple[str, ...]] = ("discount",)


class XuSmoothing(Xu):
    """A2C that tunes λ."""

    card = Card("λ", Xu.card.how, Xu.card.agents, Xu.card.paper)
    tuned_as = "xu-lambda"
    learned: ClassVar[tuple[str, ...]] = ("smoothing",)


class XuOuterValue(Xu):
    """The same, judged with a value of its own."""

    card = Card(
        learns="γ and λ, judged with values of γ̄ and λ̄",
        how="within a life",
        agents=POLICY_GRADIENTS,
        paper="Bonnet et al. 2022; Xu et al. 2018, arXiv 1805.09801",
    )
    tuned_as = "xu-outer-value"

    def networks(self, task: Task, setup: Setup) -> HeadedNetworks:
        return replace(super().networks(task, setup), heads={"value": 1, OUTER_VALUE: 1})


class Vtrace(RuleAlgorithm):
    """An actor-critic with V-trace, whose policy acts some updates late."""

    card = Card(
        learns="a policy and its value, on one torso",
        how="by hand",
        agents=POLICY_GRADIENTS,
        paper="Espeholt et al. 2018, arXiv 1802.01561",
    )
    tuned_as = "vtrace"
    tunes = False
    lag = 8
    learned: ClassVar[tuple[str, ...]] = ()
    heads: ClassVar[int] = 1
    tie_leak: ClassVar[bool] = False
    """whether ρ and c leak alike"""

    def networks(self, task: Task, setup: Setup) -> HeadedNetworks:
        policies, values = heads(self.heads)
        return replace(super().networks(task, setup), heads=values, policies=policies)

    def rule(self, networks: HeadedNetworks, setup: Setup) -> Rule:
        outer = {
            "discount": setup.learner.discount, "smoothing": setup.learner.gae_lambda,
            "policy_weight": 1.0, "value_weight": self.value_weight,
            "entropy_weight": setup.learner.entropy, "leak_ratio": 1.0, "leak_trace": 1.0,
        }  # fmt: skip
        return Stacx(networks, self.learned, outer, tie_leak=self.tie_leak)


class StacReturn(Vtrace):
    """V-trace that tunes γ and λ."""

    card = Card(
        learns="γ and λ of V-trace",
        how="within a life",
        agents=POLICY_GRADIENTS,
        paper="Zahavy et al. 2020, arXiv 2002.12928",
    )
    tuned_as = "stac-return"
    tunes = True
    searched = TUNING
    learned: ClassVar[tuple[str, ...]] = NAMES[:2]


class Stac(StacReturn):
    """V-trace that tunes all of its coefficients."""

    card = Card(
        learns="γ, λ, weights of the loss and leaks of V-trace",
        how="within a life",
        agents=POLICY_GRADIENTS,
        paper="Zahavy et al. 2020, arXiv 2002.12928",
    )
    tuned_as = "stac"
    learned: ClassVar[tuple[str, ...]] = NAMES


class StacxMethod(Stac):
    """The same with two more heads, which shape the torso."""

    card = Card(
        learns="those of STAC, of three heads",
        how="within a life",
        agents=POLICY_GRADIENTS,
        paper="Zahavy et al. 2020, arXiv 2002.12928",
    )
    tuned_as = "stacx"
    heads = 3


class FrodoMethod(RuleAlgorithm):
    """A2C down a target that a network puts out."""

    card = Card(
        learns="the target of values and advantages",
        how="within a life",
        agents=POLICY_GRADIENTS,
        paper="Xu et al. 2020, arXiv 2007.08433",
    )
    tuned_as = "frodo"
    searched = TUNING
    inner_steps = 5
    units: ClassVar[int] = 32
    consistency: ClassVar[float] = 0.1

    def rule(self, networks: HeadedNetworks, setup: Setup) -> Rule:
        return Frodo(
            networks, units=self.units, consistency=self.consistency, **self.a2c(setup)
        )  # fmt: skip


class BmgMethod(RuleAlgorithm):
    """A2C that tunes its weight of entropy by recent rewards, towards where it is going."""

    card = Card(
        learns="the weight of entropy, of recent rewards",
        how="within a life",
        agents=POLICY_GRADIENTS,
        paper="Flennerhag et al. 2022, arXiv 2109.04504",
    )
    tuned_as = "bmg"
    searched = TUNING
    ahead: ClassVar[int] = 7
    """L, updates from what is judged to the target"""
    units: ClassVar[int] = 32

    def rule(self, networks: HeadedNetworks, setup: Setup) -> Rule:
        return Bmg(networks, units=self.units, ahead=self.ahead, **self.a2c(setup))


class MetaGradientEntropy(BmgMethod):
    """The same, judged by the policy gradient on the next rollout."""

    card = Card(
        learns="the weight of entropy, of recent rewards, by the usual meta-gradient",
        how="within a life",
        agents=POLICY_GRADIENTS,
        paper="Xu et al. 2018, arXiv 1805.09801; what BMG is compared with",
    )
    tuned_as = "meta-entropy"
    ahead = 0

    def rule(self, networks: HeadedNetworks, setup: Setup) -> Rule:
        return LearnedEntropy(networks, units=self.units, **self.a2c(setup))


class LirpgMethod(RuleAlgorithm):
    """A2C with rewards of its own."""

    card = Card(
        learns="rewards of its own",
        how="within a life",
        agents=POLICY_GRADIENTS,
        paper="Zheng, Oh & Singh 2018, arXiv 1804.06459",
    )
    tuned_as = "lirpg"
    searched = TUNING
    sized = True
    own_share: ClassVar[float] = 0.01

    def rule(self, networks: HeadedNetworks, setup: Setup) -> Rule:
        return Lirpg(networks, own_share=self.own_share, **self.a2c(setup))
