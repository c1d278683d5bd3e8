"""LPG's grid worlds beside GROOVE's, step by step, and beside the levels that GROOVE draws.

tests/metagradient_vectors/gridworld.npz has the chance of each step; sizes come from the file.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from epg import tasks
from epg.errors import UserError
from epg.tasks.base import Mdp
from epg.tasks.collecting import ACTIONS, Chance, FixedBatch, Levels, Objects, RandomBatch
from epg.tasks.grid import Grid, Grids

FILE = np.load(Path(__file__).parents[1] / "metagradient_vectors" / "gridworld.npz")
RECORDED = sorted({name.split("/")[0] for name in FILE.files if name.endswith("/obs_argmax")})
DRAWN = [name.split("/")[0] for name in FILE.files if name.endswith("/static_obj_poss")]
P_VALUE = 1e-4
STEPS = 120
FIXED = ["grid-all", "grid-dense", "grid-long", "grid-long-dense", "grid-longer", "grid-sparse"]
RANDOM = [
    "random-grid-dense", "random-grid-long", "random-grid-small", "random-grid-sparse",
    "random-grid-very-dense",
]  # fmt: skip


def numbers(level: str) -> dict[str, Tensor]:
    """What the file has of a level, each row a step."""
    start = f"{level}/"
    return {
        name.removeprefix(start): torch.from_numpy(FILE[name])
        for name in FILE.files
        if name.startswith(start)
    }


def level_of(n: dict[str, Tensor]) -> Mdp:
    """The level that the file describes, as a task would draw it."""
    size = int(n["level_grid_size"])
    objects = int(n["level_n_objs"])
    return {
        "height": size,
        "width": size,
        "blocked": [i for i in n["level_walls"].nonzero().flatten().tolist() if i < size**2],
        "kinds": torch.stack(
            [n[f"level_obj_{what}"] for what in ("rewards", "p_terminate", "p_respawn")], 1
        ).tolist(),
        "things": n["level_obj_ids"][:objects].tolist(),
        "start": int(n["level_start_pos"]),
        "places": n["level_static_obj_poss"][:objects].tolist(),
        "horizon": int(n["level_max_steps_in_episode"]),
    }


def batch_of(n: dict[str, Tensor], p: int) -> FixedBatch | RandomBatch:
    levels, horizon = [level_of(n)] * p, int(n["level_max_steps_in_episode"])
    rngs = [np.random.default_rng(i) for i in range(p)]
    if n["level_random_respawn"]:
        return RandomBatch(levels, rngs, horizon, "cpu", True)
    count = n["exists"].shape[1]
    size = int(n["max_grid_size"]) ** 2
    return FixedBatch(levels, size, count, rngs, horizon, "cpu", True)


def chance_of(n: dict[str, Tensor]) -> Chance:
    cells = n["cand_pos" if n["level_random_respawn"] else "obj_pos"]
    return Chance(n["u_respawn"].double(), n["u_terminate"].double(), cells.long())


@pytest.mark.parametrize("level", RECORDED)
def test_every_recorded_step_is_what_the_peer_computes(level: str) -> None:
    """All of them at once, each the step of one environment."""
    n = numbers(level)
    steps = len(n["action"])
    levels = Levels([level_of(n)] * steps, n["exists"].shape[1], "cpu")
    agent = levels.grids.move(n["pos"].long(), n["action"].long())
    assert torch.equal(agent, n["after_pos"].long())
    before = Objects(n["obj_pos"].long(), n["exists"])
    after = levels.collect(agent, before, chance_of(n))
    assert torch.equal(after.objects.there, n["after_exists"])
    has = int(n["level_n_objs"])
    assert torch.equal(after.objects.cells[:, :has], n["after_obj_pos"].long()[:, :has])
    assert torch.equal(after.reward.float(), n["reward"])
    assert torch.equal(after.ended, n["early_term"])
    late = n["time"] + 1 >= levels.horizon
    assert torch.equal(after.ended | late, n["done"])
    assert torch.equal(levels.start[n["done"]], n["next_pos"].long()[n["done"]])


@pytest.mark.parametrize("level", RECORDED)
def test_a_batch_lives_the_recorded_episodes(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, from reset to reset, through the public steps; its chance alone is given to it."""
    n = numbers(level)
    batch, chance = batch_of(n, 1), chance_of(n)
    now = [-1]
    collect, begin = Levels.collect, RandomBatch.begin

    def with_recorded(self: Levels, agent: Tensor, objects: Objects, _: Chance) -> Any:
        t, has = slice(now[0], now[0] + 1), objects.there.shape[1]
        now_drawn = Chance(chance.respawn[t, :has], chance.end[t], chance.cells[t, :has])
        return collect(self, agent, objects, now_drawn)

    def begin_recorded(self: RandomBatch, drawn: Tensor) -> Tensor:
        state, t, has = begin(self, drawn), now[0], int(n["level_n_objs"])
        placed = n["obj_pos"][0] if t < 0 else n["next_obj_pos"][t]  # if an episode begins here
        state[:, -has:] = placed[:has]
        return state

    monkeypatch.setattr(Levels, "collect", with_recorded)
    monkeypatch.setattr(RandomBatch, "begin", begin_recorded)
    batch.reset()
    for t in range(len(n["action"])):
        now[0] = t
        step = batch.step(n["action"][t : t + 1].long())
        assert step.reward.float() == n["reward"][t]
        assert step.terminated == n["early_term"][t]
        assert (step.terminated | step.truncated) == n["done"][t]
        assert step.observation[0].argmax() == n["obs_argmax"][t]
        assert step.observation[0].sum() == n["obs_sum"][t]
        assert 0.001 * batch._age.item() == pytest.approx(n["obs_last"][t].item(), rel=1e-6)
        assert ((step.observation == 0) | (step.observation == 1)).all()


