"""Imports point one way: streams stands on models, models on graph_store, and nothing goes round in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("streams", "models", "graph_store")


def module_name(path: Path) -> str:
    """The import name of a file below the root: streams/stage.py is thalweg.streams.stage."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("thalweg", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def statements(node: ast.AST, inside: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Import statements below `node`, with whether each stands inside a function (or for type checkers only)."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, inside
        else:
            for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from statements(child, inside or function or for_types)


def imported(path: Path, statement: ast.Import | ast.ImportFrom) -> list[str]:
    """Absolute names that a statement of the file at `path` may import: modules, and names within them."""
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    base = statement.module or ""
    if statement.level:
        package = module_name(path).split(".")
        if path.name != "__init__.py":
            package = package[:-1]
        package = package[: len(package) - statement.level + 1]
        base = ".".join([*package, base]) if base else ".".join(package)
    return [base, *(f"{base}.{alias.name}" for alias in statement.names)]


def graph() -> dict[str, set[str]]:
    """Which module of ours imports which when it is loaded."""
    paths = {module_name(path): path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py")}
    edges: dict[str, set[str]] = {name: set() for name in paths}
    for name, path in paths.items():
        for statement, inside in statements(ast.parse(path.read_text(encoding="utf-8"))):
            if not inside:
                found = imported(path, statement)
                edges[name] |= {other for other in found if other in paths and other != name}
    return edges


def cycle(edges: dict[str, set[str]]) -> list[str]:
    """A circle of imports, or nothing. Depth first, with three colours.

    >>> cycle({"a": {"b"}, "b": {"a"}})
    ['a', 'b', 'a']
    >>> cycle({"a": {"b"}, "b": set()})
    []
    """
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(edges[name]):
            found = walk(other, [*path, name])
            if found:
                return found
        done.add(name)
        return []

    return next((found for name in sorted(edges) if (found := walk(name, []))), [])


def test_no_circle_of_imports() -> None:
    found = cycle(graph())
    assert not found, f"break the circle {' -> '.join(found)}: move what both need to a module below"


def test_the_circle_finder_finds() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_layers_hold() -> None:
    """The contracts of [tool.importlinter] in pyproject.toml."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_bare_names_are_banned() -> None:
    """A user's own folder `models` would shadow a bare import; ruff says so, in the library and outside it."""
    sources = "import models.features\n", "from streams import stage\n", "from graph_store.hash import mix64\n"
    for source in sources:
        done = subprocess.run(
            [sys.executable, "-m", "ruff", "check", "--select", "TID251", "--stdin-filename", "examples/x.py", "-"],
            input=source, cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1 and "TID251" in done.stdout, f"{source!r} passed: {done.stdout}"
    for name, path in ((module_name(path), path) for folder in PACKAGES for path in (ROOT / folder).rglob("*.py")):
        for statement, _ in statements(ast.parse(path.read_text(encoding="utf-8"))):
            bare = {other.split(".")[0] for other in imported(path, statement)} & set(PACKAGES)
            assert not bare, f"{name}: import thalweg.{bare.pop()}, not the bare name"


@pytest.mark.parametrize(("path", "source", "expected"), [
    ("streams/attribution/stage.py", "from .. import block", "thalweg.streams.block"),
    ("streams/attribution/__init__.py", "from .stage import Attribution", "thalweg.streams.attribution.stage"),
    ("models/features.py", "from thalweg.graph_store.hash import mix64", "thalweg.graph_store.hash"),
])  # fmt: skip
def test_relative_imports_are_resolved(path: str, source: str, expected: str) -> None:
    statement = ast.parse(source).body[0]
    assert isinstance(statement, ast.Import | ast.ImportFrom)
    assert expected in imported(ROOT / path, statement)
