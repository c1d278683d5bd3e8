"""The journal: what became of each unit of the step under way, durable before it counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from epg.errors import UserError
from epg.farm.work import Failure, Outcome, Result, Unit
from epg.process.log import logger
from epg.runs.files import append_durably, read_bytes, seal, unseal, write_durably
from epg.seeds import Purpose

FORMAT = 3
READABLE = (2, FORMAT)
"""Format 2, of version 0.1, had no names for its arrays."""
DTYPES = ("float32", "float64", "int32", "int64", "uint8", "bool")
"""Of arrays in a journal."""


class Journal:
    """A file of JSON lines, each with a checksum: a header, then a line a unit that ended.

    The header has the configuration's hash, and `validated_as`, on what validations hang besides.
    """

    def __init__(
        self,
        path: Path,
        config_hash: str,
        validated_as: Mapping[str, Any],
        formerly: str | None = None,
    ) -> None:
        """formerly: the hash that an earlier version gave the same configuration."""
        self.path = path
        self._head = {"journal": FORMAT, "config": config_hash, "validated_as": dict(validated_as)}
        self._hashes = (config_hash, formerly)

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.path.parent

    def refuse_others(self) -> None:
        """Raise `UserError` if it belongs to another configuration; change nothing."""
        theirs = _head_in(self._lines())
        if theirs is not None and not (
            theirs.get("journal") in READABLE and theirs.get("config") in self._hashes
        ):
            raise UserError(f"{self.path}: a journal of another configuration, or format")

    def read(self, step: int) -> list[Outcome]:
        """What is there of a step. Torn and damaged lines are dropped, for good."""
        self.refuse_others()
        lines = self._lines()
        head = _head_in(lines)
        found: list[Outcome] = []
        kept = [seal(self._head)]
        for line in lines[1:] if head is not None else []:  # else whose they are is not known
            try:
                outcome = _parse(unseal(line))
            except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
                continue
            comparable = head is not None and head.get("validated_as") == self._head["validated_as"]
            if comparable or outcome.unit.purpose != Purpose.VALIDATION:
                found.append(outcome)
                kept.append(line)
        if kept != lines:
            if lines:
                logger.warning("%s: of %d lines %d are kept", self.path, len(lines), len(kept))
            write_durably(self.path, b"".join(kept))
        return [outcome for outcome in found if outcome.unit.step == step]

    def append(self, outcomes: Iterable[Outcome]) -> None:
        """Take in what came together, with one write and one fsync."""
        append_durably(self.path, b"".join(seal(_plain(outcome)) for outcome in outcomes))

    def clear(self) -> None:
        """Begin anew, once a checkpoint holds what stood here."""
        write_durably(self.path, seal(self._head))

    def forget_failures(self, step: int) -> None:
        """Leave only what came to an end as it should."""
        entries = [_plain(o) for o in self.read(step) if isinstance(o, Result)]
        write_durably(self.path, b"".join(map(seal, [self._head, *entries])))

    def _lines(self) -> list[bytes]:
        try:
            return read_bytes(self.path).splitlines(keepends=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}") from None


def _head_in(lines: list[bytes]) -> dict[str, Any] | None:
    """None where it is torn or damaged, or there is no line."""
    try:
        return unseal(lines[0])
    except (ValueError, IndexError):
        return None


def _plain(outcome: Outcome) -> dict[str, Any]:
    """A line's JSON object."""
    unit = outcome.unit
    entry: dict[str, Any] = {
        "purpose": int(unit.purpose), "step": unit.step, "first": unit.first, "count": unit.count,
    }  # fmt: skip
    if unit.entry:
        entry["entry"] = unit.entry
    if isinstance(outcome, Failure):
        return entry | {"failed": outcome.why}
    return entry | {
        "arrays": {name: np.ascontiguousarray(array) for name, array in outcome.arrays.items()},
        "types": {name: str(array.dtype) for name, array in outcome.arrays.items()},
        "steps": outcome.steps,
        "exploded": outcome.exploded,
        "seconds": outcome.seconds,
        "core_seconds": outcome.core_seconds,
    }


def _parse(entry: Mapping[str, Any]) -> Outcome:
    """The inverse of `_plain`. Raises KeyError, TypeError or ValueError for other lines."""
    if "generation" in entry:
        return _parse_format_2(entry)
    unit = _unit(entry, "step", "entry")
    if "failed" in entry:
        return _failure(unit, entry)
    types = entry["types"]
    if not set(types.values()) <= set(DTYPES):
        raise ValueError(f"arrays of types {types}")
    arrays = {name: np.array(values, types[name]) for name, values in entry["arrays"].items()}
    return _result(unit, arrays, entry)


def _unit(entry: Mapping[str, Any], step: str, number: str) -> Unit:
    """The unit of a line; step, number: what these are called there."""
    of_step, first, count, of_entry = (
        entry[step], entry["first"], entry["count"], entry.get(number, 0)
    )  # fmt: skip
    if not all(type(n) is int and n >= 0 for n in (of_step, first, count - 1, of_entry)):
        raise ValueError("no numbers of a unit")
    return Unit(Purpose(entry["purpose"]), of_step, first, count, entry=of_entry)


def _failure(unit: Unit, entry: Mapping[str, Any]) -> Failure:
    why = entry["failed"]
    if not (isinstance(why, str) and why.strip()):
        raise ValueError("failed for no reason")
    return Failure(unit, why)


def _result(unit: Unit, arrays: Mapping[str, np.ndarray], entry: Mapping[str, Any]) -> Result:
    if any(array.shape[:1] != (unit.count,) for array in arrays.values()):
        raise ValueError("arrays of other members than the unit's")
    steps, exploded, seconds = (entry[name] for name in ("steps", "exploded", "seconds"))
    core_seconds = entry.get("core_seconds", seconds)  # as it once was measured
    if not (type(steps) is int and type(exploded) is int):
        raise ValueError("no numbers of steps")
    return Result(unit, arrays, steps, exploded, float(seconds), float(core_seconds))


def _parse_format_2(entry: Mapping[str, Any]) -> Outcome:
    unit = _unit(entry, "generation", "subject")
    if "failed" in entry:
        return _failure(unit, entry)
    fitness, *others = (np.array(entry[name], float) for name in ("fitness", "kl", "entropy"))
    arrays = dict(zip(("kl", "entropy"), others, strict=True))
    if "episode_returns" in entry:
        arrays["final_return"] = fitness[:, 0]
        arrays["episode_returns"] = np.array(entry["episode_returns"], float)
    else:
        arrays["fitness"] = fitness if unit.purpose == Purpose.TRAINING else fitness[:, 0]
    return _result(unit, arrays, entry)
