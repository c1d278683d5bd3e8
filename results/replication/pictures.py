"""The figures of the replication, and the tables of its page, from what run.py wrote.

python results/replication/pictures.py [FOLDER]

Shape letters: S seeds, U iterations.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from epg.evaluation.plot import METHODS, band, png
from epg.lifetime import carry_forward

ITERATIONS = (
    "setting",
    "start",
    "seed",
    "iteration",
    "return",
    "gamma",
    "error",
    "cosine",
    "scores",
)
SUMMARY = (
    "setting", "start", "seed", "solved", "final_gamma", "lowest_gamma", "highest_gamma",
    "fresh_return", "finite",
)  # fmt: skip
COLORS = {
    "naive": METHODS["a2c"], "definition": METHODS["xu"], "formula": "C0", "literal": "C2",
}  # fmt: skip
START = "0.99"
COLOURS = 96
"""In a picture, so that it is small."""
FALL = 50
"""Iterations of a window in which γ falls."""
Agent = dict[str, np.ndarray]
"""Numbers of an agent's iterations, by column, [U]."""


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def number(text: str) -> float:
    return float(text) if text else np.nan


class Results:
    """What run.py wrote, by setting and γ₀."""

    def __init__(self, folder: Path) -> None:
        self.summary = read(folder / "summary.csv")
        lists: dict[tuple[str, str], dict[str, dict[str, list[float]]]] = {}
        for row in read(folder / "iterations.csv"):
            agents = lists.setdefault((row["setting"], row["start"]), {})
            columns = agents.setdefault(row["seed"], {name: [] for name in ITERATIONS[4:]})
            for name, numbers in columns.items():
                numbers.append(number(row[name]))
        self._agents = {
            key: {
                seed: {name: np.array(numbers) for name, numbers in columns.items()}
                for seed, columns in agents.items()
            }
            for key, agents in lists.items()
        }
        self.settings = list(dict.fromkeys((r["setting"], r["start"]) for r in self.summary))
        self.ways = [way for way in COLORS if (way, START) in self._agents]
        self.starts = list(dict.fromkeys(start for _, start in self._agents if start))
        self.starts.sort(key=float, reverse=True)

    def ends(self, setting: str, start: str) -> list[dict[str, str]]:
        return [r for r in self.summary if (r["setting"], r["start"]) == (setting, start)]

    def agents(self, setting: str, start: str = START) -> dict[str, Agent]:
        """By seed."""
        return self._agents.get((setting, start), {})

    def column(self, setting: str, name: str) -> np.ndarray:
        """[S, U] from START, NaN where an agent has ended."""
        each = [agent[name] for agent in self.agents(setting).values()]
        whole = np.full((len(each), max(map(len, each))), np.nan)
        for row, numbers in zip(whole, each, strict=True):
            row[: len(numbers)] = numbers
        return whole

    def counts(self, setting: str, start: str) -> str:
        ends = self.ends(setting, start)
        solved, lost = (sum(map(bool, which)) for which in (_solved(ends), _lost(ends)))
        return f"{solved} of {len(ends)} solved" + (f", {lost} left the finite" if lost else "")


def _solved(ends: Sequence[dict[str, str]]) -> list[bool]:
    return [end["solved"] != "" for end in ends]


def _lost(ends: Sequence[dict[str, str]]) -> list[bool]:
    return [end["finite"] == "0" for end in ends]


def draw(folder: Path) -> None:
    """figure2.png … figure7.png of the folder's tables."""
    found = Results(folder)
    examples = example_seeds(found)
    figures = {
        2: returns_of_seeds(found),
        3: parts_of_all(found),
        4: example(found, examples[0], "γ fell furthest"),
        5: example(found, examples[-1], "γ fell least"),
        6: sweep(found, "return", "returns from six γ₀, until 475 is passed"),
        7: sweep(found, "gamma", "γ from six γ₀, until 475 is passed"),
    }
    for which, figure in figures.items():
        (folder / f"figure{which}.png").write_bytes(small(figure))


def small(figure: Figure) -> bytes:
    """A PNG of few colours."""
    drawn, image = io.BytesIO(png(figure)), io.BytesIO()
    Image.open(drawn).convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE).save(
        image, "png", optimize=True
    )
    return image.getvalue()


def returns_of_seeds(found: Results) -> Figure:
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    panels = list(figure.subplots(2, 2, sharex=True, sharey=True).flat)
    for axes, way in zip(panels, found.ways, strict=False):
        _lines(axes, found, way, START, "return")
        axes.set_title(f"{way}: {found.counts(way, START)}", fontsize=10)
        axes.set(xlabel="iteration", ylabel="return of an episode")
    seeds = panels[0].get_lines()[::2]
    figure.legend(handles=seeds, loc="outside lower center", ncols=len(seeds), fontsize=7)
    figure.suptitle("Returns of each seed from γ₀ = 0.99, until 475 is passed (dots)")
    return figure


