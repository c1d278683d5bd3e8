"""The journal: every finished chunk of the generation under way, durable before it counts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from epg.chunk import Chunk, Returns
from epg.errors import UserError
from epg.files import write_durably
from epg.seeds import Purpose


class Journal:
    """A file of JSON lines: a header with the configuration's hash, then a line a chunk."""

    def __init__(self, path: Path, config_hash: str) -> None:
        self._path = path
        self._header = json.dumps({"journal": 1, "config": config_hash}) + "\n"

    def refuse_others(self) -> None:
        """Raise `UserError` if it belongs to another configuration; change nothing."""
        header = self._header.encode()
        try:
            with open(self._path, "rb") as file:
                found = file.read(len(header))
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(f"{self._path}: {error.strerror}") from None
        if found != header:
            raise UserError(f"{self._path}: a journal of another configuration")

    def read(self, generation: int) -> list[Returns]:
        """What is there of a generation. From a torn or damaged line on it is dropped, for good."""
        self.refuse_others()
        if not self._path.exists():
            self.clear()
            return []
        header, *lines = self._path.read_bytes().split(b"\n")
        found = []
        for line in lines[:-1]:
            try:
                found.append(_parse(line))
            except (ValueError, KeyError, TypeError):
                break
        whole = b"\n".join((header, *lines[: len(found)])) + b"\n"
        if whole != b"\n".join((header, *lines)):
            write_durably(self._path, whole)
        return [returns for returns in found if returns.chunk.generation == generation]

    def append(self, returns: Iterable[Returns]) -> None:
        """Take in what came together, with one write and one fsync."""
        lines = "".join(_format(r) + "\n" for r in returns)
        with open(self._path, "ab") as file:
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())

    def clear(self) -> None:
        """Begin anew, once a checkpoint holds what stood here."""
        write_durably(self._path, self._header.encode())


def _format(returns: Returns) -> str:
    chunk = returns.chunk
    return json.dumps(
        {
            "purpose": int(chunk.purpose),
            "generation": chunk.generation,
            "first": chunk.first,
            "count": chunk.count,
            "fitness": [[_or_null(f) for f in pair] for pair in returns.fitness.tolist()],
            "kl": [_or_null(k) for k in returns.kl.tolist()],
            "entropy": [_or_null(e) for e in returns.entropy.tolist()],
            "steps": returns.steps,
            "exploded": returns.exploded,
            "seconds": returns.seconds,
        }
    )


def _parse(line: bytes) -> Returns:
    entry = json.loads(line)
    chunk = Chunk(Purpose(entry["purpose"]), entry["generation"], entry["first"], entry["count"])
    return Returns(
        chunk=chunk,
        fitness=np.array(entry["fitness"], dtype=np.float64),
        kl=np.array(entry["kl"], dtype=np.float64),
        entropy=np.array(entry["entropy"], dtype=np.float64),
        steps=entry["steps"],
        exploded=entry["exploded"],
        seconds=entry["seconds"],
    )


def _or_null(value: float) -> float | None:
    """JSON has no NaN; numpy reads null back as one."""
    return value if np.isfinite(value) else None
