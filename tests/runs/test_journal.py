"""The journal: what was written is read back, whatever became of its last line."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epg.errors import UserError
from epg.farm.work import Failure, Outcome, Result, Unit
from epg.runs.files import seal
from epg.runs.journal import Journal
from epg.seeds import Purpose

AS = {"alpha": 0.0}


def result(step: int, first: int) -> Result:
    unit = Unit(Purpose.TRAINING, step, first, 2)
    rng = np.random.default_rng([step, first])
    fitness = rng.normal(size=(2, 2))
    fitness[0, 1] = np.nan
    arrays = {"fitness": fitness, "kl": rng.normal(size=2), "entropy": rng.normal(size=2)}
    return Result(unit, arrays, 96, first, 0.1, core_seconds=0.2)


def same(a: Outcome, b: Result) -> bool:
    """But for NaN, whose bits a journal does not keep, each array to the last bit."""
    assert isinstance(a, Result) and set(a.arrays) == set(b.arrays)
    arrays = all(
        a.arrays[name].dtype == array.dtype
        and np.array_equal(a.arrays[name], array, equal_nan=array.dtype.kind == "f")
        for name, array in b.arrays.items()
    )
    return arrays and (a.unit, a.steps, a.exploded, a.seconds, a.core_seconds) == (
        b.unit, b.steps, b.exploded, b.seconds, b.core_seconds
    )  # fmt: skip


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path / "journal.jsonl", "abc", AS)
    journal.clear()
    return journal


def test_what_is_written_is_read_bit_by_bit(journal: Journal) -> None:
    journal.append([result(3, 0), result(3, 2)])
    journal.append([result(4, 0)])
    found = journal.read(3)
    assert len(found) == 2
    assert same(found[0], result(3, 0)) and same(found[1], result(3, 2))
    assert len(journal.read(4)) == 1 and journal.read(5) == []


def test_a_file_cut_anywhere_keeps_its_whole_lines(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    header = path.stat().st_size
    journal.append([result(0, 0)])
    first = path.stat().st_size
    journal.append([result(0, 2)])
    whole = path.read_bytes()
    for end in range(header, len(whole) + 1, 7):
        path.write_bytes(whole[:end])
        found = journal.read(0)
        assert len(found) == (end >= first) + (end == len(whole))
        journal.append([result(0, 4)])
        assert same(journal.read(0)[-1], result(0, 4))


def test_a_damaged_line_is_dropped_and_no_other(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal.append([result(0, 0)])
    sound = path.read_bytes()
    for damage in (b"\0\0\0\n", b"{}\n", b"[1]\n"):
        path.write_bytes(sound + damage)
        journal.append([result(0, 2)])
        found = journal.read(0)
        assert len(found) == 2 and same(found[1], result(0, 2))
        assert len(path.read_bytes().splitlines()) == 3


def test_failures_are_kept_until_they_are_forgotten(journal: Journal) -> None:
    failure = Failure(result(0, 2).unit, "a\ntraceback")
    journal.append([failure, result(0, 0)])
    assert journal.read(0)[0] == failure
    journal.forget_failures(0)
    (left,) = journal.read(0)
    assert same(left, result(0, 0))


def test_validations_under_other_terms_are_dropped(journal: Journal, tmp_path: Path) -> None:
    """More generations may change the α that is validated with; training units stay."""
    validation = replace(result(0, 2), unit=Unit(Purpose.VALIDATION, 0, 0, 2))
    journal.append([result(0, 0), validation])
    assert len(journal.read(0)) == 2
    other = Journal(tmp_path / "journal.jsonl", "abc", {"alpha": 0.5})
    assert len(other.read(0)) == 1
    assert len(other.read(0)) == len(journal.read(0)) == 1


def test_a_new_journal_is_empty(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl", "abc", AS)
    assert journal.read(0) == []
    journal.append([result(0, 0)])
    journal.clear()
    assert journal.read(0) == []


def test_another_configurations_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path, "abd", AS).clear()
    content = path.read_bytes()
    journal = Journal(path, "abc", AS)
    for look in (journal.refuse_others, lambda: journal.read(0)):
        with pytest.raises(UserError, match="another configuration"):
            look()
    assert path.read_bytes() == content


def test_arrays_of_all_types_come_back_bit_by_bit(journal: Journal) -> None:
    rng = np.random.default_rng(0)
    small = np.finfo(np.float32).smallest_subnormal
    single = rng.normal(size=(3, 5)).astype(np.float32) * np.float32(1e-3)
    single[0, :3] = small, np.finfo(np.float32).max, -0.0
    double = rng.normal(size=(3, 2, 2)) * 1e-300
    double[0, 0] = 5e-324, -0.0
    whole = np.array([-(2**63), 2**63 - 1, 2**53 + 1])
    arrays = {
        "single": single, "double": double, "whole": whole, "transposed": single[:, ::2].T.copy().T,
        "int32": whole.clip(-5, 5).astype(np.int32), "uint8": np.array([0, 255, 7], np.uint8),
        "bool": np.array([True, False, True]), "empty": np.zeros((3, 0), np.float32),
    }  # fmt: skip
    written = Result(Unit(Purpose.TRAINING, 0, 0, 3), arrays, 1, 2, 0.1 + 0.2)
    journal.append([written])
    (found,) = journal.read(0)
    assert isinstance(found, Result) and same(found, written)
    for name, array in arrays.items():
        assert found.arrays[name].tobytes() == array.tobytes(), name
        assert found.arrays[name].shape == array.shape, name


def test_an_array_of_another_type_is_dropped(journal: Journal, tmp_path: Path) -> None:
    """A file is no place from which to make objects."""
    journal.append([result(0, 0)])
    line = {
        "purpose": 1, "step": 0, "first": 2, "count": 1, "arrays": {"fitness": ["x"]},
        "types": {"fitness": "object"}, "steps": 1, "exploded": 0, "seconds": 0.1,
    }  # fmt: skip
    with open(tmp_path / "journal.jsonl", "ab") as file:
        file.write(seal(line))
    (left,) = journal.read(0)
    assert same(left, result(0, 0))


# Journals of format 2, whose arrays had no names of their own


def format_2(path: Path, *lines: dict[str, Any], config: str = "abc") -> Journal:
    """A journal as version 0.1 has written it; the journal that reads it."""
    head = {"journal": 2, "config": config, "validated_as": AS}
    path.write_bytes(b"".join(map(seal, [head, *lines])))
    return Journal(path, "abc", AS)


def line_2(purpose: Purpose, first: int, fitness: np.ndarray, **more: Any) -> dict[str, Any]:
    """A unit's line, as version 0.1 has written it."""
    count = len(fitness)
    return {
        "purpose": int(purpose), "generation": 3, "first": first, "count": count, **more,
        "fitness": fitness, "kl": np.arange(count) / 3, "entropy": np.arange(count) / 7,
        "steps": 96, "exploded": 1, "seconds": 0.1,
    }  # fmt: skip


