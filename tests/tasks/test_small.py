"""The small tasks of torch's own, each beside the same told step by step in plain Python."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from epg import tasks
from epg.tasks.base import Mdp, Step
from epg.tasks.grid import Grid, free_cell

STEPS = 700
DRAWN = 3 * STEPS


class Life(ABC):
    """One environment, alone; an episode is cut at `horizon`."""

    horizon: int
    actions: int

    def __init__(self, rng: np.random.Generator, mdp: Mdp) -> None:
        self.mdp = mdp
        chances = self.draw_chances(rng.spawn(1)[0])
        self.chances = iter(chances if chances is not None else itertools.repeat(None))
        self.starts = self.draw_starts(rng)
        self.t = 0
        self.begin()

    def draw_starts(self, rng: np.random.Generator) -> Iterator[Any]:
        return itertools.repeat(None)

    def draw_chances(self, rng: np.random.Generator) -> Any:
        return None

    @abstractmethod
    def start(self, drawn: Any) -> None:
        """Begin an episode with what was drawn."""

    @abstractmethod
    def act(self, action: int, chance: Any) -> tuple[float, bool]:
        """The reward, and whether the MDP ends."""

    @abstractmethod
    def seen(self) -> list[int]:
        """What is 1 of the observation."""

    def begin(self) -> None:
        self.age = 0
        self.start(next(self.starts))

    def step(self, action: int) -> tuple[list[int], list[int], float, bool, bool]:
        reward, terminated = self.act(action, next(self.chances))
        self.t += 1
        self.age += 1
        after = self.seen()
        truncated = self.age == self.horizon and not terminated
        if terminated or truncated:
            self.begin()
        return self.seen(), after, reward, terminated, truncated


class CatchLife(Life):
    horizon, actions = 20, 3

    def draw_starts(self, rng: np.random.Generator) -> Iterator[Any]:
        return iter(rng.integers(0, 5, DRAWN).tolist())

    def start(self, drawn: Any) -> None:
        self.ball, self.paddle = [0, drawn], 2

    def act(self, action: int, chance: Any) -> tuple[float, bool]:
        self.ball[0] += 1
        if action == 0 and self.paddle > 0:
            self.paddle -= 1
        if action == 2 and self.paddle < 4:
            self.paddle += 1
        if self.ball[0] < 9:
            return 0.0, False
        return (1.0 if self.ball[1] == self.paddle else -1.0), True

    def seen(self) -> list[int]:
        return [5 * self.ball[0] + self.ball[1], 45 + self.paddle]


class TwoColoursLife(Life):
    horizon, actions = 100, 4

    def draw_starts(self, rng: np.random.Generator) -> Iterator[Any]:
        orders = (np.argsort(rng.random(25)) for _ in range(DRAWN))
        return ([divmod(int(cell), 5) for cell in order[:3]] for order in orders)

    def draw_chances(self, rng: np.random.Generator) -> Any:
        return rng.integers(0, 23, DRAWN).tolist()

    def start(self, drawn: Any) -> None:
        self.agent, *self.objects = drawn

    def act(self, action: int, chance: Any) -> tuple[float, bool]:
        row, column = self.agent
        row, column = [
            (row - 1, column), (row, column + 1), (row + 1, column), (row, column - 1)
        ][action]  # fmt: skip
        self.agent = (min(max(row, 0), 4), min(max(column, 0), 4))
        reward = 0.0
        if self.agent in self.objects:
            colour = self.objects.index(self.agent)
            pays = int(self.t // self.mdp["flip"]) % 2
            reward = 1.0 if colour == pays else -1.0
            others = (self.agent, self.objects[1 - colour])
            free = [(r, c) for r in range(5) for c in range(5) if (r, c) not in others]
            assert len(free) == 23
            self.objects[colour] = free[chance]
        return reward - 0.04, False

    def seen(self) -> list[int]:
        places = [self.agent, *self.objects]
        return [25 * i + 5 * row + column for i, (row, column) in enumerate(places)]


class WalkLife(Life):
    horizon, actions = 100, 2

    def draw_chances(self, rng: np.random.Generator) -> Any:
        return rng.random(DRAWN).tolist()

    def start(self, drawn: Any) -> None:
        self.at = 2

    def act(self, action: int, chance: Any) -> tuple[float, bool]:
        right = (action == 1) != (chance < self.mdp["slip"])
        self.at += 1 if right else -1
        pays = math.cos(2 * math.pi * self.t / self.mdp["period"])
        return {4: pays, 0: -pays}.get(self.at, 0.0), self.at in (0, 4)

    def seen(self) -> list[int]:
        return [self.at]


class SignalLife(Life):
    horizon, actions = 20, 1

    def draw_chances(self, rng: np.random.Generator) -> Any:
        return rng.standard_normal(DRAWN).tolist()

    def start(self, drawn: Any) -> None:
        self.at = 0

    def act(self, action: int, chance: Any) -> tuple[float, bool]:
        left, self.at = self.at, self.at + 1
        return self.pay(left, chance), self.at == 10

    def pay(self, left: int, chance: float) -> float:
        return chance if left in (1, 3, 5, 7, 9) else 0.1

    def seen(self) -> list[int]:
        return [self.at] if self.at < 10 else []


class AliasedLife(SignalLife):
    def pay(self, left: int, chance: float) -> float:
        return 0.1 + chance

    def seen(self) -> list[int]:
        return [{0: 0, 2: 1, 4: 2, 6: 3, 8: 4}.get(self.at, 5)] if self.at < 10 else []


LIVES: list[tuple[tasks.Spec, type[Life]]] = [
    ("catch", CatchLife),
    ("two-colours", TwoColoursLife),
    ({"name": "two-colours", "flip": 150}, TwoColoursLife),
    ({"name": "two-colours", "flip": [20, 90]}, TwoColoursLife),
    ("drifting-walk", WalkLife),
    ({"name": "drifting-walk", "slip": [0, 1], "period": [30, 300]}, WalkLife),
    ("signal-chain", SignalLife),
    ("aliased-chain", AliasedLife),
]
every_life = pytest.mark.parametrize(
    ("spec", "life"), LIVES, ids=[tasks.label(spec) for spec, _ in LIVES]
)


def draws(task: tasks.Task, p: int) -> list[Mdp]:
    return [task.draw(np.random.default_rng(i)) for i in range(p)]


def generators(p: int) -> list[np.random.Generator]:
    return [np.random.default_rng([7, i]) for i in range(p)]


def actions_of(i: int, n: int) -> torch.Tensor:
    return torch.randint(n, (STEPS,), generator=torch.Generator().manual_seed(i))


def ones(row: torch.Tensor) -> set[int]:
    """Where a row is 1; it must be 0 elsewhere."""
    assert ((row == 0) | (row == 1)).all()
    return set(row.nonzero().flatten().tolist())


@every_life
def test_it_is_what_plain_python_lives(spec: tasks.Spec, life: type[Life]) -> None:
    task, p = tasks.make(spec), 5
    assert (task.horizon, task.action_size, task.discrete) == (life.horizon, life.actions, True)
    mdps = draws(task, p)
    lives = [life(rng, mdp) for rng, mdp in zip(generators(p), mdps, strict=True)]
    batch = task.batch(mdps, generators(p))
    for row, one in zip(batch.reset(), lives, strict=True):
        assert ones(row) == set(one.seen())
    ended = paid = 0
    for actions in torch.stack([actions_of(i, task.action_size) for i in range(p)], 1):
        step = batch.step(actions)
        for i, one in enumerate(lives):
            seen, after, reward, terminated, truncated = one.step(int(actions[i]))
            assert ones(step.observation[i]) == set(seen)
            assert ones(step.next_observation[i]) == set(after)
            # cosines of torch and of Python may differ in the last bit
            slack = 1e-12 if life is WalkLife else 0.0
            assert abs(step.reward[i].item() - reward) <= slack
            assert bool(step.terminated[i]) is terminated
            assert bool(step.truncated[i]) is truncated
            ended += terminated or truncated
            paid += reward not in (0.0, -0.04)
    assert ended >= 5 * p and paid > 10 * p
    assert batch.failures.tolist() == [0] * p


@every_life
def test_an_environment_lives_the_same_alone_and_among_others(
    spec: tasks.Spec, life: type[Life]
) -> None:
    task, p = tasks.make(spec), 5
    mdps = draws(task, p)
    together = task.batch(mdps, generators(p))
    alone = [task.batch([mdp], [rng]) for mdp, rng in zip(mdps, generators(p), strict=True)]
    assert torch.equal(together.reset(), torch.cat([one.reset() for one in alone]))
    for actions in torch.stack([actions_of(i, task.action_size) for i in range(p)], 1):
        step = together.step(actions)
        parts = [one.step(actions[i : i + 1]) for i, one in enumerate(alone)]
        for whole, own in zip(step, zip(*parts, strict=True), strict=True):
            assert torch.equal(whole, torch.cat(own))


@every_life
def test_it_rests_and_time_at_rest_is_not_lived(spec: tasks.Spec, life: type[Life]) -> None:
    """Whoever rests for long goes on where it was when it is reset."""
    task, p = tasks.make(spec), 3
    mdps = draws(task, p)
    lives = [life(rng, mdp) for rng, mdp in zip(generators(p), mdps, strict=True)]
    batch = task.batch(mdps, generators(p), restart=False)
    for episode in range(3):
        first = batch.reset()
        assert [ones(row) for row in first] == [set(one.seen()) for one in lives]
        over = [False] * p
        last: Step | None = None
        for t in range(task.horizon + 70):
            actions = torch.stack([actions_of(9 * episode + i, life.actions)[t] for i in range(p)])
            step = batch.step(actions)
            assert torch.equal(step.observation, step.next_observation)
            for i, one in enumerate(lives):
                if over[i]:
                    assert last is not None and step.reward[i] == 0
                    for now, before in zip(step[:2] + step[3:], last[:2] + last[3:], strict=True):
                        assert torch.equal(now[i], before[i])
                    continue
                _, after, reward, terminated, truncated = one.step(int(actions[i]))
                assert ones(step.observation[i]) == set(after)
                assert step.reward[i].item() == pytest.approx(reward, abs=1e-12)
                over[i] = terminated or truncated
            last = step
        assert all(over)


def test_sizes_and_what_describes_them() -> None:
    sizes = {
        "catch": (50, 3), "two-colours": (75, 4), "drifting-walk": (5, 2),
        "signal-chain": (10, 1), "aliased-chain": (6, 1),
    }  # fmt: skip
    for name, size in sizes.items():
        task = tasks.make(name)
        assert (task.observation_size, task.action_size) == size
        assert task.batch(draws(task, 2), generators(2)).reset().shape == (2, size[0])
    assert tasks.make("two-colours").draw(np.random.default_rng(0)) == {"flip": 100_000.0}
    walk = tasks.make("drifting-walk").draw(np.random.default_rng(0))
    assert walk == {"slip": 0.1, "period": 4000.0}
    assert tasks.label({"name": "two-colours", "flip": [9, 20]}) == "two-colours(flip=9..20)"


def test_a_ball_is_always_caught_by_who_runs_after_it() -> None:
    task = tasks.make("catch")
    batch = task.batch(draws(task, 4), generators(4))
    seen, columns = batch.reset(), set()
    for t in range(1, 91):
        ball, paddle = seen[:, :45].view(4, 9, 5).sum(1).argmax(1), seen[:, 45:].argmax(1)
        columns |= set(ball.tolist())
        step = batch.step((ball - paddle).sign() + 1)
        assert step.reward.tolist() == [float(t % 9 == 0)] * 4
        assert step.terminated.tolist() == [t % 9 == 0] * 4
        seen = step.observation
    assert columns == {0, 1, 2, 3, 4}


def test_colours_flip_when_they_should_through_resets_by_hand() -> None:
    """Of who always walks to colour 0; the clock is of the life, not of an episode."""
    flip = 130
    task = tasks.make({"name": "two-colours", "flip": flip})
    batch = task.batch(draws(task, 3), generators(3))
    seen, counts = batch.reset(), [0, 0]
    for t in range(6 * flip):
        if t % 70 == 69:
            seen = batch.reset()
        rows, columns = (seen.view(3, 3, 25).argmax(2) // 5, seen.view(3, 3, 25).argmax(2) % 5)
        down, right = rows[:, 1] - rows[:, 0], columns[:, 1] - columns[:, 0]
        towards = torch.where(right != 0, 2 - right.sign(), 1 + down.sign())
        agent = seen[:, :25].argmax(1)
        step = batch.step(towards)
        ahead = agent + torch.tensor([-5, 1, 5, -1])[towards]
        first, second = (seen[:, at : at + 25].argmax(1) for at in (25, 50))
        for i in range(3):
            sign = -1 if (t // flip) % 2 else 1
            expected = sign * (int(ahead[i] == first[i]) - int(ahead[i] == second[i]))
            assert step.reward[i].item() == expected - 0.04
            counts[(t // flip) % 2] += int(ahead[i] == first[i])
        assert not step.terminated.any()
        seen = step.observation
    assert min(counts) > 100


def test_new_cells_are_drawn_evenly_among_those_free() -> None:
    taken = torch.tensor([[3, 20], [20, 3], [0, 1], [24, 0]])
    found = torch.stack([free_cell(torch.full((4,), k), taken) for k in range(23)], 1)
    for row, without in zip(found.tolist(), taken.tolist(), strict=True):
        assert row == [cell for cell in range(25) if cell not in without]


def test_a_grid_that_is_no_square_has_its_walls() -> None:
    grid = Grid(2, 3)  # 0 1 2 over 3 4 5
    moves = [grid.move(torch.arange(6), torch.full((6,), way)).tolist() for way in range(4)]
    assert moves == [
        [0, 1, 2, 0, 1, 2], [1, 2, 2, 4, 5, 5], [3, 4, 5, 3, 4, 5], [0, 0, 1, 3, 3, 4],
    ]  # fmt: skip


def test_what_the_ends_pay_drifts_through_the_whole_life() -> None:
    """Without slips an episode to the right lasts 2 steps."""
    period = 40
    task = tasks.make({"name": "drifting-walk", "slip": 0, "period": period})
    batch = task.batch(draws(task, 2), generators(2))
    batch.reset()
    paid = []
    for t in range(3 * period):
        if t == period:  # between two episodes
            batch.reset()
        step = batch.step(torch.tensor([1, 0]))
        assert step.terminated.tolist() == [t % 2 == 1] * 2
        assert step.reward[0] == -step.reward[1]
        paid.append(step.reward[0].item())
    expected = [math.cos(2 * math.pi * t / period) if t % 2 else 0.0 for t in range(3 * period)]
    assert paid == pytest.approx(expected, abs=1e-12)
    assert paid[1] > 0.98 and paid[21] < -0.98 and paid[41] > 0.98


@pytest.mark.parametrize("slip", [0.0, 0.3, 1.0])
def test_slips_are_as_frequent_as_they_should_be(slip: float) -> None:
    task, p = tasks.make({"name": "drifting-walk", "slip": slip}), 500
    batch = task.batch(draws(task, p), generators(p))
    batch.reset()
    slipped = 0
    for _ in range(20):
        step = batch.step(torch.ones(p, dtype=torch.int64))
        batch.reset()
        slipped += int(step.next_observation[:, 1].sum())
    assert slipped / (20 * p) == pytest.approx(slip, abs=0.02)


def test_chains_pay_what_xu_and_others_say() -> None:
    n = 2000
    for name, means, deviations in (
        ("signal-chain", [0.1, 0.0] * 5, [0.0, 1.0] * 5),
        ("aliased-chain", [0.1] * 10, [1.0] * 10),
    ):
        task = tasks.make(name)
        batch = task.batch(draws(task, n), generators(n))
        batch.reset()
        go = torch.zeros(n, dtype=torch.int64)
        steps = [batch.step(go) for _ in range(10)]
        rewards = torch.stack([step.reward for step in steps])
        assert rewards.mean(1).tolist() == pytest.approx(means, abs=0.08)
        assert rewards.std(1).tolist() == pytest.approx(deviations, abs=0.06)
        assert [step.terminated.all().item() for step in steps] == [False] * 9 + [True]
