"""The journal: what became of each chunk of the generation under way, durable before it counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from epg.chunk import Chunk, Failure, Outcome, Returns
from epg.errors import UserError
from epg.files import append_durably, seal, unseal, write_durably
from epg.log import logger
from epg.seeds import Purpose

FORMAT = 2


class Journal:
    """A file of JSON lines, each with a checksum: a header, then a line a chunk that ended.

    The header has the configuration's hash, and `validated_as`, on what validations hang besides.
    """

    def __init__(self, path: Path, config_hash: str, validated_as: Mapping[str, Any]) -> None:
        self._path = path
        self._head = {"journal": FORMAT, "config": config_hash, "validated_as": dict(validated_as)}

    def refuse_others(self) -> None:
        """Raise `UserError` if it belongs to another configuration; change nothing."""
        theirs = _head_in(self._lines())
        if theirs is not None and any(
            theirs.get(k) != self._head[k] for k in ("journal", "config")
        ):
            raise UserError(f"{self._path}: a journal of another configuration, or format")

    def read(self, generation: int) -> list[Outcome]:
        """What is there of a generation. Torn and damaged lines are dropped, for good."""
        self.refuse_others()
        lines = self._lines()
        head = _head_in(lines)
        found: list[Outcome] = []
        kept = [seal(self._head)]
        for line in lines[1:] if head is not None else []:  # else whose they are is not known
            try:
                outcome = _parse(unseal(line))
            except (ValueError, KeyError, TypeError):
                continue
            if head == self._head or outcome.chunk.purpose != Purpose.VALIDATION:
                found.append(outcome)
                kept.append(line)
        if kept != lines:
            if lines:
                logger.warning("%s: of %d lines %d are kept", self._path, len(lines), len(kept))
            write_durably(self._path, b"".join(kept))
        return [outcome for outcome in found if outcome.chunk.generation == generation]

    def append(self, outcomes: Iterable[Outcome]) -> None:
        """Take in what came together, with one write and one fsync."""
        append_durably(self._path, b"".join(seal(_plain(outcome)) for outcome in outcomes))

    def clear(self) -> None:
        """Begin anew, once a checkpoint holds what stood here."""
        write_durably(self._path, seal(self._head))

    def forget_failures(self, generation: int) -> None:
        """Leave only what came to an end as it should."""
        entries = [_plain(o) for o in self.read(generation) if isinstance(o, Returns)]
        write_durably(self._path, b"".join(map(seal, [self._head, *entries])))

    def _lines(self) -> list[bytes]:
        try:
            return self._path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{self._path}: {error.strerror}") from None


def _head_in(lines: list[bytes]) -> dict[str, Any] | None:
    """None where it is torn or damaged, or there is no line."""
    try:
        return unseal(lines[0])
    except (ValueError, IndexError):
        return None


def _plain(outcome: Outcome) -> dict[str, Any]:
    chunk = outcome.chunk
    entry: dict[str, Any] = {
        "purpose": int(chunk.purpose),
        "generation": chunk.generation,
        "first": chunk.first,
        "count": chunk.count,
    }
    if chunk.subject:
        entry["subject"] = chunk.subject
    if isinstance(outcome, Failure):
        return entry | {"failed": outcome.why}
    if outcome.episode_returns is not None:
        entry["episode_returns"] = outcome.episode_returns
    return entry | {
        "fitness": outcome.fitness,
        "kl": outcome.kl,
        "entropy": outcome.entropy,
        "steps": outcome.steps,
        "exploded": outcome.exploded,
        "seconds": outcome.seconds,
    }


def _parse(entry: Mapping[str, Any]) -> Outcome:
    chunk = Chunk(
        Purpose(entry["purpose"]), entry["generation"], entry["first"], entry["count"],
        subject=entry.get("subject", 0),
    )  # fmt: skip
    if "failed" in entry:
        return Failure(chunk, entry["failed"])
    return Returns(
        chunk=chunk,
        fitness=_numbers(entry["fitness"]),
        kl=_numbers(entry["kl"]),
        entropy=_numbers(entry["entropy"]),
        steps=entry["steps"],
        exploded=entry["exploded"],
        seconds=entry["seconds"],
        episode_returns=_numbers(entry["episode_returns"]) if "episode_returns" in entry else None,
    )


def _numbers(values: Any) -> np.ndarray:
    return np.array(values, dtype=np.float64)
