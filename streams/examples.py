"""thalweg.examples as files: every emission of the learner, for another trainer, one Parquet file a checkpoint.

Files are named by the positions they cover. They are written before the checkpoint that covers them is committed; what
a killed run wrote beyond its last commit is removed when the next run begins. So each emission stands there once.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .block import Block, Codes, Rows

_NAME = re.compile(r"examples-(\d+)-(\d+)\.parquet")


class ExampleFiles:
    """A folder of examples that grows with the checkpoints of a replay.

    Parameters
    ----------
    folder : made where it is missing
    position : where the feedback stage stands; files that begin at it or beyond are removed
    """

    def __init__(self, folder: Path, position: int) -> None:
        self.folder = folder
        self._position = position
        self._blocks: list[tuple[Rows, Codes]] = []
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("examples-*.parquet"):
            match = _NAME.fullmatch(path.name)
            if match is not None and int(match[1]) >= position:
                path.unlink()

    def take(self, block: Block) -> None:
        """Hold the rows of one block until `flush`."""
        if len(block):
            self._blocks.append((block.rows, block.features))

    def flush(self, position: int) -> int:
        """Write what is held as the file that ends at `position`; its number of rows."""
        if not self._blocks:
            return 0
        rows = np.concatenate([rows for rows, _ in self._blocks])
        indices = np.concatenate([indices for _, indices in self._blocks])
        path = self.folder / f"examples-{self._position:020d}-{position:020d}.parquet"
        part = path.with_suffix(".part")
        pq.write_table(example_table(rows, indices), part)
        part.replace(path)
        self._blocks, self._position = [], position
        return len(rows)


def example_table(rows: Rows, indices: Codes) -> pa.Table:
    """Examples as an Arrow table: a column a field of `row.EXAMPLE_ROW`, and the hashed indices as a list column.

    >>> from .row import EXAMPLE_ROW
    >>> example_table(np.zeros(1, EXAMPLE_ROW), np.zeros((1, 2), np.uint32)).column("features").to_pylist()
    [[0, 0]]
    """
    columns = {name: pa.array(np.ascontiguousarray(rows[name])) for name in rows.dtype.names or ()}
    flat = pa.array(np.ascontiguousarray(indices).reshape(-1))
    columns["features"] = pa.FixedSizeListArray.from_arrays(flat, indices.shape[1])
    return pa.table(columns)
