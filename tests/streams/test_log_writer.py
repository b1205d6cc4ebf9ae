"""Logs are written whole or not at all, in the canonical columns, and read back as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thalweg.streams.configuration import from_builtins
from thalweg.streams.event import event_schema
from thalweg.streams.log_writer import ROW_GROUP, WORD, LogWriter, log_schema, numbered, words


def test_the_columns_are_the_canonical_ones() -> None:
    features = [{"name": "channel"}, {"name": "age", "kind": "numeric"}]
    canonical = event_schema(from_builtins({"features": features}))
    written = log_schema(["channel"], ["age"])
    assert written.names == canonical.names
    for field in written:
        plain = field.type.value_type if field.type == WORD else field.type
        assert plain == canonical.field(field.name).type


def test_batches_come_back_in_order_with_nulls_where_nothing_was_said(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    with LogWriter(path, log_schema(["channel"])) as writer:
        for begin in (0, 3):
            number = np.arange(begin, begin + 3)
            writer.write(
                {"event_id": numbered("e", number), "ts": number, "channel": words(number % 3 - 1, ["a", "b"])}, 3
            )
    table = pq.read_table(path)
    assert table["event_id"].to_pylist() == [f"e{k}" for k in range(6)]
    assert table["channel"].to_pylist() == [None, "a", "b"] * 2
    assert table["user_id"].null_count == table["price"].null_count == 6
    assert table.schema.field("channel").type == WORD
    assert pq.ParquetFile(path).num_row_groups == 2


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), LogWriter(tmp_path / "log.parquet", log_schema()) as writer:
        writer.write({"ts": np.arange(2)}, 2)
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    path.write_bytes(b"old")
    with LogWriter(path, log_schema()) as writer:
        writer.write({"ts": np.arange(2)}, 2)
        assert path.read_bytes() == b"old"
    assert len(pq.read_table(path)) == 2


def test_ids_and_words() -> None:
    assert numbered("", np.array([5, -1])).to_pylist() == ["5", None]
    assert words(np.array([0, 1]), pa.array(["x", "y"])).to_pylist() == ["x", "y"]
    assert ROW_GROUP == 100_000
