"""What hasty or hostile users type: one line and exit 2, and nothing that steers a terminal."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from epg.cluster.slurm import numbers
from epg.errors import UserError, printable
from epg.runs.files import seal
from epg.seeds import Purpose
from epg.settings import parse_yaml

Run = Callable[..., object]
BOMB = "task: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{key}: &{key} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, key in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text", ['!!int ""', '!!float ""', "!!bool x", "!!timestamp x", "&a [*a]", BOMB, "[" * 5000]
)
def test_yaml_that_is_none_is_told_in_a_line(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_yaml(text)
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 200


def test_aliases_of_a_sound_size_are_read() -> None:
    assert parse_yaml("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}


NINES = "9" * 400


@pytest.mark.parametrize(
    "override",
    [
        "threads=2147483648", "method.pairs=9223372036854775808", "agent.memory=9999999999",
        f"method.sigma={NINES}", f"seed={NINES}", f"learner.buffer={NINES}", "farm.chunk=1e400",
        "agent.hidden=[" + ",".join(["8"] * 100) + "]", "steps=!!int ''", "method.alpha=.nan",
        "lifetime.updates=-1", f"steps={NINES}", "log.checkpoints=10000000000",
    ],
)  # fmt: skip
def test_numbers_beyond_all_bounds_are_one_line(
    epg: Run, tiny: Path, tmp_path: Path, override: str
) -> None:
    said = epg("train", tiny, override, folder=tmp_path)
    assert said.code == 2 and said.out == "" and len(said.err.splitlines()) == 1, said
    assert len(said.err) < 400 and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("seeds", ["0-2%1\ntouch x", "0-2%9;text", "0-2%", "١-٣", "0-" + NINES])
def test_seeds_that_are_more_than_seeds_are_refused(seeds: str) -> None:
    with pytest.raises(UserError, match="--seeds: found"):
        numbers(seeds)


@pytest.mark.parametrize("option", ["--name", "--partition", "--account", "--time"])
def test_no_option_leaves_its_line_of_a_batch_script(
    epg: Run, tiny: Path, tmp_path: Path, option: str
) -> None:
    said = epg("submit", tiny, "--print", option, "x\ntouch /tmp/owned\n#", folder=tmp_path)
    assert said.code == 2 and "touch" not in said.out, said
    assert "allowed: one line of plain characters" in said.err


def test_what_a_run_says_of_itself_steers_no_terminal(
    epg: Run, finished: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    state = json.loads((run / "state.json").read_text())
    (run / "state.json").write_text(json.dumps(state | {"why": "\x1b]0;owned\x07\x9b2J"}))
    said = epg("status", run, folder=tmp_path)
    assert said.code == 0 and "owned" in said.out
    assert not any((ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 for c in said.out)
    assert printable("φ ‖x‖ –\x1b[0m") == "φ ‖x‖ –?[0m"


@pytest.mark.parametrize("content", ['{"generations": "x"}', "[]", "", None])
def test_a_done_that_says_nothing_is_none(
    epg: Run, tiny: Path, finished: Path, tmp_path: Path, content: str | None
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "DONE").unlink()
    if content is None:
        (run / "DONE").mkdir()
    else:
        (run / "DONE").write_text(content)
    said = epg("train", tiny, "--run", run, folder=tmp_path)
    if content is None:
        assert said.code != 0 and "Traceback" not in said.err and "DONE" in said.err
    else:
        assert said.code == 0 and "done: " in said.out


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "journal.jsonl", "lock"])
def test_a_pipe_in_place_of_a_file_is_waited_for_by_nobody(
    epg: Run, tiny: Path, finished: Path, tmp_path: Path, name: str
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "job.json").write_text('{"job": "12", "seeds": null}')
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    assert epg("status", run, folder=tmp_path).code == 0
    said = epg("train", tiny, "--run", run, "steps=4", folder=tmp_path)
    assert said.code == 2 and len(said.err.splitlines()) == 1 and "run" in said.err, said


def test_a_link_in_a_run_leads_no_log_elsewhere(
    epg: Run, tiny: Path, finished: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "log" / "rank-0.log").unlink()
    (run / "log" / "rank-0.log").symlink_to(tmp_path / "elsewhere")
    said = epg("train", tiny, "--run", run, "steps=4", folder=tmp_path)
    assert said.code == 0 and "rank-0.log: not a file" in said.out
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("change", [{}, {"count": 10**18}, {"first": -1}, {"step": "3"}])
def test_a_journal_of_wrong_content_with_right_checksums(
    epg: Run, tiny: Path, finished: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    """Arrays that the method does not know; lines that are none."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    entry = {
        "purpose": int(Purpose.TRAINING), "step": 3, "first": 0, "count": 4, "steps": 1,
        "exploded": 0, "seconds": 1.0, "arrays": {"x": [0.0] * 4}, "types": {"x": "float64"},
    }  # fmt: skip
    with (run / "journal.jsonl").open("ab") as journal:
        journal.write(seal(entry | change))
    said = epg("train", tiny, "--run", run, "steps=4", folder=tmp_path)
    if change:
        assert (said.code, said.err) == (0, ""), said
    else:
        assert said.code == 2 and len(said.err.splitlines()) == 1, said
        assert "journal.jsonl: its results of step 4" in said.err and "KeyError" in said.err


def test_a_full_output_and_one_without_letters_end_in_words(command: Run, tmp_path: Path) -> None:
    said = command("sh", "-c", "python -m epg tasks > /dev/full", folder=tmp_path)
    assert (said.code, said.err) == (1, "epg: standard output: No space left on device\n")
    said = command(
        "sh", "-c", "PYTHONIOENCODING=ascii python -m epg tasks point-goal", folder=tmp_path
    )
    assert said.code == 0 and said.err == ""
