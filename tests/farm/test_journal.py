"""The journal: what was written is read back, whatever became of its last line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from epg.chunk import Chunk, Failure, Outcome, Returns
from epg.errors import UserError
from epg.farm.journal import Journal
from epg.seeds import Purpose

AS = {"alpha": 0.0}


def returns(generation: int, first: int) -> Returns:
    chunk = Chunk(Purpose.TRAINING, generation, first, 2)
    rng = np.random.default_rng([generation, first])
    fitness = rng.normal(size=(2, 2))
    fitness[0, 1] = np.nan
    return Returns(chunk, fitness, rng.normal(size=2), rng.normal(size=2), 96, first, 0.1)


def same(a: Outcome, b: Returns) -> bool:
    arrays = all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True)
        for name in ("fitness", "kl", "entropy")
    )
    return arrays and (a.chunk, a.steps, a.exploded, a.seconds) == (
        b.chunk, b.steps, b.exploded, b.seconds
    )  # fmt: skip


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path / "journal.jsonl", "abc", AS)
    journal.clear()
    return journal


def test_what_is_written_is_read_bit_by_bit(journal: Journal) -> None:
    journal.append([returns(3, 0), returns(3, 2)])
    journal.append([returns(4, 0)])
    found = journal.read(3)
    assert len(found) == 2
    assert same(found[0], returns(3, 0)) and same(found[1], returns(3, 2))
    assert len(journal.read(4)) == 1 and journal.read(5) == []


def test_a_file_cut_anywhere_keeps_its_whole_lines(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    header = path.stat().st_size
    journal.append([returns(0, 0)])
    first = path.stat().st_size
    journal.append([returns(0, 2)])
    whole = path.read_bytes()
    for end in range(header, len(whole) + 1, 7):
        path.write_bytes(whole[:end])
        found = journal.read(0)
        assert len(found) == (end >= first) + (end == len(whole))
        journal.append([returns(0, 4)])
        assert same(journal.read(0)[-1], returns(0, 4))


def test_a_damaged_line_is_dropped_and_no_other(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal.append([returns(0, 0)])
    sound = path.read_bytes()
    for damage in (b"\0\0\0\n", b"{}\n", b"[1]\n"):
        path.write_bytes(sound + damage)
        journal.append([returns(0, 2)])
        found = journal.read(0)
        assert len(found) == 2 and same(found[1], returns(0, 2))
        assert len(path.read_bytes().splitlines()) == 3


def test_failures_are_kept_until_they_are_forgotten(journal: Journal) -> None:
    failure = Failure(returns(0, 2).chunk, "a\ntraceback")
    journal.append([failure, returns(0, 0)])
    assert journal.read(0)[0] == failure
    journal.forget_failures(0)
    (left,) = journal.read(0)
    assert same(left, returns(0, 0))


def test_validations_under_other_terms_are_dropped(journal: Journal, tmp_path: Path) -> None:
    """More generations may change the α that is validated with; training chunks stay."""
    validation = replace(returns(0, 2), chunk=Chunk(Purpose.VALIDATION, 0, 0, 2))
    journal.append([returns(0, 0), validation])
    assert len(journal.read(0)) == 2
    other = Journal(tmp_path / "journal.jsonl", "abc", {"alpha": 0.5})
    assert len(other.read(0)) == 1
    assert len(other.read(0)) == len(journal.read(0)) == 1


def test_a_new_journal_is_empty(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl", "abc", AS)
    assert journal.read(0) == []
    journal.append([returns(0, 0)])
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
