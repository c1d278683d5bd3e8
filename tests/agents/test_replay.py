"""What off-policy agents remember, and the pieces that are drawn of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from epg.agents.buffer import Transitions
from epg.agents.pieces import Pieces
from epg.agents.replay import Episodes, Replay

LENGTHS = ((3, 5, 2, 7), (6, 1, 4, 6))
"""Of the finished episodes of two lives, of the same number of steps altogether; one runs on."""
RUNNING = 4


def lived(chunk: int, length: int = 100) -> Replay:
    """Two lives, remembered in chunks. A step is known by its number and its episode's."""
    replay = Replay(2, length, 2, 1)
    rows: list[list[tuple[int, int, int]]] = [[], []]
    for life, lengths in enumerate(LENGTHS):
        for episode, count in enumerate((*lengths, RUNNING)):
            for step in range(count):
                end = step == count - 1 and episode < len(lengths)
                rows[life].append((episode, step, end))
    table = torch.tensor(rows)
    for first in range(0, table.shape[1], chunk):
        part = table[:, first : first + chunk]
        seen = part[..., :2].float()
        ends = part[..., 2].bool()
        terminated = ends & (part[..., 0] % 2 == 0)  # the others are cut by the horizon
        replay.append(
            Transitions(
                seen,
                10 + seen[..., 1:],
                100 + seen[..., 1],
                terminated,
                ends & ~terminated,
                seen + 0.5,
            )
        )
    return replay


def rows_of(pieces: Pieces, life: int, piece: int) -> list[list[float]]:
    """Episode and step of each row of a piece."""
    found: Any = pieces.observations[life, piece].tolist()
    return list(found)


@pytest.mark.parametrize("chunk", [1, 4, 50])
def test_pieces_are_of_one_finished_episode_and_padded_behind(chunk: int) -> None:
    replay = lived(chunk)
    assert replay.episodes == [4, 4] and replay.lived == 17 + RUNNING
    chance = torch.from_numpy(np.random.default_rng(0).random((2, 400, 2)))
    pieces = replay.pieces(chance, 4)
    seen: list[set[tuple[int, int]]] = [set(), set()]
    for life, lengths in enumerate(LENGTHS):
        for piece in range(400):
            count = int(pieces.lengths[life, piece])
            rows = rows_of(pieces, life, piece)
            episode, first = map(int, rows[0])
            assert count == min(4, lengths[episode]) and first + count <= lengths[episode]
            assert rows[:count] == [[episode, first + i] for i in range(count)]
            seen[life].add((episode, first))
            ended = pieces.ended[life, piece].tolist()
            last = first + count == lengths[episode] and episode % 2 == 0
            assert ended == [float(last and i == count - 1) for i in range(4)]
            assert pieces.mask[life, piece].tolist() == [float(i < count) for i in range(4)]
        # every beginning that has room, and no other
        wanted = {(e, s) for e, n in enumerate(lengths) for s in range(max(1, n - 4 + 1))}
        assert seen[life] == wanted
    outside = ~pieces.mask.bool()
    for name in ("observations", "actions", "rewards", "ended", "next_observations"):
        assert not getattr(pieces, name)[outside].any()
    inside = pieces.mask.bool()
    assert torch.equal(pieces.rewards[inside], 100 + pieces.observations[..., 1][inside])
    assert torch.equal(pieces.next_observations[inside], pieces.observations[inside] + 0.5)


def test_episodes_are_as_likely_whatever_their_length() -> None:
    chance = torch.from_numpy(np.random.default_rng(1).random((2, 4000, 2)))
    pieces = lived(4).pieces(chance, 2)
    shares = [(pieces.observations[0, :, 0, 0] == e).float().mean() for e in range(4)]
    assert [float(share) for share in shares] == pytest.approx([0.25] * 4, abs=0.03)


def test_single_steps_are_drawn_from_all_that_is_there() -> None:
    replay = lived(4)
    chance = torch.linspace(0, 1 - 1e-9, 500).expand(2, -1).double()
    steps = replay.steps(chance)
    assert steps.rewards.shape == (2, 500, 1)
    found = {tuple(row) for row in steps.observations[0, :, 0].tolist()}
    assert len(found) == replay.lived and (4.0, 3.0) in found  # of the running episode, too


def test_what_was_overwritten_is_drawn_no_more() -> None:
    """A ring of ten rows holds but the last finished episode of the first life whole."""
    replay = lived(3, length=12)
    assert min(replay.episodes) == 1
    chance = torch.from_numpy(np.random.default_rng(2).random((2, 50, 2)))
    pieces = replay.pieces(chance, 3)
    assert {int(row[0]) for row in pieces.observations[0, :, 0].tolist()} == {3}
    for piece in range(50):
        rows = rows_of(pieces, 0, piece)
        assert [row[1] for row in rows] == [rows[0][1] + i for i in range(3)]


def test_episodes_are_those_of_a_list_whatever_comes_and_goes() -> None:
    rng = np.random.default_rng(0)
    found, wanted, begun = Episodes(), [], 0
    for _ in range(3000):
        count = int(rng.integers(1, 20))
        found.append(begun, count)
        wanted.append((begun, count))
        begun += count
        if rng.random() < 0.3:
            oldest = begun - int(rng.integers(0, 3000))
            found.forget(oldest)
            wanted = [each for each in wanted if each[0] >= oldest]
        assert len(found) == len(wanted)
    assert [tuple(row) for row in found.table.tolist()] == wanted
    assert [tuple(row) for row in Episodes(wanted).table.tolist()] == wanted
