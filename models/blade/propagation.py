"""Linear dual propagation: from a warm start, sources take from their targets and targets from their sources.

    s <- s + a_k A^ t        t <- t + b_k A^T s        k = 1 .. K, both from the values before the step

A^ = D_out^-1/2 Z+ D_in^-1/2 is the normalised matrix of positive shrunk z, and (a_k, b_k) are the only learned numbers
(K pairs). All steps are linear, so s and t are combinations of *hops* that do not depend on what is learned:
s = sum_j p_j X_j with X_0 = s0, X_(j+1) = A^ Y_j and t = sum_j q_j Y_j with Y_0 = t0, Y_(j+1) = A^T X_j, where p and q
are polynomials in the a's and b's. The sparse products are done once; training sees small dense blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .sparse import SparseMatrix

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]


class Hops(NamedTuple):
    """float32[K + 1, n, d] each: X_j for sources, Y_j for targets."""

    source: F32
    target: F32


def normalise(source: I32, target: I32, value: npt.NDArray[Any], nodes: int) -> F32:
    """value / sqrt(row sum of its source * row sum of its target), float32[m]; values must not be negative.

    >>> normalise(np.array([0, 0], np.int32), np.array([1, 2], np.int32), np.array([1.0, 3.0]), 3).tolist()
    [0.5, 0.8660253882408142]
    """
    out = np.bincount(source, value, nodes)
    into = np.bincount(target, value, nodes)
    product = out[source] * into[target]
    return np.asarray(value / np.sqrt(np.where(product > 0, product, 1.0)), np.float32)


def propagate(matrix: SparseMatrix, source: F32, target: F32, steps: int) -> Hops:
    """The hops of `steps` steps from the warm start (source, target), float32[n, d] each."""
    sources, targets = [source], [target]
    for _ in range(steps):
        further = matrix.times(targets[-1]), matrix.transposed_times(sources[-1])
        sources.append(further[0])
        targets.append(further[1])
    return Hops(np.stack(sources), np.stack(targets))


def coefficients(a: Sequence[Any], b: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """(p, q): the weight of each hop in s and in t, from the learned pairs; works on floats and on torch scalars.

    >>> coefficients([0.5], [2.0])
    ([1.0, 0.5], [1.0, 2.0])
    """
    p: list[Any] = [1.0] + [0.0] * len(a)
    q: list[Any] = [1.0] + [0.0] * len(b)
    for a_k, b_k in zip(a, b, strict=True):
        p, q = (
            [p[0], *(p[j + 1] + a_k * q[j] for j in range(len(a)))],
            [q[0], *(q[j + 1] + b_k * p[j] for j in range(len(b)))],
        )
    return p, q


def combine(hops: Hops, a: Sequence[float], b: Sequence[float]) -> tuple[F32, F32]:
    """Source and target vectors, float32[n, d] each, under the learned pairs."""
    p, q = coefficients(a, b)
    source = sum(np.float32(w) * block for w, block in zip(p, hops.source))
    target = sum(np.float32(w) * block for w, block in zip(q, hops.target))
    return np.asarray(source, np.float32), np.asarray(target, np.float32)
