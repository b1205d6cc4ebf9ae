from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from thalweg.graph_store.adjacency import Adjacency
from thalweg.graph_store.decay import Decay
from thalweg.graph_store.refresh import take_snapshot
from thalweg.graph_store.snapshot import BuildSettings, Snapshot
from thalweg.graph_store.state_store import StateStore
from thalweg.streams.build import BuildError, Builds, build_version, builds_in, main
from thalweg.streams.row import DAY

from ..reference.copurchases import planted_rows


def snapshot(version: int = 1, seed: int = 1, prior: str | None = None) -> Snapshot:
    graph = Adjacency(StateStore.memory(), Decay(400 * DAY, 400 * DAY), 0)
    rows = planted_rows(seed, 150, 20)
    graph.apply(rows, np.zeros((len(rows), 0), np.uint32), np.arange(len(rows)))
    return take_snapshot(graph, version, 20 * DAY + version, BuildSettings(dimensions=6, epochs=0), prior)


def test_the_process_and_the_inline_build_make_the_same_version(tmp_path: Path) -> None:
    apart, inline = Builds(tmp_path / "apart"), Builds(tmp_path / "inline", inline=True)
    digest = apart.start(snapshot())
    assert inline.start(snapshot()) == digest
    assert not inline.ready(digest)
    one, two = apart.load(digest), inline.load(digest)
    assert one.manifest.inputs == digest
    assert np.allclose(np.abs(one.source @ one.target.T), np.abs(two.source @ two.target.T), atol=1e-4)
    apart.close()


def test_a_version_is_built_once(tmp_path: Path) -> None:
    builds = Builds(tmp_path, inline=True)
    digest = builds.start(snapshot())
    folder = builds.wait(digest)
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert builds.start(snapshot()) == digest and builds.poll(digest)
    assert builds.wait(digest) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    assert not list(tmp_path.glob("*-snapshot"))


def test_a_killed_builder_is_started_again(tmp_path: Path) -> None:
    builds = Builds(tmp_path)
    digest = builds.start(snapshot())
    builds.close()
    assert Builds(tmp_path).load(digest).manifest.version == 1  # another process, later, finds the snapshot


def test_the_version_before_is_found_by_its_digest(tmp_path: Path) -> None:
    builds = Builds(tmp_path, inline=True)
    first = builds.start(snapshot())
    builds.wait(first)
    second = builds.start(snapshot(2, seed=2, prior=first))
    assert builds.load(second).manifest.previous["version"] == 1
    assert builds_in(tmp_path) == [first, second]


def test_a_failing_builder_is_named_with_what_it_said(tmp_path: Path) -> None:
    builds = Builds(tmp_path)
    digest = builds.start(snapshot(2, prior="ab" * 16))
    with pytest.raises(BuildError, match="status 1.*no embedding version"):
        builds.wait(digest)
    polled = Builds(tmp_path)
    polled.start(snapshot(2, prior="ab" * 16))
    with pytest.raises(BuildError):
        while not polled.poll(digest):
            pass


def test_neither_version_nor_snapshot(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="new --state"):
        Builds(tmp_path).wait("cd" * 16)


def test_the_command_line(tmp_path: Path) -> None:
    assert main([]) == 2
    snapshot().save(tmp_path / "s")
    assert main([str(tmp_path / "s"), str(tmp_path / "v")]) == 0
    assert json.loads((tmp_path / "v" / "manifest.json").read_text())["version"] == 1
    said = subprocess.run([sys.executable, "-m", "thalweg.streams.build"], capture_output=True, text=True)
    assert said.returncode == 2 and "SNAPSHOT_DIR" in said.stderr


def test_dropped_vectors_leave_the_manifest(tmp_path: Path) -> None:
    builds = Builds(tmp_path, inline=True)
    digest = builds.start(snapshot())
    builds.wait(digest)
    builds.drop_vectors(digest)
    assert builds_in(tmp_path) == [digest]
    assert not list((tmp_path / digest).glob("*.npy"))


def test_a_temporary_folder_goes_with_its_object() -> None:
    builds = Builds(None, inline=True)
    folder = builds.folder
    build_version_folder = builds.wait(builds.start(snapshot()))
    assert build_version_folder.parent == folder and folder.exists()
    del builds
    assert not folder.exists()


def test_building_into_a_finished_folder_does_nothing(tmp_path: Path) -> None:
    builds = Builds(tmp_path, inline=True)
    digest = builds.start(snapshot())
    builds.wait(digest)
    build_version(tmp_path / "no such snapshot", tmp_path / digest)
