"""Randomised SVD of a sparse matrix: the dual warm start.

A random block is multiplied by A and A^T a few times and orthonormalised in between; the range it spans holds the
leading singular vectors (Halko, Martinsson, Tropp 2011, *Finding structure with randomness*). With Z ~ U S V^T the
source vectors are U sqrt(S) and the target vectors V sqrt(S), so that their inner products give Z back.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .sparse import SparseMatrix

F32 = npt.NDArray[np.float32]

POWER_ITERATIONS = 2
OVERSAMPLING = 8


class Factors(NamedTuple):
    """Leading singular triplets: left, right float32[n, d]; values float32[d], falling."""

    left: F32
    values: F32
    right: F32

    def dual(self) -> tuple[F32, F32]:
        """Source and target vectors: the singular values shared evenly."""
        root = np.sqrt(self.values)
        return self.left * root, self.right * root


def randomised_svd(matrix: SparseMatrix, dimensions: int, seed: int) -> Factors:
    """Leading `dimensions` singular triplets (missing ones are zeros); the sign of each is set by its largest entry.

    >>> diagonal = np.arange(3, dtype=np.int32)
    >>> factors = randomised_svd(SparseMatrix(diagonal, diagonal, np.array([1.0, 3.0, 2.0]), 3), 2, seed=1)
    >>> factors.values.round(3).tolist()
    [3.0, 2.0]
    """
    n = matrix.nodes
    width = min(n, dimensions + OVERSAMPLING)
    left, values, right = (np.zeros(shape, np.float32) for shape in ((n, dimensions), (dimensions,), (n, dimensions)))
    if width and len(matrix.by_source.node):
        block = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
        basis = _orthonormal(matrix.times(block))
        for _ in range(POWER_ITERATIONS):
            basis = _orthonormal(matrix.transposed_times(basis))
            basis = _orthonormal(matrix.times(basis))
        small = matrix.transposed_times(basis).astype(np.float64)
        squares, turn = np.linalg.eigh(small.T @ small)
        squares, turn = np.maximum(squares[::-1], 0)[:dimensions], turn[:, ::-1][:, :dimensions]
        found = np.sqrt(squares)
        usable = found > 1e-6 * max(float(found[0]), 1e-30)
        d = int(usable.sum())
        values[:d] = found[:d]
        right[:, :d] = (small @ turn[:, :d]) / found[:d]
        left[:, :d] = basis.astype(np.float64) @ turn[:, :d]
        sign = np.sign(left[np.abs(left).argmax(axis=0), np.arange(dimensions)])
        sign[sign == 0] = 1
        left, right = left * sign, right * sign
    return Factors(left, values, right)


def _orthonormal(block: F32) -> F32:
    basis, _ = np.linalg.qr(block)
    return basis
