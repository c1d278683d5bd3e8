"""The pages say what the code does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from epg.methods.epg import Epg
from epg.runs.metrics import columns_of

ROOT = Path(__file__).parent.parent


def test_the_configuration_page_is_current(tmp_path: Path) -> None:
    page = ROOT / "docs" / "configuration.md"
    script = (ROOT / "docs" / "generate.py").read_text()
    copy = tmp_path / "generate.py"
    copy.write_text(script)
    subprocess.run([sys.executable, copy], check=True)
    assert (tmp_path / "configuration.md").read_text() == page.read_text()


def test_every_metric_is_explained() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert [name for name in columns_of(Epg.metrics) if f"`{name}`" not in page] == []
