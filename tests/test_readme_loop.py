"""The examples of the README and of the page on Python, run as they stand there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import patience
import pytest

ROOT = Path(__file__).parent.parent


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def run(example: str, folder: Path, *options: str) -> str:
    """What it prints; it says nothing else."""
    said = patience.run([sys.executable, *options, "-c", example], folder)
    assert said.returncode == 0, said.stderr
    assert not options or not said.stderr
    return said.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_a_training_loop_of_ones_own_learns(page: str, tmp_path: Path) -> None:
    """Without the repository around it; the pole stays up for longer and longer."""
    (loop,) = (example for example in examples(page) if "epg.load_loss(" in example)
    seeded = f"import torch\ntorch.manual_seed(0)\n{loop}"
    updates = run(seeded, tmp_path, "-W", "error").splitlines()
    assert len(updates) == 16 and updates[0].startswith("update 0: ")
    ended = [int(line.split()[2]) for line in updates]
    assert ended[-1] < max(ended) / 2, ended


def test_training_and_evaluation_from_python(tmp_path: Path) -> None:
    (example,) = (example for example in examples("docs/python.md") if "epg.train(" in example)
    said = run(example, tmp_path)
    assert (tmp_path / "runs/from-python/DONE").exists()
    assert (tmp_path / "compared/evaluation.json").exists()
    assert "epg ('random-cart-pole(masked=True)',) 227" in said
    judged = [line.rpartition(" ")[0] for line in said.splitlines()[-6:]]
    both = ["runs/from-python/best", "quickstart"]
    assert judged == [*both, "ppo", "random", *(f"blind {name}" for name in both)]
