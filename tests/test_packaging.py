"""What is installed: the wheel's contents, beside a user's own folders of the same names; and that set-up resumes."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("streams", "models", "graph_store")
LEFT_OUT = shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "demo", "__pycache__", "shared")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree, built in a copy of it."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "tree", symlinks=True, ignore=LEFT_OUT)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-input"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--wheel-dir", str(folder), str(folder / "tree")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {"thalweg/__init__.py", "thalweg/py.typed"}
    for package in PACKAGES:
        expected |= {f"thalweg/{path.relative_to(ROOT)}" for path in (ROOT / package).rglob("*.py")}
    for folder in ("assets", "vendor"):
        expected |= {f"thalweg/{path.relative_to(ROOT)}" for path in (ROOT / "streams" / folder).iterdir()}
    code = {name for name in names if ".dist-info/" not in name}
    assert code == expected, f"missing {sorted(expected - code)}, too much {sorted(code - expected)}"
    licences = {name.rsplit("/", 1)[1] for name in names if "/licenses/" in name}
    assert {"LICENSE", "LICENSE-vega", "LICENSE-vega-lite", "LICENSE-vega-embed"} <= licences


@pytest.mark.slow
def test_a_users_own_folders_are_not_in_the_way(wheel: Path, tmp_path: Path) -> None:
    """A script beside folders `models` and `streams` of its own gets both those and Thalweg's."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    for package in PACKAGES:
        (tmp_path / "theirs" / package).mkdir(parents=True)
        (tmp_path / "theirs" / package / "__init__.py").write_text("whose = 'theirs'\n")
    script = tmp_path / "theirs" / "script.py"
    script.write_text(
        "import models, streams, graph_store, thalweg\n"
        "import thalweg.models.features, thalweg.graph_store.hash, thalweg.streams.report\n"
        "assert {models.whose, streams.whose, graph_store.whose} == {'theirs'}\n"
        "assert thalweg.streams.report.vendored('vega.min.js')\n"
        "print(thalweg.__file__)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(site / "thalweg" / "__init__.py")


def test_the_script_is_installed() -> None:
    program = Path(sys.executable).parent / "thalweg"
    done = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_every_dependency_says_why() -> None:
    """Each line of a dependency list carries a comment with its reason."""
    inside = False
    for line in (ROOT / "pyproject.toml").read_text().splitlines():
        if line.startswith(("dependencies = [", "dev = [")):
            inside = True
        elif line.startswith("]"):
            inside = False
        elif inside:
            assert "#" in line, f"pyproject.toml: say why: {line.strip()}"


# ---- make setup, with a python that only keeps a diary

PYTHON = """#!/bin/sh
echo "$@" >> {diary}
if [ "$1 $2" = "-m venv" ]; then rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; fi
if [ "$1 $2 $3" = "-m pip install" ] && [ -e {folder}/broken ]; then kill -9 $PPID; exit 9; fi
exit 0
"""


class Machine:
    """A copy of the Makefile with a stand-in for Python; `make` returns what that was asked to do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.diary = folder / "diary"
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, folder / name)
        self.python = folder / "python"
        self.python.write_text(PYTHON.format(diary=self.diary, folder=folder))
        self.python.chmod(self.python.stat().st_mode | stat.S_IXUSR)

    def make(self) -> tuple[int, list[str]]:
        self.diary.write_text("")
        command = ["make", "setup", f"PYTHON={self.python}"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        return done.returncode, [line for line in self.diary.read_text().splitlines() if "--version" not in line]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def steps(asked: list[str]) -> list[str]:
    """Which of the two steps were taken."""
    return ["venv" if line.startswith("-m venv") else "install" for line in asked]


def test_set_up_is_done_once(machine: Machine) -> None:
    status, asked = machine.make()
    assert status == 0 and steps(asked) == ["venv", "install"]
    assert machine.make() == (0, [])


def test_a_set_up_that_was_cut_off_starts_anew(machine: Machine) -> None:
    (machine.folder / "broken").touch()
    status, asked = machine.make()
    assert status != 0 and steps(asked) == ["venv", "install"]
    (machine.folder / "broken").unlink()
    status, asked = machine.make()
    assert status == 0 and steps(asked) == ["venv", "install"]
    assert machine.make() == (0, [])


def test_a_changed_project_only_installs(machine: Machine) -> None:
    machine.make()
    stamp = machine.folder / ".venv" / ".installed"
    later = stamp.stat().st_mtime + 10
    os.utime(machine.folder / "pyproject.toml", (later, later))
    status, asked = machine.make()
    assert status == 0 and steps(asked) == ["install"]


def test_no_python_is_said_with_the_mend(machine: Machine) -> None:
    command = ["make", "setup", "PYTHON=no-such-python"]
    done = subprocess.run(command, cwd=machine.folder, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "install Python 3.11" in done.stderr
