"""All ways of learning of an evaluation, on all of its tasks."""

from __future__ import annotations

from collections.abc import Iterator

from epg import tasks
from epg.agents.base import Agents
from epg.config import Config, Setup
from epg.errors import UserError
from epg.evaluation.entry import Entry, entry_of
from epg.evaluation.policies import FIXED, OF_POLICIES, PRETRAINED, load_policy
from epg.evaluation.protocol import (
    OF_FILES,
    UNTRAINED,
    Protocol,
    SavedFiles,
    remark,
    tuned_source,
)
from epg.evaluation.tuned import TUNED, with_setting
from epg.losses.base import TeachingLoss
from epg.methods.base import Params, make_algorithm, settings_of
from epg.methods.fixed_policy import FixedPolicy
from epg.methods.saved import Saved
from epg.registry import find
from epg.seeds import LifetimeSeeds, Purpose
from epg.tasks.base import Task


def entries_of(protocol: Protocol, files: SavedFiles) -> Iterator[Entry]:
    """All of them, task by task; of what was learned that which fits."""
    setup = files.setup.change(**protocol.changes())
    for spec in protocol.tasks:
        task = tasks.make(spec)
        fitting = [
            (name, saved)
            for name, saved in zip(files.names, files.saved, strict=True)
            if not saved.misfit(task)
        ]
        for name, saved in fitting:
            yield _of_saved(name, saved, saved.params, task, protocol)
        for method in protocol.methods:
            if method in OF_FILES:
                for name, saved in fitting:
                    called = method if len(files.names) == 1 else f"{method} {name}"
                    if method == UNTRAINED:
                        first = _first_params(name, saved)
                        yield _of_saved(called, saved, first, task, protocol)
                    else:
                        yield _of_saved(called, saved, saved.params, task, protocol, blind=True)
                continue
            mine, how = setup, ""
            if tuned_source(method) is not None:
                settings = protocol.tuned.get(task.name, {}).get(method)
                if settings is None:
                    raise UserError(f"{task.name}: the protocol lacks the settings of {method}")
                chosen = settings.model_dump(include=set(TUNED), exclude_none=True)
                mine = with_setting(setup, chosen)
                how = remark(settings)
            if method in OF_POLICIES:
                yield _of_policy(method, task, mine, how, protocol)
            else:
                yield entry_of(method, make_algorithm(method), task, mine, how)


def changed(saved: Saved, protocol: Protocol) -> Config:
    """The configuration of what was learned, as the protocol changes it. Raises `UserError`."""
    changes, ours = protocol.changes(), {}
    if (rate := protocol.learning_rate) is not None:
        loss = getattr(saved.config.method, "loss", None)
        kind = find("loss", loss.name) if loss is not None else None
        if isinstance(kind, type) and issubclass(kind, TeachingLoss):
            ours["loss"] = kind.at_rate(loss, rate).model_dump()
        else:
            changes["learning_rate"] = rate
    if protocol.alpha is not None:
        if "alpha" not in type(saved.config.method).model_fields:
            raise UserError(f"--alpha: the method {saved.config.method.name} has no α")
        ours["alpha"] = protocol.alpha
    config = saved.config.with_setup(saved.config.setup.change(**changes))
    if not ours:
        return config
    data = config.model_dump()
    data["method"] |= ours
    return Config.model_validate(data)


def _of_policy(method: str, task: Task, setup: Setup, how: str, protocol: Protocol) -> Entry:
    """A policy that never learns, or PPO that begins with it."""
    saved, digest = load_policy(task.name)
    if digest != protocol.policies.get(task.name):
        raise UserError(f"{task.name}: another policy was evolved since; name a new --out")
    if why := saved.misfit(task):
        raise UserError(f"{FIXED}: does not fit {why}")
    alike = setup.model_copy(update={"agent": saved.config.agent})  # it acts as it evolved
    made = saved.method(task, saved.config.with_setup(alike))
    assert isinstance(made, FixedPolicy)
    layers = ",".join(map(str, saved.config.method.hidden)) or "none: it is linear"  # type: ignore[attr-defined]
    about = f"layers {layers}; the best after {saved.step} generations"
    if method == PRETRAINED:
        about = f"{settings_of(setup)}{how}; begins with {FIXED}"
    params = saved.params

    def agents(seeds: LifetimeSeeds) -> Agents:
        if method == PRETRAINED:
            return made.pretrained(params, setup, seeds)
        return made.agents(params, seeds)

    return Entry(task, method, about, setup, agents)


def _of_saved(
    name: str, saved: Saved, params: Params, task: Task, protocol: Protocol, blind: bool = False
) -> Entry:
    config = changed(saved, protocol)
    fitted = saved.fit(task)
    method = saved.method(task, config)
    if blind:  # said before anything is lived
        method.blind(params, LifetimeSeeds.of(protocol.seed, Purpose.EVALUATION, 0, 1))
    about = [f"{key} {value:g}" for key, value in method.about().items()]
    about.append(method.says or settings_of(config.setup))
    about += _differences(saved.config.setup, config.setup)
    if fitted is not task:
        about.append(
            f"padded to {fitted.observation_size} observations, {fitted.action_size} actions"
        )
    return Entry(
        task=fitted,
        method=name,
        about=", ".join(about),
        setup=config.setup,
        agents=lambda seeds: (method.blind if blind else method.agents)(params, seeds),
    )


def _differences(trained: Setup, now: Setup) -> Iterator[str]:
    for group, was in trained:
        for key, value in was:
            other = getattr(getattr(now, group), key)
            if other != value:
                yield f"{key} {_show(other)} (trained with {_show(value)})"


def _show(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _first_params(name: str, saved: Saved) -> Params:
    """What its training began with."""
    if saved.config.start_from is not None:
        raise UserError(
            f"{name}: its evolution began with a saved loss ({saved.config.start_from}); evaluate "
            f"that one beside it, without the method {UNTRAINED}"
        )
    return saved.method().init()
