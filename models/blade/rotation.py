"""Turning a new version to the basis of the one before, so that vectors stay comparable across versions.

The orthogonal matrix R that brings [S; T] R nearest to [S'; T'] over the items that both versions have is U V^T of the
singular value decomposition of [S; T]^T [S'; T'] (Schoenemann 1966, *orthogonal Procrustes*). Inner products between
sources and targets do not change.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
U64 = npt.NDArray[np.uint64]


def procrustes(vectors: F32, wanted: F32) -> F32:
    """Orthogonal float32[d, d] that turns `vectors` nearest to `wanted`, float32[n, d] each.

    >>> turn = np.array([[0, 1], [-1, 0]], np.float32)
    >>> a = np.array([[1, 2], [3, 4], [0, 1]], np.float32)
    >>> bool(np.allclose(procrustes(a, a @ turn), turn, atol=1e-5))
    True
    """
    left, _, right = np.linalg.svd(vectors.astype(np.float64).T @ wanted.astype(np.float64))
    return np.asarray(left @ right, np.float32)


def shared_rows(items: U64, before: U64) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of the items that stand in both, aligned: (rows in `items`, rows in `before`).

    >>> [rows.tolist() for rows in shared_rows(np.array([5, 7], np.uint64), np.array([7, 9], np.uint64))]
    [[1], [0]]
    """
    _, here, there = np.intersect1d(items, before, assume_unique=True, return_indices=True)
    return here.astype(np.int64), there.astype(np.int64)


def turn_to(source: F32, target: F32, items: U64, before: tuple[F32, F32, U64] | None) -> F32:
    """Rotation of new vectors, float32[d, d], to those `before` (source, target, items); the identity if none fit."""
    d = source.shape[1]
    if before is None or before[0].shape[1] != d:
        return np.eye(d, dtype=np.float32)
    here, there = shared_rows(items, before[2])
    if len(here) == 0:
        return np.eye(d, dtype=np.float32)
    return procrustes(
        np.concatenate([source[here], target[here]]), np.concatenate([before[0][there], before[1][there]])
    )