def draws(task: tasks.Task, p: int) -> list[Mdp]:
    return [task.draw(np.random.default_rng([3, i])) for i in range(p)]


@pytest.mark.parametrize("name", DRAWN)
def test_drawn_levels_are_distributed_as_the_peers(name: str) -> None:
    n = {key.split("/")[1]: FILE[key] for key in FILE.files if key.startswith(f"{name}/")}
    sizes, counts = n["grid_size"], n["n_objs"]
    until, walls = n["max_steps_in_episode"], n["walls_count"]
    task = tasks.make(
        {
            "name": "grid-all",
            "size": [int(sizes.min()), int(sizes.max())],
            "objects": [int(counts.min()), int(counts.max())],
            "walls": [int(walls.min()), int(walls.max())],
            "horizon": [int(until.min()), int(until.max())],
        }
    )
    mdps = draws(task, 10 * len(sizes))

    def same(found: list[Any], wanted: Any, what: str) -> None:
        assert stats.ks_2samp(found, wanted).pvalue > P_VALUE, what

    def same_counts(found: list[int], wanted: list[int], what: str) -> None:
        values = sorted({*found, *wanted})
        if len(values) > 1:
            table = [[Counter(all_)[value] for value in values] for all_ in (found, wanted)]
            assert stats.chi2_contingency(table).pvalue > P_VALUE, what

    same_counts([m["size"] for m in mdps], sizes.tolist(), "sizes")
    same_counts([m["objects"] for m in mdps], counts.tolist(), "objects")
    assert {m["walls"] for m in mdps} == set(walls.tolist())
    same([m["horizon"] for m in mdps], until, "horizons")
    same([m["start"] for m in mdps], n["start_pos"], "starts")
    for i in range(counts.max()):
        has = counts > i
        ours = [m for m in mdps if m["objects"] > i]
        same([m["places"][i] for m in ours], n["static_obj_poss"][has, i], f"places {i}")
        for k, what in enumerate(("rewards", "p_terminate", "p_respawn")):
            same([m["kinds"][i][k] for m in ours], n[f"obj_{what}"][:, i], f"{what} {i}")


