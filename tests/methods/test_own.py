"""Methods and losses of a user's own: the pages that show them, run from end to end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., object]
DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"method-of-your-own.md": ("my_method.py", 53), "loss-of-your-own.md": ("my_loss.py", 30)}
"""The file that a page says to make, and the most lines of code that it may have, imports aside."""
LOAD = """\
import epg, torch
from epg.seeds import LifetimeSeeds, Purpose
from epg.lifetime import live
from epg.tasks import make
from epg.tasks.base import draw_mdps
saved = epg.load("run/best.safetensors", trust=True)
task, seeds = make("point-goal"), LifetimeSeeds.of(0, Purpose.EVALUATION, 0, 3)
agents = saved.agents(task, seeds)
lived = live(task, draw_mdps(task, seeds), agents, seeds, saved.config.lifetime)
print("returns", lived.final_return.shape, bool((lived.final_return < 0).all()))
"""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_ones_own_works_as_it_stands(
    command: Run, epg: Run, tensors: Run, tmp_path: Path, page: str
) -> None:
    name, _ = PAGES[page]
    [code], [config] = blocks(page, "python"), blocks(page, "yaml")
    (tmp_path / name).write_text(code)
    (tmp_path / "own.yaml").write_text(config)
    said = command(
        "mpirun", "-n", "2", "python", "-m", "epg", "train", "own.yaml", "--run", "run",
        folder=tmp_path,
    )  # fmt: skip
    assert said.code == 0 and "done: run/best.safetensors" in said.out, said
    said = epg("train", "own.yaml", "--run", "alone", folder=tmp_path)
    assert (said.code, said.err) == (0, ""), said
    for file in ("best.safetensors", "loss.safetensors"):
        assert tensors(tmp_path / "run" / file) == tensors(tmp_path / "alone" / file)
    evaluate = (
        "evaluate", "run/best.safetensors", "--task", "point-goal", "--lifetimes", "4",
        "--methods", "random", "--json",
    )  # fmt: skip
    said = epg(*evaluate, folder=tmp_path)
    assert said.code == 2 and "--trust" in said.err and len(said.err.splitlines()) == 1
    assert not (tmp_path / "evaluation").exists()
    said = epg(*evaluate, "--trust", folder=tmp_path)
    assert said.code == 0, said
    rows = json.loads(said.out.splitlines()[-1])["tasks"][0]["rows"]
    assert [row["method"] for row in rows] == ["learned loss", "random"]
    said = command("python", "-c", LOAD, folder=tmp_path)
    assert said.out == "returns (3,) True\n", said


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_ones_own_is_short(page: str) -> None:
    [code] = blocks(page, "python")
    lines = [line for line in code.splitlines() if line and not line.startswith(("from", "import"))]
    assert len(lines) <= PAGES[page][1]


BROKEN = {
    "no_such:Thing": "no module 'no_such'",
    "own:Absent": "module 'own' has no class 'Absent'",
    "own:NoMethod": "it is not a subclass of",
    "own:Half": "it lacks agents, begin, init, params, workload",
    ".own:Bad": "allowed: module:Class",
    "egp": "did you mean epg?",
    "ppo": "learns within a life",
}
OWN = """\
from epg.losses.base import LearnedLoss
from epg.methods.base import Method
class NoMethod: pass
class Half(Method):
    def run(self, shared, unit): pass
    def update(self, step, results): pass
class HalfLoss(LearnedLoss):
    shapes = {}
"""


@pytest.mark.parametrize(
    ("name", "ranks"),
    [*((name, ()) for name in BROKEN), *((n, ("--ranks", "2")) for n in ("own:Half", "egp"))],
)
def test_a_method_that_is_none_is_refused_before_any_rank_starts(
    epg: Run, tiny: Path, tmp_path: Path, name: str, ranks: tuple[str, ...]
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    said = epg("train", tiny, f"method={{name: {name!r}}}", *ranks, folder=tmp_path)
    assert said.code == 2 and said.out == "" and len(said.err.splitlines()) == 1
    assert BROKEN[name] in said.err, said.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method.loss=temporal_cnov", "method.loss: unknown name 'temporal_cnov'; did you mean"),
        ("method.loss=own:HalfLoss", "loss own:HalfLoss: it lacks bind, init"),
        ("method.loss=own:NoMethod", "not a subclass of epg.losses.base.LearnedLoss"),
        ("method.loss={name: temporal_conv, depth: 3}", "unknown key 'method.loss.depth'"),
        ("method.piars=3", "unknown key 'method.piars'; did you mean 'pairs'?"),
        ("method.optimizer=adma", "method.optimizer: unknown name 'adma'; did you mean adam?"),
        ("method.shaping=centered_rank", "needs task_draw generation, found pair"),
        ("method.loss=3", "method.loss: found 3, allowed: NAME or"),
        ("learner.buffer=20 lifetime.steps_per_update=16", "temporal_conv needs at least 21"),
        ("method={pairs: 3}", "method: found {'pairs': 3}, allowed: NAME or"),
    ],
)
def test_what_does_not_fit_is_one_line(
    epg: Run, tiny: Path, tmp_path: Path, override: str, words: str
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    overrides = override.split(" ") if override.startswith("learner") else [override]
    said = epg("train", tiny, *overrides, folder=tmp_path)
    assert said.code == 2 and said.out == "" and len(said.err.splitlines()) == 1
    assert words in said.err, said.err
    assert not (tmp_path / "runs").exists()


def test_an_optimizer_and_a_shaping_of_ones_own(epg: Run, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import numpy as np\n"
        "from epg.evolution.optimizer import Optimizer\n"
        "from epg.evolution.shaping import Shaping\n"
        "from epg.settings import Named\n"
        "class Plain(Optimizer):\n"
        "    class Settings(Named):\n"
        "        scale: float = 1.0\n"
        "    def __init__(self, settings, phi):\n"
        "        super().__init__(settings, phi)\n"
        "        self._phi = phi\n"
        "    @property\n"
        "    def phi(self):\n"
        "        return self._phi\n"
        "    def step(self, gradient, learning_rate):\n"
        "        self._phi = self._phi + self.settings.scale * learning_rate * gradient\n"
        "    def state_dict(self):\n"
        "        return {'phi': self._phi}\n"
        "    def load_state_dict(self, state):\n"
        "        self._phi = state['phi']\n"
        "class Sign(Shaping):\n"
        "    def weigh(self, fitness):\n"
        "        half = np.sign(fitness[:, 0] - fitness[:, 1]) / 2\n"
        "        return np.stack((half, -half), axis=1)\n"
    )
    own = ("method.optimizer={name: 'own:Plain', scale: 2.0}", "method.shaping=own:Sign")
    said = epg("train", tiny, "--run", "run", *own, folder=tmp_path)
    assert (said.code, said.err) == (0, ""), said
    assert "scale: 2.0" in (tmp_path / "run" / "config.yaml").read_text()
    said = epg("train", tiny, "--run", "run", *own, "steps=4", folder=tmp_path)
    assert said.code == 0 and "goes on after 3 of 4" in said.out