def expected(unit: Unit, **arrays: np.ndarray) -> Result:
    learned = {"kl": np.arange(unit.count) / 3, "entropy": np.arange(unit.count) / 7}
    return Result(unit, {**arrays, **learned}, 96, 1, 0.1, core_seconds=0.1)


def test_format_2_is_read_with_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs, alone = rng.normal(size=(2, 2)), rng.normal(size=(3, 1))
    pairs[1, 0] = math.nan
    evaluated, episodes = rng.normal(size=(2, 1)), rng.normal(size=(2, 4))
    episodes[0, 1] = math.nan
    failed = {"purpose": 1, "generation": 3, "first": 2, "count": 2, "failed": "a\ntraceback"}
    path = tmp_path / "journal.jsonl"
    journal = format_2(
        path,
        line_2(Purpose.TRAINING, 0, pairs),
        line_2(Purpose.VALIDATION, 4, alone),
        line_2(Purpose.EVALUATION, 0, evaluated, subject=5, episode_returns=episodes),
        failed,
    )
    units = (
        Unit(Purpose.TRAINING, 3, 0, 2),
        Unit(Purpose.VALIDATION, 3, 4, 3),
        Unit(Purpose.EVALUATION, 3, 0, 2, entry=5),
    )
    wanted = [
        expected(units[0], fitness=pairs),
        expected(units[1], fitness=alone[:, 0]),
        expected(units[2], final_return=evaluated[:, 0], episode_returns=episodes),
    ]
    for _ in range(2):  # the second time under a header of today
        *found, failure = journal.read(3)
        assert all(same(a, b) for a, b in zip(found, wanted, strict=True))
        assert failure == Failure(Unit(Purpose.TRAINING, 3, 2, 2), "a\ntraceback")
        assert journal.read(2) == []
    assert path.read_bytes().startswith(b'{"journal":3')
    journal.append([result(3, 6)])
    assert same(journal.read(3)[-1], result(3, 6)) and len(journal.read(3)) == 5


def test_format_2_of_other_terms_keeps_no_validation(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    format_2(
        path,
        line_2(Purpose.TRAINING, 0, np.zeros((2, 2))),
        line_2(Purpose.VALIDATION, 0, np.zeros((2, 1))),
    )
    (found,) = Journal(path, "abc", {"alpha": 0.5}).read(3)
    assert found.unit.purpose == Purpose.TRAINING


def test_format_2_of_another_configuration_is_refused(tmp_path: Path) -> None:
    """Unless its hash is the one that the same configuration had at that time."""
    path = tmp_path / "journal.jsonl"
    line = line_2(Purpose.TRAINING, 0, np.zeros((2, 2)))
    journal = format_2(path, line, config="abd")
    content = path.read_bytes()
    for look in (journal.refuse_others, lambda: journal.read(3)):
        with pytest.raises(UserError, match="another configuration"):
            look()
    assert path.read_bytes() == content
    (found,) = Journal(path, "abc", AS, formerly="abd").read(3)
    assert isinstance(found, Result)


@pytest.mark.parametrize("version", [1, 4, "2", None])
def test_other_formats_are_refused(tmp_path: Path, version: object) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(seal({"journal": version, "config": "abc", "validated_as": AS}))
    with pytest.raises(UserError, match="or format"):
        Journal(path, "abc", AS).refuse_others()