def test_walls_are_where_the_peer_puts_them() -> None:
    """15 of 100 cells, of which those count that are in the grid."""
    mdps = draws(tasks.make("grid-all"), 3000)
    for size in range(4, 11):
        inside = [len(m["blocked"]) for m in mdps if m["size"] == size]
        expected = 15 * size**2 / 100
        assert np.mean(inside) == pytest.approx(expected, abs=5 * 1.4 / np.sqrt(len(inside)))


def test_all_levels_are_complete_and_nothing_is_inside_a_wall() -> None:
    for name in FIXED + RANDOM:
        task = tasks.make(name)
        for m in draws(task, 200):
            cells = [m["start"], *m.get("places", [])]
            assert len(set(cells)) == len(cells) and not set(cells) & set(m["blocked"])
            assert all(0 <= cell < m["height"] * m["width"] for cell in cells)
            assert len(m["things"]) == len(m.get("places", m["things"]))
            assert max(m["things"]) < len(m["kinds"]) and m["horizon"] <= task.horizon


def test_sizes_objects_and_horizons_are_the_papers() -> None:
    sizes = {
        "grid-dense": (11 * 11 * 16, 500), "grid-sparse": (13 * 13 * 4, 50),
        "grid-long": (11 * 11 * 16, 1000), "grid-longer": (7 * 9 * 128, 2000),
        "grid-long-dense": (11 * 11 * 16, 2000), "grid-all": (100 * 32, 750),
        "random-grid-dense": (11 * 11 * 4, 500), "random-grid-long": (11 * 11 * 3, 1000),
        "random-grid-small": (5 * 7 * 3, 500), "random-grid-sparse": (5 * 7 * 3, 50),
        "random-grid-very-dense": (11 * 11 * 2, 2000),
    }  # fmt: skip
    for name, (size, horizon) in sizes.items():
        task = tasks.make(name)
        assert (task.observation_size, task.horizon) == (size, horizon)
        assert (task.action_size, task.discrete) == (5, True)
    (longer,) = draws(tasks.make("grid-longer"), 1)
    objects = [longer["kinds"][i] for i in longer["things"]]
    assert objects == [[1.0, 0.1, 0.01]] * 2 + [[-1.0, 0.8, 1.0]] * 5
    (dense,) = draws(tasks.make("random-grid-dense"), 1)
    objects = [dense["kinds"][i] for i in dense["things"]]
    assert objects == [[1, 0, 0.05], [1, 0, 0.05], [-1, 0.5, 0.1], [-1, 0, 0.5]]


