"""The merge rule, written once: rows of several sources leave in one total order, once none can bring an earlier.

Each source has a clock that never falls. A row leaves once the least clock has passed it (`ts < clock`), in the order
(ts, rank, id, id2, tie): an order of the row's own content, so that what a stage sees is a function of the *set* of
rows, whatever was interleaved, and N shards give what one gives.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..graph_store.kernel import kernel
from .block import NO_CLOCK, Codes, Rows
from .row import join, pick


@kernel
def _before(rows, a, b):  # type: ignore[no-untyped-def]
    if rows["rank"][a] != rows["rank"][b]:
        return rows["rank"][a] < rows["rank"][b]
    if rows["id"][a] != rows["id"][b]:
        return rows["id"][a] < rows["id"][b]
    if rows["id2"][a] != rows["id2"][b]:
        return rows["id2"][a] < rows["id2"][b]
    return rows["tie"][a] < rows["tie"][b]


@kernel
def _order_ties(rows, order):  # type: ignore[no-untyped-def]
    """Insertion sort inside each run of equal times; runs are short, and long ones fall back to `_sort_run`."""
    n = order.shape[0]
    i = 0
    while i < n:
        j = i + 1
        ts = rows["ts"][order[i]]
        while j < n and rows["ts"][order[j]] == ts:
            j += 1
        if j - i > 64:
            _sort_run(rows, order, i, j)
        else:
            for k in range(i + 1, j):
                row = order[k]
                m = k - 1
                while m >= i and _before(rows, row, order[m]):
                    order[m + 1] = order[m]
                    m -= 1
                order[m + 1] = row
        i = j


@kernel
def _sort_run(rows, order, start, end):  # type: ignore[no-untyped-def]
    """Bottom-up merge sort of order[start:end]; stable."""
    n = end - start
    source = order[start:end].copy()
    target = np.empty_like(source)
    width = 1
    while width < n:
        for low in range(0, n, 2 * width):
            mid, high = min(low + width, n), min(low + 2 * width, n)
            i, j = low, mid
            for k in range(low, high):
                if i < mid and (j >= high or not _before(rows, source[j], source[i])):
                    target[k] = source[i]
                    i += 1
                else:
                    target[k] = source[j]
                    j += 1
        source, target = target, source
        width *= 2
    order[start:end] = source


def total_order(rows: Rows, among: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
    """Indices that put `rows` (those of `among` only, if given) into (ts, rank, id, id2, tie) order: int64[n]; stable.

    Rows nearly in order of time cost little: the sort by time is a timsort, ties are sorted in a kernel.
    """
    order = np.arange(len(rows)) if among is None else among
    ts = rows["ts"][order]
    if len(ts) > 1 and not bool((ts[1:] >= ts[:-1]).all()):
        order = order[np.argsort(ts, kind="stable")]
    _order_ties(rows, order)
    return order


class _Chunk(NamedTuple):
    """Rows offered together, with the least of their times."""

    earliest: int
    rows: Rows
    features: Codes


class Merge:
    """Rows held until the least clock over the sources passes them.

    Parameters
    ----------
    sources : how many sources there are; each starts at `NO_CLOCK`

    Attributes
    ----------
    clocks : int64[sources]
    """

    def __init__(self, sources: int) -> None:
        self.clocks = np.full(sources, NO_CLOCK, np.int64)
        self._chunks: list[_Chunk] = []

    @property
    def clock(self) -> int:
        """The least clock over the sources, ms."""
        return int(self.clocks.min())

    @property
    def held(self) -> int:
        """How many rows wait."""
        return sum(len(chunk.rows) for chunk in self._chunks)

    def offer(self, rows: Rows, features: Codes) -> None:
        """Hold `rows` (in any order) until `release`; the arrays must not change afterwards."""
        if len(rows):
            self._chunks.append(_Chunk(int(rows["ts"].min()), rows, features))

    def release(self) -> tuple[Rows, Codes, npt.NDArray[np.int64]] | None:
        """Rows, their features, and the total order of those that leave; None where none does.

        The arrays may hold rows that stay: `order` says which leave, and nothing is copied for the others' sake.
        """
        clock = self.clock
        moving = [chunk for chunk in self._chunks if chunk.earliest < clock]
        if not moving:
            return None
        staying = [chunk for chunk in self._chunks if chunk.earliest >= clock]
        rows = moving[0].rows if len(moving) == 1 else join([chunk.rows for chunk in moving])
        features = moving[0].features if len(moving) == 1 else np.concatenate([chunk.features for chunk in moving])
        ready = rows["ts"] < clock
        among = np.flatnonzero(ready)
        if len(among) < len(rows):
            stay = pick(rows, ~ready)
            staying.insert(0, _Chunk(int(stay["ts"].min()), stay, features[~ready]))
        self._chunks = staying
        return rows, features, total_order(rows, among)

    def rows(self, empty_rows: Rows, empty_features: Codes) -> tuple[Rows, Codes]:
        """All held rows with their features, as copies; the empty arrays where there are none."""
        if not self._chunks:
            return empty_rows, empty_features
        return join([c.rows for c in self._chunks]), np.concatenate([c.features for c in self._chunks])
