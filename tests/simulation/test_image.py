"""The image of an open RocksDB folder holds what a kill -9 would leave: every commit that was over, no half of one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random

import numpy as np
import pytest
from rocksdict import WriteOptions

from thalweg.graph_store import state_store
from thalweg.graph_store.state_store import StateStore
from thalweg.streams.simulation.image import logged_bytes, take_image, tear


def opened(folder: Path) -> tuple[StateStore, state_store.Array]:
    store = StateStore.open(folder, "f")
    return store, store.array("numbers", np.int64, (20_000,))


def commit(store: StateStore, numbers: state_store.Array, value: int) -> None:
    numbers.values[:] = np.arange(len(numbers.values)) * value  # 160 kB: a write of several log blocks
    store.commit({"position": value})


def content(folder: Path) -> tuple[int, set[int]]:
    """Position of a folder, and what its numbers are multiples of."""
    store, numbers = opened(folder)
    try:
        return store.position.get("position", 0), set((numbers.values[1:] // np.arange(1, 20_000)).tolist())
    finally:
        store.close()


def test_an_image_has_the_last_commit_and_the_store_goes_on(tmp_path: Path) -> None:
    store, numbers = opened(tmp_path / "state")
    for value in (1, 2, 3):
        commit(store, numbers, value)
        image = take_image(tmp_path / "state")
        assert image != tmp_path / "state" and content(image) == (value, {value})
    store.close()
    assert content(tmp_path / "state") == (3, {3})


@pytest.mark.parametrize("seed", range(6))
def test_of_a_torn_write_nothing_is_seen(seed: int, tmp_path: Path) -> None:
    store, numbers = opened(tmp_path / "state")
    commit(store, numbers, 1)
    start = logged_bytes(tmp_path / "state")
    commit(store, numbers, 2)
    image = take_image(tmp_path / "state")
    end = logged_bytes(image)
    tear(image, start, Random(seed))
    assert start <= logged_bytes(image) < end == logged_bytes(tmp_path / "state")
    assert content(image) == (1, {1})
    store.close()


def test_nothing_is_torn_where_nothing_was_written(tmp_path: Path) -> None:
    store, numbers = opened(tmp_path / "state")
    commit(store, numbers, 1)
    image = take_image(tmp_path / "state")
    tear(image, logged_bytes(image), Random(1))
    store.close()
    assert content(image) == (1, {1})


def test_what_a_kill_loses_a_clean_close_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why there are images: a commit that goes past the log is in memory alone, and closing writes it to the folder."""

    def unlogged() -> WriteOptions:
        options = WriteOptions()
        options.disable_wal = True
        return options

    monkeypatch.setattr(state_store, "WriteOptions", unlogged)
    store, numbers = opened(tmp_path / "state")
    commit(store, numbers, 1)
    image = take_image(tmp_path / "state")
    store.close()
    assert content(image) == (0, {0}) and content(tmp_path / "state") == (1, {1})


def test_a_file_may_go_while_an_image_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RocksDB deletes files behind the scenes: one right after it was listed here, one before it could be copied."""
    store, numbers = opened(tmp_path / "state")
    commit(store, numbers, 1)
    folder, went = tmp_path / "state", []
    listed, copied = os.listdir, shutil.copyfile

    def listing(path: Path) -> list[str]:
        names = listed(path)
        if not went:
            went.append("listed")
            names.append("000998.sst")
        elif went == ["listed"]:
            (folder / "000999.sst").touch()
            names.append("000999.sst")
        return names

    def copy(source: Path, target: Path) -> None:
        if source.name == "000999.sst":
            source.unlink(missing_ok=True)
            went.append("copied")
        copied(source, target)

    monkeypatch.setattr(os, "listdir", listing)
    monkeypatch.setattr(shutil, "copyfile", copy)
    image = take_image(folder)
    monkeypatch.undo()
    assert went == ["listed", "copied"] and content(image) == (1, {1})
    store.close()


def test_an_image_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        take_image(tmp_path / "state")
