"""A sparse matrix of pairs and its products with dense blocks, in kernels: no scipy, one thread, a fixed order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from thalweg.graph_store.csr import Csr, build_rows
from thalweg.graph_store.kernel import kernel

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]


@kernel
def _multiply(start, node, value, dense, out):  # type: ignore[no-untyped-def]
    d = dense.shape[1]
    for i in range(start.shape[0] - 1):
        for k in range(d):
            out[i, k] = np.float32(0.0)
        for e in range(start[i], start[i + 1]):
            j, w = node[e], value[e]
            for k in range(d):
                out[i, k] += w * dense[j, k]


def _product(rows: Csr, dense: F32) -> F32:
    out = np.empty((len(rows.start) - 1, dense.shape[1]), np.float32)
    _multiply(rows.start, rows.node, rows.value, np.ascontiguousarray(dense, np.float32), out)
    return out


class SparseMatrix:
    """A square matrix with entries value[e] at (source[e], target[e]); entries at one place add up.

    >>> a = SparseMatrix(np.array([0], np.int32), np.array([1], np.int32), np.array([2.0]), 2)
    >>> a.times(np.array([[1.0], [3.0]], np.float32)).tolist()
    [[6.0], [0.0]]
    >>> a.transposed_times(np.array([[1.0], [3.0]], np.float32)).tolist()
    [[0.0], [2.0]]
    """

    def __init__(self, source: I32, target: I32, value: npt.NDArray[Any], nodes: int) -> None:
        self.nodes = nodes
        self.by_source = build_rows(source, target, value, nodes)
        self.by_target = build_rows(target, source, value, nodes)

    def times(self, dense: F32) -> F32:
        """A X, float32[nodes, d]."""
        return _product(self.by_source, dense)

    def transposed_times(self, dense: F32) -> F32:
        """A^T X, float32[nodes, d]."""
        return _product(self.by_target, dense)
