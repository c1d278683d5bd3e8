"""The pages say what the code does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from epg.methods.epg import Epg
from epg.process import shipped
from epg.runs.metrics import columns_of

ROOT = Path(__file__).parent.parent


def test_the_configuration_page_is_current(tmp_path: Path) -> None:
    page = ROOT / "docs" / "configuration.md"
    script = (ROOT / "docs" / "generate.py").read_text()
    copy = tmp_path / "generate.py"
    copy.write_text(script)
    subprocess.run([sys.executable, copy], check=True)
    assert (tmp_path / "configuration.md").read_text() == page.read_text()


def test_the_readme_names_what_comes_with_the_package() -> None:
    readme = (ROOT / "README.md").read_text()
    names = {*shipped.named("configuration"), *shipped.named("loss")}
    assert [name for name in sorted(names) if f"`{name}`" not in readme] == []


def test_every_metric_is_explained() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert [name for name in columns_of(Epg.metrics) if f"`{name}`" not in page] == []
