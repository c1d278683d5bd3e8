"""Policies that never learn, evolved once for a family of MDPs and kept: what a skill that all of
it shares is worth, beside which learning must show itself."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

from epg import tasks
from epg.errors import UserError
from epg.evaluation.tuned import cache
from epg.methods.saved import Saved, load

FIXED, PRETRAINED = OF_POLICIES = ("fixed-policy", "pretrained")
"""Ways that begin with such a policy: one that stays as it is, and PPO from there."""


SHIPPED = Path(str(resources.files("epg.evaluation") / "policies"))


def policy_file(task: str) -> Path:
    """Where a user's own policy of a family is kept, by its label, if one was evolved."""
    return cache() / "policies" / f"{tasks.file_name(task)}.safetensors"


def known_policy(task: str) -> Path | None:
    """The user's own policy of a family, or else the one that came with the package, if any."""
    mine = policy_file(task)
    found = [path for path in (mine, SHIPPED / mine.name) if path.is_file()]
    return found[0] if found else None


def load_policy(task: str) -> tuple[Saved, str]:
    """The policy of a family, and its file's sha256. Raises `UserError` if none was evolved."""
    path = known_policy(task)
    if path is None:
        raise UserError(
            f"{FIXED}: none is known for {task}; epg tune CONFIG --methods {FIXED} evolves one"
        )
    saved = load(path)
    if saved.config.method.name != FIXED:
        raise UserError(f"{path}: of method {saved.config.method.name}, expected {FIXED}")
    if saved.tasks != (task,):
        raise UserError(f"{path}: evolved on {' + '.join(saved.tasks)}, expected {task}")
    return saved, hashlib.sha256(path.read_bytes()).hexdigest()
