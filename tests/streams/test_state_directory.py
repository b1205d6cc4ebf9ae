"""The state directory: one owner, many readers, digests that add up, a configuration that stays."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from thalweg.graph_store.state_store import StateError
from thalweg.streams.configuration import Configuration, from_builtins
from thalweg.streams.state_directory import StateDirectory, stored_configuration


def test_it_is_private_and_has_one_owner(tmp_path: Path) -> None:
    """Mode 0700; a second writer is refused by name, a file that is not ours stays."""
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with StateDirectory(folder, Configuration()) as state:
        state.checkpoint()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        with pytest.raises(StateError, match="in use by another process"):
            StateDirectory(folder, Configuration())
        with StateDirectory(folder, read_only=True) as reader:
            assert reader.digests() == state.digests()
    assert (folder / "notes.txt").read_text() == "mine"


def test_empty_states_agree(tmp_path: Path) -> None:
    """Of 1 and of 3 partitions, before anything was read; stages come in the order of the data."""
    digests = []
    for partitions in (1, 3):
        with StateDirectory(tmp_path / str(partitions), from_builtins({"partitions": partitions})) as state:
            digests.append(state.digests())
            assert list(state.trails()) == ["attribution", "feedback", "copurchase", "calibration"]
            assert [stage.name for stage in state.stages()][0] == "calibration"
            assert set(state.sizes()) == set(state.digests())
    assert digests[0] == digests[1]


def test_its_configuration_is_kept(tmp_path: Path) -> None:
    """Without one, the stored is taken; settings of the store may differ, others may not."""
    with StateDirectory(tmp_path / "s", from_builtins({"attribution": {"window": "3d"}})) as state:
        state.checkpoint()
    assert int(stored_configuration(tmp_path / "s").attribution.window) == 3 * 86_400_000
    with StateDirectory(tmp_path / "s", from_builtins({"attribution": {"window": "3d"}, "store": {"sync": True}})):
        pass
    other = {"attribution": {"window": "4d"}, "time": {"idle_timeout": "1s"}}
    with pytest.raises(StateError, match=r"\(attribution.window: 3d then, 4d now\)"):
        StateDirectory(tmp_path / "s", from_builtins(other))
    with pytest.raises(StateError, match="no state here"):
        stored_configuration(tmp_path)
