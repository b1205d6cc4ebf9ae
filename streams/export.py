"""What a stage holds as Parquet files: the logical entries that its digest covers, a table a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..graph_store.digest import Numbered
from .stage import Stage


def export_stage(stage: Stage, folder: Path) -> Iterator[tuple[Path, int]]:
    """Write the tables of one stage (of one shard) into `folder`; yields each file and its number of rows.

    Ids are the 64-bit hashes that the state keeps. Shards other than 0 have their number in the file's name.

    >>> import tempfile
    >>> from thalweg.graph_store.state_store import StateStore
    >>> from .calibration import CalibrationStage
    >>> from .configuration import Configuration
    >>> stage = CalibrationStage(Configuration(), StateStore.memory())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [(path.name, rows) for path, rows in export_stage(stage, Path(folder))]
    [('calibration.cells.parquet', 0), ('calibration.readings.parquet', 0)]
    """
    folder.mkdir(parents=True, exist_ok=True)
    shard = f".{stage.shard}" if stage.shard else ""
    tables: dict[str, list[pa.Table]] = {}
    for name, rows in stage.entries():  # the two ends of a ring come one after the other
        tables.setdefault(name, []).append(arrow_table(numbered(rows) if isinstance(rows, Numbered) else rows))
    for name, parts in tables.items():
        path = folder / f"{stage.name}{shard}.{name}.parquet"
        pq.write_table(pa.concat_tables(parts), path)
        yield path, sum(len(part) for part in parts)


def numbered(entries: Numbered) -> npt.NDArray[Any]:
    """Records (number, value) of the rows that are not all zero.

    >>> numbered(Numbered(np.array([0, 7]))).tolist()
    [(1, 7)]
    """
    rows = entries.rows
    kept = np.flatnonzero(np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1).any(axis=1))
    out = np.zeros(len(kept), np.dtype([("number", "<i8"), ("value", rows.dtype)]))
    out["number"], out["value"] = kept, rows[kept]
    return out


def arrow_table(rows: npt.NDArray[Any]) -> pa.Table:
    """A numpy record array, or a plain one, as an Arrow table; sub-records are flattened, sub-arrays become lists.

    >>> rows = np.zeros(2, [("item", "<u8"), ("codes", "<u4", (3,))])
    >>> arrow_table(rows).column_names
    ['item', 'codes']
    """
    return pa.table(dict(_columns(rows, "")))


def _columns(rows: npt.NDArray[Any], prefix: str) -> Iterator[tuple[str, pa.Array]]:
    if rows.dtype.names is None:
        if all(rows.shape[1:]):  # a sub-array of no columns says nothing
            yield prefix or "value", _column(rows)
        return
    for name in rows.dtype.names:
        yield from _columns(rows[name], f"{prefix}.{name}" if prefix else name)


def _column(values: npt.NDArray[Any]) -> pa.Array:
    """One column; the last axes of a sub-array become a fixed-size list."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    width = int(np.prod(values.shape[1:], dtype=np.int64))
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, width)
