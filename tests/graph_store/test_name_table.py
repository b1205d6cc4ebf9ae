from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.graph_store.hash import hash_text
from thalweg.graph_store.name_table import NameTable
from thalweg.graph_store.state_store import StateStore

texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=30)


def hashes_of(names: list[str]) -> np.ndarray:
    return np.array([hash_text(name) for name in names], np.uint64)


@settings(max_examples=50, deadline=None)
@given(texts, texts)
def test_every_name_comes_back_whatever_its_text(first: list[str], second: list[str]) -> None:
    table = NameTable(StateStore.memory())
    for names in (first, second):
        table.put(hashes_of(names), names)
    wanted = list(dict.fromkeys(first + second))
    assert [name for _, name in table.all()] == wanted
    assert len(table) == len(wanted)
    assert all(table.get(hash_text(name)) == name for name in wanted)


def test_the_first_text_of_a_hash_stays() -> None:
    table = NameTable(StateStore.memory())
    table.put(np.array([5], np.uint64), ["one"])
    table.put(np.array([5], np.uint64), ["other"])
    assert table.get(5) == "one"


def test_a_full_table_counts_what_it_drops() -> None:
    store = StateStore.memory()
    table = NameTable(store, limit=2)
    names = ["a", "b", "c", "d"]
    table.put(hashes_of(names), names)
    assert len(table) == 2 and table.get(hash_text("c")) is None
    assert store.counters == {"names: table full": 2}


def test_names_survive_a_commit(tmp_path: Path) -> None:
    names = [f"item {k}" for k in range(3000)] + ["größer", ""]
    store = StateStore.open(tmp_path / "s", "f")
    NameTable(store).put(hashes_of(names), names)
    store.commit({})
    store.close()
    again = StateStore.view(tmp_path / "s")
    table = NameTable(again)
    assert [name for _, name in table.all()] == names
    assert table.get(hash_text("größer")) == "größer"
    again.close()