@pytest.mark.parametrize(("name", "rooms"), [("grid-longer", 2), ("grid-long-dense", 4)])
def test_rooms_hang_together_by_their_doors(name: str, rooms: int) -> None:
    (m,) = draws(tasks.make(name), 1)

    def parts(blocked: list[int]) -> list[set[int]]:
        grid = Grid(m["height"], m["width"], blocked=blocked)
        left, found = set(grid.free.tolist()), []
        while left:
            part = {left.pop()}
            while new := {c for c in grid.led[sorted(part)].flatten().tolist() if c not in part}:
                part |= new
            found.append(part)
            left -= part
        return found

    assert len(parts(m["blocked"])) == 1
    free = Grid(m["height"], m["width"], blocked=m["blocked"]).free.tolist()
    row, column = (3, 4) if rooms == 2 else (4, 5)
    across = [c for c in free if c % m["width"] == column]
    along = [c for c in free if rooms == 4 and c // m["width"] == row]
    assert (len(across), len(along)) == ((2, 0) if rooms == 2 else (2, 2))
    assert len(parts([*m["blocked"], *across, *along])) == rooms


def test_blocked_cells_are_walls_also_in_grids_of_several_shapes() -> None:
    kinds = [Grid(2, 3, directions=ACTIONS, blocked=[1]), Grid(2, 2, directions=ACTIONS)]
    grids = Grids(kinds, [0, 1, 0], "cpu")
    # from cells 0, 0, 4: up, down, left, right, nowhere; cell 1 of the first kind is a wall
    moves = [
        grids.move(torch.tensor([0, 0, 4]), torch.full((3,), way)).tolist() for way in range(5)
    ]
    assert moves == [[0, 0, 4], [3, 2, 4], [0, 0, 3], [0, 1, 5], [0, 0, 4]]


def test_objects_come_up_evenly_on_different_cells_that_are_free() -> None:
    p = 20_000
    kind = Grid(3, 4, directions=ACTIONS, blocked=[5, 6])
    grids = Grids([kind], [0] * p, "cpu")
    uniform = torch.rand(p, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for taken in ([0, 11, 3], [3, 0, 3]):  # the agent beside two objects, or on one of them
        found = grids.free_cells(uniform, torch.tensor([taken] * p))
        free = [cell for cell in range(12) if cell not in (5, 6, *taken)]
        assert all(len(set(row)) == 3 for row in found[:500].tolist())
        for column in found.unbind(1):
            values, counts = column.unique(return_counts=True)
            assert values.tolist() == free
            assert stats.chisquare(counts.numpy()).pvalue > P_VALUE


def generators(p: int) -> list[np.random.Generator]:
    return [np.random.default_rng([7, i]) for i in range(p)]


def actions_of(i: int) -> Tensor:
    return torch.randint(5, (STEPS,), generator=torch.Generator().manual_seed(i))


@pytest.mark.parametrize("name", FIXED + RANDOM)
def test_an_environment_lives_the_same_alone_and_among_others(name: str) -> None:
    task, p = tasks.make(name), 5
    mdps = draws(task, p)
    together = task.batch(mdps, generators(p))
    alone = [task.batch([mdp], [rng]) for mdp, rng in zip(mdps, generators(p), strict=True)]
    assert torch.equal(together.reset(), torch.cat([one.reset() for one in alone]))
    for actions in torch.stack([actions_of(i) for i in range(p)], 1):
        step = together.step(actions)
        parts = [one.step(actions[i : i + 1]) for i, one in enumerate(alone)]
        for whole, own in zip(step, zip(*parts, strict=True), strict=True):
            assert torch.equal(whole, torch.cat(own))


@pytest.mark.parametrize("name", ["grid-sparse", "random-grid-sparse"])
def test_an_ended_environment_rests_and_nothing_is_drawn_for_it(name: str) -> None:
    """The second episode is the one that an environment lives that restarts by itself."""
    task, p = tasks.make(name), 3
    mdps = draws(task, p)
    resting = task.batch(mdps, generators(p), restart=False)
    going = task.batch(mdps, generators(p))
    lives: list[list[list[tuple[float, int, bool]]]] = []
    for batch in (resting, going):
        life: list[list[tuple[float, int, bool]]] = [[] for _ in range(p)]
        lives.append(life)
        for _ in range(2 if batch is resting else 1):
            batch.reset()
            over = torch.zeros(p, dtype=torch.bool)
            for _ in range(2 * task.horizon):
                step = batch.step(torch.full((p,), 3))  # to the right, whatever the episode
                for i in (~over).nonzero().flatten().tolist():
                    place = step.next_observation[i].argmax().item()
                    life[i].append((step.reward[i].item(), int(place), bool(step.terminated[i])))
                if batch is resting:
                    over = step.terminated | step.truncated
                    assert torch.equal(step.observation, step.next_observation)
            assert batch is going or over.all()
    for first, second in zip(*lives, strict=True):
        n = min(len(first), len(second))
        assert n >= 2 and first[:n] == second[:n]


def test_objects_that_always_return_and_never_end_pay_what_is_met() -> None:
    """Beside plain Python: who runs to the only object, which jumps, is paid at each arrival."""
    task, p = tasks.make("random-grid-very-dense"), 4
    batch = task.batch(draws(task, p), generators(p))
    seen, paid = batch.reset(), 0.0
    for _ in range(600):
        agent, object_ = seen[:, :121].argmax(1), seen[:, 121:].argmax(1)
        there = seen[:, 121:].sum(1) > 0
        down, right = object_ // 11 - agent // 11, object_ % 11 - agent % 11
        towards = torch.where(down != 0, (down > 0).long(), 2 + (right > 0).long())
        ahead = agent + torch.tensor([-11, 11, -1, 1])[towards]
        step = batch.step(towards)
        met = there & (ahead == object_)
        assert torch.equal(step.reward, met.double())
        lit = step.next_observation[:, 121:].sum(1)
        assert torch.equal(lit == 0, met)  # it is gone for one step, and then elsewhere
        seen, paid = step.observation, paid + float(step.reward.sum())
    assert paid > 200


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "grid-dense", "size": 9}, "task grid-dense: unknown parameter 'size'; it takes"),
        ({"name": "grid-all", "size": 2}, "size: found 2, allowed: a number or [low, high], 3 to"),
        ({"name": "grid-all", "size": [4.5, 6]}, "size: found [4.5, 6], allowed: whole numbers"),
        ({"name": "grid-all", "objects": 9}, "objects: found 9, allowed"),
        ({"name": "grid-all", "objects": "many"}, "objects: found 'many', allowed: a number or"),
        ({"name": "grid-all", "size": 4, "walls": 17}, "walls: found 17, allowed: at most 16, the"),
        ({"name": "grid-all", "size": [3, 3]}, "walls: found 15, allowed: at most 9, the cells of"),
        ({"name": "grid-all", "horizon": 0}, "horizon: found 0, allowed"),
        ({"name": "grid-all", "wals": 3}, "unknown parameter 'wals'; did you mean 'walls'?"),
        ("grid-dens", "unknown name 'grid-dens'; did you mean grid-dense"),
    ],
)
def test_a_wrong_grid_is_one_line(spec: tasks.Spec, message: str) -> None:
    with pytest.raises(UserError) as caught:
        tasks.make(spec)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_narrower_distribution_is_smaller() -> None:
    """GROOVE's `small`."""
    task = tasks.make(
        {"name": "grid-all", "size": [4, 6], "walls": 7, "objects": [1, 3], "horizon": [20, 100]}
    )
    assert (task.observation_size, task.horizon) == (36 * 8, 100)
    mdps = draws(task, 300)
    assert {m["size"] for m in mdps} == {4, 5, 6} and {m["objects"] for m in mdps} == {1, 2, 3}
    full = tasks.make({"name": "grid-all", "size": 3, "walls": 9, "objects": 8})
    for m in draws(full, 20):  # walls leave room
        assert len(m["blocked"]) == 0 and sorted([m["start"], *m["places"]]) == list(range(9))


def test_living_is_paid_in_each_step_of_a_level() -> None:
    """And the levels are otherwise those without."""
    paid = tasks.make({"name": "grid-all", "living": [-1, 1]})
    mdps, plain = draws(paid, 50), draws(tasks.make("grid-all"), 50)
    assert [{**m, "living": 0} for m in mdps] == plain
    living = np.array([m["living"] for m in mdps])
    assert living.min() < -0.8 and living.max() > 0.8
    rngs = [[np.random.default_rng(i) for i in range(50)] for _ in range(2)]
    batches = [paid.batch(each, rng) for each, rng in zip((mdps, plain), rngs, strict=True)]
    for batch in batches:
        batch.reset()
    for _ in range(30):
        actions = torch.randint(5, (50,), generator=torch.Generator().manual_seed(_))
        ours, theirs = (batch.step(actions) for batch in batches)
        np.testing.assert_allclose(ours.reward - theirs.reward, living)
        assert torch.equal(ours.observation, theirs.observation)
