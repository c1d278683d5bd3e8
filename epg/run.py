"""The run directory: what it holds, and how a run is found again after it stopped."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from epg.config import Config, parse_yaml, validate
from epg.errors import UserError
from epg.farm.journal import Journal
from epg.files import append_durably, remove_unfinished, seal, unseal, write_durably
from epg.launch import LAUNCH, this_job
from epg.lock import Lock

METRICS = (
    "generation", "fitness_mean", "fitness_best", "fitness_worst", "validation", "ties", "failures",
    "invalid", "pair_signal", "gradient_cosine", "phi_norm", "sigma", "alpha", "learning_rate",
    "inner_kl", "inner_entropy", "exploded", "environment_steps", "validation_steps",
    "core_seconds", "steps_per_second",
)  # fmt: skip
"""The columns of metrics.csv; docs/metrics.md says what each is."""

SUBMITTED_SCRIPT, SUBMISSION, JOB_LOGS = "job.sh", "job.json", ("*.out", "*.err")
"""What `epg submit` and SLURM leave in a run directory, maybe before the run begins."""


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on."""

    generation: int
    """generations done"""
    tensors: dict[str, Tensor]
    totals: dict[str, float]
    """what is counted over the whole run, and the best validation so far, −∞ before the first"""


class RunDirectory:
    """One run on disk. Only the master touches it."""

    def __init__(self, path: Path, config: Config) -> None:
        """Open a run directory, new or to be continued with the same configuration.

        Raises `UserError`, with nothing changed, if it holds something else.
        """
        self.path = path
        self.config = config
        validated_as = {"alpha": config.final_alpha, "lifetimes": config.validation.lifetimes}
        self.journal = Journal(path / "journal.jsonl", config.hash(), validated_as)
        self.lock = Lock(path / "lock")
        self._refuse_others()

    def _refuse_others(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: a file, expected a run directory or none")
        if not self.path.exists() or all(_is_unborn(file) for file in self.path.iterdir()):
            return
        if not (self.path / "config.yaml").exists():
            raise UserError(f"{self.path}: holds other files and no config.yaml; name a new --run")
        theirs = read_config(self.path)
        if theirs.hash() != self.config.hash():
            raise UserError(
                f"{self.path}: holds a run of another configuration "
                f"({_first_difference(theirs, self.config)}); name a new --run"
            )
        self.journal.refuse_others()

    @property
    def done(self) -> bool:
        """Whether all generations that the configuration asks for were done before."""
        marker = self.path / "DONE"
        if not marker.exists():
            return False
        try:
            finished: int = json.loads(marker.read_text())["generations"]
        except (ValueError, KeyError, TypeError):
            return False
        return finished >= self.config.evolution.generations

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep all others out, in a directory that is made if there is none.

        Raises `UserError` if another is at work here.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}") from None
        with self.lock:
            self._refuse_others()  # who came first may have made it theirs
            remove_unfinished(self.path)
            yield

    def begin(self) -> None:
        """Say that the run goes on; until here nothing is written but the lock."""
        write_durably(self.path / "config.yaml", self.config.yaml().encode())
        for name in ("checkpoint", "log"):
            (self.path / name).mkdir(exist_ok=True)
        remove_unfinished(self.path / "checkpoint")
        (self.path / "DONE").unlink(missing_ok=True)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Say that all is done."""
        write_durably(self.path / "DONE", (json.dumps(result) + "\n").encode())

    def say(self, state: str, generation: int, why: str = "") -> None:
        """Write state.json, and why.

        running; saved, on request; done; failed, for good; crashed, to be tried again. A crash that
        left no time for that leaves running.
        """
        entry = {"state": state, "generation": generation, "why": why,
                 "launch": os.environ.get(LAUNCH, ""), "job": this_job()}  # fmt: skip
        write_durably(self.path / "state.json", (json.dumps(entry) + "\n").encode())

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then let the oldest go. The manifest makes it count."""
        folder = self.path / "checkpoint"
        name = f"{checkpoint.generation:08d}"
        data = save({n: t.contiguous() for n, t in checkpoint.tensors.items()})
        write_durably(folder / f"{name}.safetensors", data)
        manifest = {
            "generation": checkpoint.generation,
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
        paths = sorted((self.path / "checkpoint").glob("*.json"), reverse=True)
        for path in paths:
            try:
                return self._read_checkpoint(path, like)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                print(f"epg: {path}: broken checkpoint, left out ({error})", flush=True)
        if paths:
            raise UserError(
                f"{self.path / 'checkpoint'}: every checkpoint is broken; remove it to begin anew"
            )
        return None

    def _read_checkpoint(self, path: Path, like: Mapping[str, Tensor]) -> Checkpoint:
        manifest = unseal(path.read_bytes())
        data = path.with_suffix(".safetensors").read_bytes()
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
        totals = {k: -math.inf if v is None else v for k, v in manifest["totals"].items()}
        return Checkpoint(manifest["generation"], tensors, totals)

    def start_metrics(self, generation: int) -> None:
        """Drop the rows of metrics.csv from `generation` on: they are lived again."""
        path = self.path / "metrics.csv"
        rows = []
        if path.exists():
            with open(path, newline="") as file:
                rows = [
                    row
                    for row in csv.DictReader(file)
                    if None not in row.values() and int(row["generation"]) < generation
                ]
        text = io.StringIO()
        writer = csv.DictWriter(text, METRICS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_durably(path, text.getvalue().encode())

    def add_metrics(self, row: Mapping[str, float | None]) -> None:
        """Append a generation's row to metrics.csv. An empty field means: not measured."""
        text = io.StringIO()
        writer = csv.DictWriter(text, METRICS, lineterminator="\n")
        writer.writerow({k: "" if row[k] is None else _plain(row[k]) for k in METRICS})
        append_durably(self.path / "metrics.csv", text.getvalue().encode())


def read_config(run: Path) -> Config:
    """The configuration of a run directory."""
    path = run / "config.yaml"
    try:
        data = parse_yaml(path.read_text())
    except (OSError, UnicodeDecodeError, UserError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: cannot be read (no keys and values)")
    return validate(data, str(path))


def _is_unborn(file: Path) -> bool:
    """Whether it comes from a start that wrote no file of a run yet, or from its submission."""
    forms = ("lock", ".lock.*", ".*.new", SUBMITTED_SCRIPT, SUBMISSION, *JOB_LOGS)
    return any(file.match(form) for form in forms)


def _plain(value: float | None) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _first_difference(theirs: Config, ours: Config) -> str:
    """Names what differs, as `key: there X, here Y`."""
    there, here = _flat(theirs.model_dump(mode="json")), _flat(ours.model_dump(mode="json"))
    free = ("evolution.generations", "validation.", "farm.", "log.")
    different = [k for k in here if here[k] != there.get(k) and not k.startswith(free)]
    said = (f"{k}: there {there.get(k)}, here {here[k]}" for k in different[:3])
    return "; ".join(said).replace("start_from:", "loss of --from:")


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
