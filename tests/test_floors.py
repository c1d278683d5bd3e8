"""The house: each folder imports only what stands below it, and the root has few files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import epg

ROOT = Path(epg.__file__).parent
FLOORS = (
    "__main__", "cli", "cluster", "bench", "training", "evaluation", "methods", "runs", "config",
    "lifetime", "losses", "evolution", "rules", "agents", "farm", "tasks", "seeds", "upgrade",
    "process", "settings", "registry", "errors", "version",
)  # fmt: skip
"""From the top down."""
MOST_AT_ROOT = 11
FILES = sorted(ROOT.rglob("*.py"))


def floor_of(module: str) -> int:
    """The floor that `epg.a.b` stands on, counted from the top."""
    name = module.removeprefix("epg").removeprefix(".").partition(".")[0]
    return -1 if not name else FLOORS.index(name)


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_in(tree: ast.AST) -> Iterator[str]:
    """All modules of the package that some code imports, at its top, in functions, or for types."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("epg."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            module = node.module or ""
            if module == "epg" or module.startswith("epg."):
                names = [f"{module}.{alias.name}" for alias in node.names]
                yield from (name if name in MODULES else module for name in names)


def imports_of(file: Path) -> set[str]:
    return {module for module in imports_in(ast.parse(file.read_text())) if module != "epg"}


MODULES = {module_of(file): file for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(ROOT)) for file in FILES])
def test_no_import_runs_upwards(file: Path) -> None:
    here = floor_of(module_of(file))
    for module in imports_of(file):
        assert floor_of(module) >= here, f"{module_of(file)} imports {module}, which stands above"
        if floor_of(module) == here:
            folder = module_of(file).split(".")[1:2]
            assert module.split(".")[1:2] == folder, f"{module_of(file)} imports {module}"


def test_no_two_files_import_each_other() -> None:
    """Neither directly nor by way of others; imports for types alone do not count."""
    graph = {
        module: {m for m in imports_of_running(file) if m in MODULES and m != module}
        for module, file in MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join([*path[path.index(module) :], module])
        if module not in done:
            for below in sorted(graph[module]):
                visit(below, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def imports_of_running(file: Path) -> set[str]:
    """What a file imports while it is itself imported."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
        if isinstance(node, ast.FunctionDef):
            node.body = []
    return set(imports_in(tree)) - {"epg"}


def test_the_root_has_few_files() -> None:
    assert len(list(ROOT.glob("*.py"))) <= MOST_AT_ROOT


def test_every_floor_is_there_and_every_file_has_one() -> None:
    there = {file.stem for file in ROOT.glob("*.py")} | {
        folder.name for folder in ROOT.iterdir() if (folder / "__init__.py").exists()
    }
    assert there - {"__init__", "mpi_launch"} == set(FLOORS)


def test_farm_runs_and_training_know_no_method() -> None:
    """A method is a file: what moves work and files about names none of them."""
    for folder in ("farm", "runs", "training", "cluster"):
        for file in (ROOT / folder).glob("*.py"):
            for module in imports_of(file):
                assert not module.startswith(("epg.losses", "epg.evolution")), (file, module)
                if module.startswith("epg.methods"):
                    known = ("epg.methods.base", "epg.methods.saved", "epg.methods.footprint")
                    assert module in known, (file, module)
