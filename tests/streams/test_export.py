"""Export: the entries that the digest covers, no more and no fewer, whatever their types."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from thalweg.graph_store.digest import Numbered
from thalweg.streams.export import arrow_table, export_stage


class Stage(SimpleNamespace):
    """What export needs of a stage."""

    name = "attribution"
    shard = 0

    def entries(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        yield from self.tables


def test_the_two_ends_of_a_ring_are_one_table(tmp_path: Path) -> None:
    kind = [("key", "<u8"), ("ts", "<i8")]
    first, second = np.array([(1, 5)], kind), np.array([(2**64 - 1, 6), (3, 7)], kind)
    stage: Any = Stage(tables=[("ring", first), ("other", first[:0]), ("ring", second)])
    written = dict(export_stage(stage, tmp_path / "new"))
    assert written == {
        tmp_path / "new" / "attribution.ring.parquet": 3,
        tmp_path / "new" / "attribution.other.parquet": 0,
    }
    assert pq.read_table(tmp_path / "new" / "attribution.ring.parquet").to_pylist() == [
        {"key": 1, "ts": 5}, {"key": 2**64 - 1, "ts": 6}, {"key": 3, "ts": 7},
    ]  # fmt: skip


def test_shards_have_files_of_their_own(tmp_path: Path) -> None:
    stage: Any = Stage(tables=[("t", np.zeros(1, "<i8"))], shard=2)
    assert [path.name for path, _ in export_stage(stage, tmp_path)] == ["attribution.2.t.parquet"]


@pytest.mark.parametrize("rows", [
    np.zeros(3, [("number", "<i8"), ("value", [("weight", "<f8"), ("count", "<u4")])]),
    np.zeros(3, [("item", "<u8"), ("codes", "<u4", (2,))]),
    np.zeros(3, [("item", "<u8"), ("codes", "<u4", (0,))]),
    np.zeros((3, 2), np.float32),
    np.zeros(3, np.int64),
    np.zeros(0, [("a", "<i8")]),
])  # fmt: skip
def test_every_shape_of_entry_becomes_columns(rows: npt.NDArray[Any]) -> None:
    table = arrow_table(rows)
    assert table.num_rows == len(rows)
    names = {"number", "value.weight", "value.count", "item", "codes", "value", "a"}
    assert set(table.column_names) <= names and table.column_names


def test_numbered_tables_leave_out_zeros(tmp_path: Path) -> None:
    weights = np.zeros(5, [("weight", "<f8"), ("count", "<u4")])
    weights[3] = (0.5, 2)
    stage: Any = Stage(tables=[("weights", Numbered(weights))])
    assert [rows for _, rows in export_stage(stage, tmp_path)] == [1]
    found = pq.read_table(tmp_path / "attribution.weights.parquet").to_pylist()
    assert found == [{"number": 3, "value.weight": 0.5, "value.count": 2}]


def test_nested_values_keep_their_places() -> None:
    rows = np.zeros(2, [("item", "<u8"), ("codes", "<u4", (3,)), ("at", [("ts", "<i8")])])
    rows["codes"] = [[1, 2, 3], [4, 5, 6]]
    rows["at"]["ts"] = [7, 8]
    table = arrow_table(rows)
    assert table["codes"].to_pylist() == [[1, 2, 3], [4, 5, 6]]
    assert table["at.ts"].to_pylist() == [7, 8]
