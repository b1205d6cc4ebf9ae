"""Compressed rows: the pairs of each node side by side, built from a pair table at read time.

Building takes milliseconds a million pairs, so only the pair table is kept up to date and stored.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .kernel import kernel

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]


class Csr(NamedTuple):
    """Rows of a sparse matrix.

    Attributes
    ----------
    start : int64[nodes + 1], node i's entries are start[i] .. start[i + 1] - 1
    node : int32[pairs], the other end
    value : float32[pairs]
    """

    start: I64
    node: I32
    value: F32

    def row(self, node: int) -> tuple[I32, F32]:
        """The other ends and values of one node, in the order of the pair table."""
        piece = slice(int(self.start[node]), int(self.start[node + 1]))
        return self.node[piece], self.value[piece]


@kernel
def _fill(near, far, value, start, node, out):  # type: ignore[no-untyped-def]
    n = start.shape[0] - 1
    for e in range(near.shape[0]):
        start[near[e] + 1] += 1
    for i in range(n):
        start[i + 1] += start[i]
    for e in range(near.shape[0]):
        i = near[e]
        node[start[i]] = far[e]
        out[start[i]] = value[e]
        start[i] += 1
    for i in range(n, 0, -1):
        start[i] = start[i - 1]
    start[0] = 0


def build_rows(near: I32, far: I32, value: npt.NDArray[Any], nodes: int) -> Csr:
    """Rows by `near`: pass (source, target) for out-neighbours, (target, source) for in-neighbours.

    >>> rows = build_rows(np.array([1, 0, 1], np.int32), np.array([2, 1, 0], np.int32), np.array([.5, 1., 2.]), 3)
    >>> rows.row(1)[0].tolist(), rows.row(1)[1].tolist(), len(rows.row(2)[0])
    ([2, 0], [0.5, 2.0], 0)
    """
    start = np.zeros(nodes + 1, np.int64)
    node, out = np.empty(len(near), np.int32), np.empty(len(near), np.float32)
    _fill(near, far, value, start, node, out)
    return Csr(start, node, out)
