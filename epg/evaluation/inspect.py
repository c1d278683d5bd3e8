"""`epg inspect`: what a saved file has learned, in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epg import tasks
from epg.errors import UserError
from epg.evaluation.gradients import GradientReport, inspect
from epg.evaluation.predictions import PredictionReport, inspect_predictions, predicts
from epg.evaluation.protocol import SavedFiles
from epg.runs.files import read_object, write_durably


def inspect_into(
    folder: Path,
    path: str | Path,
    task: str | dict[str, Any],
    lifetimes: int = 16,
    seed: int = 0,
    trust: bool = False,
) -> GradientReport | PredictionReport:
    """The same of a saved file; anatomy-TASK.json and .png go into a folder, new or not.

    task: that of the file's training if empty.

    Raises `UserError` if those of another inspection are there, and for what cannot be written.
    """
    loss = SavedFiles([path], trust)
    if not task:
        specs = loss.tasks(trust)
        if len(specs) != 1:
            raise UserError(f"{path}: learned on {len(specs)} tasks; name one with --task")
        [task] = specs
    name = f"anatomy-{tasks.file_name(task)}"
    wanted = {"loss": loss.digests[0], "seed": seed, "lifetimes": lifetimes}
    _refuse_others(folder / f"{name}.json", wanted)  # before minutes of work
    look = inspect_predictions if predicts(loss) else inspect
    report = look(loss, task, lifetimes, seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(report.plain(), indent=1, ensure_ascii=False) + "\n"
        write_durably(folder / f"{name}.json", text.encode())
        write_durably(folder / f"{name}.png", report.picture())
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from None
    return report


def _refuse_others(path: Path, about: Mapping[str, Any]) -> None:
    there = read_object(path)
    for key, here in about.items():
        if there and there.get(key) != here:
            shown = (str(value)[:8] for value in (there.get(key), here))
            raise UserError(
                "{}: holds another inspection ({}: there {}, here {}); name a new --out".format(
                    path, key, *shown
                )
            )
