"""The README's training loop, run as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_training_loop_of_the_readme_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    (loop,) = re.findall(r"```python\n(.*?epg\.load_loss\(.*?)```", readme, re.DOTALL)
    said = subprocess.run(
        [sys.executable, "-W", "error", "-c", loop],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (said.returncode, said.stderr) == (0, "")
    updates = said.stdout.splitlines()
    assert len(updates) == 16 and updates[0].startswith("update 0: ")
