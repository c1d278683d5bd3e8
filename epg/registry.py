"""What a configuration can name, and how a name becomes a class.

A name is one of the tables below, or `module:Class` for a class of the user's own. Nothing is
imported before it is asked for.
"""

from __future__ import annotations

import difflib
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from epg.errors import UserError

METHODS = {
    "epg": "epg.methods.epg:Epg",
    "ppo": "epg.methods.ppo:PpoMethod",
    "dpo": "epg.methods.dpo:DpoMethod",
    "reinforce": "epg.methods.reinforce:ReinforceMethod",
    "random": "epg.methods.never:Never",
    "td3": "epg.methods.td3:Td3",
    "ddpg": "epg.methods.td3:Ddpg",
    "reinforce-off-policy": "epg.methods.reinforce_off_policy:ReinforceOffPolicy",
    "metagenrl": "epg.methods.metagenrl:MetaGenRl",
    "a2c": "epg.methods.within_a_life:A2cMethod",
    "vtrace": "epg.methods.within_a_life:Vtrace",
    "xu": "epg.methods.within_a_life:Xu",
    "xu-discount": "epg.methods.within_a_life:XuDiscount",
    "xu-lambda": "epg.methods.within_a_life:XuSmoothing",
    "xu-outer-value": "epg.methods.within_a_life:XuOuterValue",
    "stac-return": "epg.methods.within_a_life:StacReturn",
    "stac": "epg.methods.within_a_life:Stac",
    "stacx": "epg.methods.within_a_life:StacxMethod",
    "frodo": "epg.methods.within_a_life:FrodoMethod",
    "bmg": "epg.methods.within_a_life:BmgMethod",
    "meta-entropy": "epg.methods.within_a_life:MetaGradientEntropy",
    "lirpg": "epg.methods.within_a_life:LirpgMethod",
    "lpg": "epg.methods.lpg:LpgMethod",
    "frozen": "epg.methods.frozen_rule:FrozenRule",
    "sb3-ppo": "epg.methods.sb3:Sb3Ppo",
    "sb3-td3": "epg.methods.sb3:Sb3Td3",
    "sb3-sac": "epg.methods.sb3:Sb3Sac",
    "fixed-policy": "epg.methods.fixed_policy:FixedPolicy",
}
LOSSES = {
    "temporal_conv": "epg.losses.temporal_conv:TemporalConv",
    "per_step": "epg.losses.per_step:PerStep",
    "lpo": "epg.losses.lpo:Lpo",
    "lstm": "epg.losses.lstm_loss:LstmLoss",
    "lpg": "epg.losses.lpg_loss:LpgLoss",
}
OPTIMIZERS = {
    "adam": "epg.evolution.optimizer:Adam",
    "clipup": "epg.evolution.optimizer:ClipUp",
}
SHAPINGS = {
    "pair": "epg.evolution.shaping:PairRank",
    "centered_rank": "epg.evolution.shaping:CenteredRank",
}
BASES = {
    "method": "epg.methods.base.Method",
    "loss": "epg.losses.base.LearnedLoss",
    "optimizer": "epg.evolution.optimizer.Optimizer",
    "shaping": "epg.evolution.shaping.Shaping",
}
"""What a class of a user's own is to be a subclass of."""
KEYS = {
    "method": "method",
    "loss": "method.loss",
    "optimizer": "method.optimizer",
    "shaping": "method.shaping",
}
"""Where a configuration says it."""
TABLES = {"method": METHODS, "loss": LOSSES, "optimizer": OPTIMIZERS, "shaping": SHAPINGS}


def is_own(name: str) -> bool:
    """Whether a name stands for a class of a user's own, whose import makes its code run.

    gym:ID is none; gym:module:ID is.
    """
    return ":" in name.removeprefix("gym:")


def find(kind: str, name: str) -> Any:
    """The class that a name stands for; kind: a key of `TABLES`.

    Raises `UserError` in one line for an unknown name, and for a class of the user's own that
    cannot be found.
    """
    table = TABLES[kind]
    if is_own(name):
        try:
            return find_own(name)
        except UserError as error:
            raise UserError(f"{kind} {name}: {error}") from None
    if name not in table:
        near = difflib.get_close_matches(name, table, n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(
            f"{KEYS[kind]}: unknown name {name!r}; {hint}allowed: {', '.join(table)}, module:Class"
        )
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)


def find_own(name: str) -> type:
    """A class in a user's module, which may lie in the working directory. Raises `UserError`."""
    module, _, attribute = name.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*", module):
        raise UserError("allowed: module:Class, as my_file:MyClass")
    found = getattr(import_own(module), attribute, None)
    if not isinstance(found, type):
        raise UserError(f"module {module!r} has no class {attribute!r}")
    return found


def import_own(module: str) -> ModuleType:
    """A user's module, which may lie in the working directory. Raises `UserError`."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise UserError(f"no module {error.name!r} here ({here}) nor installed") from None


def check_interface(kind: str, name: str, found: Any, bases: tuple[type, ...]) -> None:
    """Raise `UserError` unless a class is one of `bases` and has all of its functions."""
    wanted = " or ".join(f"{base.__module__}.{base.__qualname__}" for base in bases)
    if not (isinstance(found, type) and issubclass(found, bases)):
        raise UserError(f"{kind} {name}: it is not a subclass of {wanted}")
    if missing := ", ".join(sorted(getattr(found, "__abstractmethods__", ()))):
        raise UserError(f"{kind} {name}: it lacks {missing}, which {wanted} asks for")
