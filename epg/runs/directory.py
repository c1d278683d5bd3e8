"""The run directory: what it holds, and how a run is found again after it stopped."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from epg.config import Config, own_names, read, refuse_own, validate
from epg.errors import UserError
from epg.process.launcher import LAUNCH, this_job
from epg.runs import metrics
from epg.runs.files import (
    as_mistakes,
    read_bytes,
    remove_unfinished,
    seal,
    unseal,
    write_durably,
)
from epg.runs.journal import Journal
from epg.runs.lock import Lock
from epg.runs.submission import SUBMISSION, SUBMITTED_SCRIPT
from epg.upgrade import is_old

BROKEN = (ValueError, LookupError, TypeError, AttributeError)
"""What comes of a manifest that is none."""
JOB_LOGS = ("*.out", "*.err")
"""What SLURM leaves in a run directory, maybe before the run begins."""


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on."""

    step: int
    """steps of the outer loop that are done"""
    tensors: dict[str, Tensor]
    totals: dict[str, float]
    """what is counted over the whole run, and the best validation so far, −∞ before the first"""


class RunDirectory:
    """One run on disk. Only the master touches it."""

    def __init__(
        self,
        path: Path,
        config: Config,
        own_metrics: Sequence[str],
        validated_as: Mapping[str, float],
    ) -> None:
        """Open a run directory, new or to be continued with the same configuration.

        own_metrics: the method's own columns; validated_as: on what its validations hang besides
        the configuration's hash. Raises `UserError`, with nothing changed, if it holds something
        else.
        """
        self.path = path
        self.config = config
        self.columns = metrics.columns_of(own_metrics)
        validated = {**validated_as, "lifetimes": config.validation.lifetimes}
        self.journal = Journal(path / "journal.jsonl", config.hash(), validated)
        self.lock = Lock(path / "lock")
        self._refuse_others()

    @as_mistakes()
    def _refuse_others(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: a file, expected a run directory or none")
        if not self.path.exists() or all(_is_from_before(file) for file in self.path.iterdir()):
            return
        if not (self.path / "config.yaml").is_file():
            raise UserError(f"{self.path}: holds other files and no config.yaml; name a new --run")
        data = read(self.path / "config.yaml")
        foreign = {*own_names(_chosen(data))} - {*own_names(self.config.model_dump(mode="json"))}
        if foreign:  # not to be imported, and another configuration for sure
            raise UserError(
                f"{self.path}: holds a run of another configuration (with "
                f"{', '.join(sorted(foreign))}); name a new --run"
            )
        theirs = validate(data, str(self.path / "config.yaml"))
        if is_old(data) and not self.done:
            raise UserError(
                f"{self.path}: begun by an earlier version (its config.yaml is of an old layout), "
                "which can end it; name a new --run"
            )
        if theirs.hash() != self.config.hash():
            raise UserError(
                f"{self.path}: holds a run of another configuration "
                f"({_first_difference(theirs, self.config)}); name a new --run"
            )
        if not is_old(data):
            self.journal.refuse_others()

    @property
    def done(self) -> bool:
        """Whether all steps that the configuration asks for were done before."""
        try:
            done = json.loads(read_bytes(self.path / "DONE"))["generations"]
            return int(done) >= self.config.steps
        except (OSError, ValueError, KeyError, TypeError):
            return False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep all others out, in a directory that is made if there is none.

        Raises `UserError` if another is at work here.
        """
        with self.lock:
            self._refuse_others()  # who came first may have made it theirs
            remove_unfinished(self.path)
            yield

    def begin(self) -> None:
        """Say that the run goes on; until here nothing is written but the lock."""
        write_durably(self.path / "config.yaml", self.config.yaml().encode())
        stages = ("stages",) if self.config.log.stages is not None else ()
        for name in ("checkpoint", "log", *stages):
            (self.path / name).mkdir(exist_ok=True)
        remove_unfinished(self.path / "checkpoint")
        (self.path / "DONE").unlink(missing_ok=True)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Say that all is done."""
        write_durably(self.path / "DONE", (json.dumps(result) + "\n").encode())

    def write_state(self, state: str, step: int, why: str = "") -> None:
        """Write state.json: how the run stands after so many steps, and why.

        running; saved, on request; done; failed, for good; crashed, to be tried again. A crash that
        left no time for that leaves running.
        """
        entry = {"state": state, "generation": step, "generations": self.config.steps, "why": why,
                 "launch": os.environ.get(LAUNCH, ""), "job": this_job()}  # fmt: skip
        write_durably(self.path / "state.json", (json.dumps(entry) + "\n").encode())

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then let the oldest go. The manifest makes it count."""
        folder = self.path / "checkpoint"
        name = f"{checkpoint.step:08d}"
        data = save({n: t.contiguous() for n, t in checkpoint.tensors.items()})
        write_durably(folder / f"{name}.safetensors", data)
        manifest = {
            "generation": checkpoint.step,
            "config": self.config.hash(),
            "sha256": hashlib.sha256(data).hexdigest(),
            "totals": checkpoint.totals,
        }
        write_durably(folder / f"{name}.json", seal(manifest))
        for old in sorted(folder.glob("*.json"))[: -self.config.log.checkpoints]:
            old.unlink()
            old.with_suffix(".safetensors").unlink(missing_ok=True)

    def resume(self, like: Mapping[str, Tensor]) -> Checkpoint | None:
        """The newest whole checkpoint; None if none was written yet.

        like: tensors of the names, shapes and types that it must have.
        Raises `UserError` if there are some and all are broken: nothing may be overwritten.
        """
        paths = sorted(self._manifests(), reverse=True)
        for path in paths:
            try:
                return self._read_checkpoint(path, like)
            except (*BROKEN, OSError, SafetensorError) as error:
                print(f"epg: {path}: broken checkpoint, left out ({error})", flush=True)
        if paths:
            raise UserError(
                f"{self.path / 'checkpoint'}: every checkpoint is broken; remove it to begin anew"
            )
        return None

    @as_mistakes()
    def _manifests(self) -> list[Path]:
        """Of all checkpoints; a folder that cannot be read is not an empty one."""
        folder = self.path / "checkpoint"
        files = folder.iterdir() if folder.exists() else ()
        return [file for file in files if file.suffix == ".json" and file.name[0] != "."]

    def _read_checkpoint(self, path: Path, like: Mapping[str, Tensor]) -> Checkpoint:
        manifest = unseal(read_bytes(path))
        data = read_bytes(path.with_suffix(".safetensors"))
        if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
            raise ValueError("its tensors do not match their checksum")
        if manifest["config"] != self.config.hash():
            raise ValueError("of another configuration")
        tensors = load(data)
        if {n: (t.shape, t.dtype) for n, t in tensors.items()} != {
            n: (t.shape, t.dtype) for n, t in like.items()
        }:
            raise ValueError("its tensors are not those of this configuration")
        if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise ValueError("holds numbers that are not finite")
        step, totals = manifest["generation"], manifest["totals"]
        best = totals.pop("best_validation")
        if not all(type(n) in (int, float) and math.isfinite(n) for n in (step, *totals.values())):
            raise ValueError("its step or its totals are no numbers")
        totals["best_validation"] = -math.inf if best is None else float(best)
        return Checkpoint(int(step), tensors, totals)

    def start_metrics(self, step: int) -> None:
        """Drop the rows of metrics.csv from `step` on: they are lived again.

        Damaged lines go with them; the file as it was found is then kept beside it.
        """
        path = self.path / metrics.FILE
        rows, damaged = metrics.read_rows(path)
        if damaged:
            aside = path.with_suffix(".csv.damaged")
            write_durably(aside, read_bytes(path))
            print(f"{path}: {damaged} damaged lines are left out; as it was: {aside}", flush=True)
        kept = [row for row in rows if int(row["generation"]) < step]
        metrics.rewrite(path, self.columns, kept)

    def add_metrics(self, row: Mapping[str, float | None]) -> None:
        """Append a step's row to metrics.csv. An empty field means: not measured."""
        metrics.add(self.path / metrics.FILE, self.columns, row)


def read_config(run: Path, trust: bool = False) -> Config:
    """The configuration of a run directory, of any version. Raises `UserError`.

    trust: whether classes of its maker's own, of tasks too, may be imported.
    """
    path = run / "config.yaml"
    data = read(path)
    refuse_own(_chosen(data), str(path), trust)
    return validate(data, str(path))


def _chosen(data: Mapping[str, Any]) -> list[Any]:
    """What of a configuration's data, of any layout, chooses classes."""
    return [data.get(name) for name in ("task", "method", "evolution")]


def _is_from_before(file: Path) -> bool:
    """Whether it comes from a start that wrote no file of a run yet, or from its submission."""
    forms = ("lock", ".lock.*", ".*.new", SUBMITTED_SCRIPT, SUBMISSION, *JOB_LOGS)
    return any(file.match(form) for form in forms)


def _first_difference(theirs: Config, ours: Config) -> str:
    """Names what differs, as `key: there X, here Y`."""
    there, here = _flat(theirs.model_dump(mode="json")), _flat(ours.model_dump(mode="json"))
    free = ("steps", "validation.", "farm.", "log.")
    different = [k for k in here if here[k] != there.get(k) and not k.startswith(free)]
    differences = (f"{k}: there {there.get(k)}, here {here[k]}" for k in different[:3])
    return "; ".join(differences).replace("start_from:", "loss of --from:")


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