def parts_of_all(found: Results) -> Figure:
    figure = Figure(figsize=(12, 4), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, name in zip(panels, _PARTS, strict=True):
        for way in ("naive", "definition", "formula"):
            if way in found.ways:
                numbers = _smooth(found.column(way, name))
                at = np.arange(1, numbers.shape[1] + 1)
                band(axes, at, numbers, way, color=COLORS[way])
        axes.axhline(0, color="0.5", linewidth=0.8)
        axes.set(xlabel="iteration", title=_PARTS[name])
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.suptitle(
        "What Δγ is made of, γ₀ = 0.99: seeds that still learn, means over 20 iterations, 95 %"
    )
    return figure


_PARTS = {
    "error": "(1) error g(τ′) − v(s′)",
    "scores": "(2) cosine of ∇log π on τ and τ′",
    "cosine": "cosine of u and w, whose product is Δγ",
}


def example_seeds(found: Results) -> list[str]:
    """Seeds of the formula, or of what there is, from START: by how far γ fell; those that left
    the finite come in only where there are no others."""
    way = _exemplary(found)
    ends = found.ends(way, START)
    kept = [end for end in ends if end["finite"] == "1"] or ends
    return [end["seed"] for end in sorted(kept, key=lambda end: number(end["lowest_gamma"]))]


def _exemplary(found: Results) -> str:
    return "formula" if "formula" in found.ways else found.ways[-1]


def example(found: Results, seed: str, about: str) -> Figure:
    way = _exemplary(found)
    agent = found.agents(way)[seed]
    figure = Figure(figsize=(7, 8), layout="constrained")
    panels = figure.subplots(5, 1, sharex=True)
    at = np.arange(1, len(agent["gamma"]) + 1)
    for axes, name in zip(panels, ("return", "gamma", *_PARTS), strict=True):
        faint = name in _PARTS
        axes.plot(at, _latest(agent[name]), color=COLORS[way], linewidth=0.6 if faint else 1.2)
        if faint:
            axes.plot(at, _smooth(agent[name][None])[0], color="black", linewidth=1.2)
            axes.axhline(0, color="0.5", linewidth=0.8)
        axes.set_ylabel({"gamma": "γ", "scores": "cosine (2)", "cosine": "of u, w"}.get(name, name))
        axes.grid(alpha=0.3)
    panels[-1].set_xlabel("iteration; black: mean over 20 iterations")
    figure.suptitle(f"{way}, seed {seed}, whose {about}")
    return figure


def sweep(found: Results, name: str, about: str) -> Figure:
    ways = [way for way in found.ways if way != "naive"]
    figure = Figure(figsize=(10, 1.6 * len(ways) + 0.7), layout="constrained")
    grid = figure.subplots(
        len(ways), len(found.starts), sharex=True, sharey=name == "return", squeeze=False
    )
    for row, way in zip(grid, ways, strict=True):
        for axes, start in zip(row, found.starts, strict=True):
            _lines(axes, found, way, start, name)
            ends = found.ends(way, start)
            title = f"γ₀ = {start}: {sum(_solved(ends))} of {len(ends)}"
            axes.set_title(title, fontsize=8)
            axes.tick_params(labelsize=7)
            if name == "gamma":
                axes.axhline(float(start), color="0.5", linewidth=0.8)
                axes.set_ylim(min(0.6, float(start) - 0.5), float(start) + 0.5)
        row[0].set_ylabel(way, fontsize=9)
    figure.suptitle(f"CartPole: {about} (how many do)")
    return figure


def _lines(axes: Any, found: Results, way: str, start: str, name: str) -> None:
    """A line for each seed, with a dot where it was solved and a cross where it left the finite."""
    ends = {end["seed"]: end for end in found.ends(way, start)}
    for i, (seed, agent) in enumerate(found.agents(way, start).items()):
        numbers = _latest(agent[name])
        at = np.arange(1, len(numbers) + 1)
        axes.plot(at, numbers, color=f"C{i}", linewidth=0.9, label=f"seed {seed}")
        marker = "o" if ends[seed]["solved"] else "x" if ends[seed]["finite"] == "0" else ""
        axes.plot(at[-1:], numbers[-1:], color=f"C{i}", marker=marker, markersize=4)
    axes.grid(alpha=0.3)


def _latest(numbers: np.ndarray) -> np.ndarray:
    return np.asarray(carry_forward(numbers[None])[0])


def _smooth(numbers: np.ndarray, width: int = 20) -> np.ndarray:
    """[S, U] means over the last iterations; NaN where an agent has ended."""
    ended = np.isnan(numbers)
    sums, counts = np.where(ended, 0.0, numbers).cumsum(1), (~ended).cumsum(1)
    sums[:, width:] -= sums[:, :-width].copy()
    counts[:, width:] -= counts[:, :-width].copy()
    return np.asarray(np.where(ended, np.nan, sums / np.maximum(counts, 1)))


# Tables


def tables(found: Results) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| | γ₀ | solved | at iterations, median (range) | sooner : later than naive | left the \
finite | fresh mean > 475 |"
    yield "|---|---|---|---|---|---|---|"
    for setting, start in found.settings:
        yield ends_row(setting, start, found.ends(setting, start), found.ends("naive", start))
    yield ""
    yield "| | γ₀ | γ below 0.95, of the finite | lowest γ, median (range) | last γ |"
    yield "|---|---|---|---|---|"
    for setting, start in found.settings:
        if not setting.startswith("naive"):
            yield gamma_row(setting, start, found.ends(setting, start))
    yield ""
    yield "| γ₀ = 0.99 | where γ | iterations | (1) below 0 | (2), mean | (2) of 0.2 to 0.4 \
| (1) below 0, (2) above | cosine of u and w, mean |"
    yield "|---|---|---|---|---|---|---|---|"
    for way in found.ways[1:]:
        yield from parts_rows(way, found.agents(way).values())


def ends_row(
    setting: str, start: str, ends: Sequence[dict[str, str]], naive: Sequence[dict[str, str]]
) -> str:
    at, beside = (
        [number(end["solved"]) if end["solved"] else np.inf for end in each]
        for each in (ends, naive)
    )
    sooner = sum(a < b for a, b in zip(at, beside, strict=True))
    later = sum(a > b for a, b in zip(at, beside, strict=True))
    compared = "" if setting == "naive" else f"{sooner} : {later}"
    solved = [a for a in at if np.isfinite(a)]
    fresh = sum(number(end["fresh_return"]) > 475 for end in ends)
    return (
        f"| {setting} | {start} | {len(solved)} of {len(ends)} | {spread(solved, '.0f')} | "
        f"{compared} | {sum(_lost(ends))} | {fresh} |"
    )


def parts_rows(way: str, agents: Iterable[Agent]) -> Iterator[str]:
    """Of all iterations of all seeds; an iteration's numbers move the next one's γ."""
    each = [
        np.stack(
            [
                np.diff(agent["gamma"]),
                falling(agent["gamma"])[1:],
                *(agent[name][:-1] for name in ("error", "scores", "cosine")),
            ]
        )
        for agent in agents
    ]
    whole = np.concatenate(each, 1)
    whole = whole[:, np.isfinite(whole).all(0)]
    moves = whole[0]
    for what, which in (
        ("falls", moves < 0), ("rises", moves > 0), (f"falls most in {FALL}", whole[1] > 0),
    ):  # fmt: skip
        _, _, error, scores, cosine = whole[:, which]
        yield (
            f"| {way} | {what} | {which.sum()} | {percent(error < 0)} | {scores.mean():.3f} | "
            f"{percent((scores > 0.2) & (scores < 0.4))} | {percent((error < 0) & (scores > 0))} | "
            f"{cosine.mean():.3f} |"
        )


def percent(which: np.ndarray) -> str:
    return f"{100 * which.mean():.0f} %" if len(which) else "–"


def gamma_row(setting: str, start: str, ends: Sequence[dict[str, str]]) -> str:
    kept = [end for end in ends if end["finite"] == "1"]
    lowest, last = ([number(e[name]) for e in kept] for name in ("lowest_gamma", "final_gamma"))
    below = sum(x < 0.95 for x in lowest)
    return (
        f"| {setting} | {start} | {below} of {len(kept)} | {spread(lowest, '.3f')} | "
        f"{spread(last, '.3f')} |"
    )


def falling(gamma: np.ndarray) -> np.ndarray:
    """[U] bool: the FALL iterations in which γ falls furthest."""
    inside = np.zeros(len(gamma), bool)
    width = min(FALL, len(gamma) - 1)
    if width > 0:
        first = int(np.nanargmin(gamma[width:] - gamma[:-width]))
        inside[first + 1 : first + width + 1] = True
    return inside


def spread(numbers: Sequence[float], shape: str) -> str:
    if not numbers:
        return "–"
    low, high = min(numbers), max(numbers)
    return f"{np.median(numbers):{shape}} ({low:{shape}}–{high:{shape}})"


if __name__ == "__main__":
    here = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    draw(here)
    print("\n".join(tables(Results(here))))
