"""Exact nearest targets: the inner product of one query with every target vector, and the best of them.

The kernel walks the transposed vectors a block at a time, so the running scores stay in the first-level cache, and adds
in a fixed order: bits do not depend on a BLAS. Ties are broken by the item's hash. Below about 100 thousand items no
approximate index is needed (facts: 1 to 2 ms a query for 100 thousand items of 64 dimensions).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .kernel import kernel

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_BLOCK = 2048


@kernel
def _scores(transposed, query, out):  # type: ignore[no-untyped-def]
    d, n = transposed.shape
    for begin in range(0, n, _BLOCK):
        end = min(n, begin + _BLOCK)
        for j in range(begin, end):
            out[j] = np.float32(0.0)
        for k in range(0, d - 3, 4):
            w0, w1, w2, w3 = query[k], query[k + 1], query[k + 2], query[k + 3]
            t0, t1, t2, t3 = transposed[k], transposed[k + 1], transposed[k + 2], transposed[k + 3]
            for j in range(begin, end):
                out[j] += (w0 * t0[j] + w1 * t1[j]) + (w2 * t2[j] + w3 * t3[j])
        for k in range(d - d % 4, d):
            w0, t0 = query[k], transposed[k]
            for j in range(begin, end):
                out[j] += w0 * t0[j]


class Nearest:
    """Exact search over target vectors.

    Parameters
    ----------
    target : float32[n, d]
    hashes : uint64[n or more], item hash of each node; nodes from n on have no vector and score 0

    >>> index = Nearest(np.eye(3, dtype=np.float32), np.array([30, 10, 20], np.uint64))
    >>> index.top(np.array([1.0, 2.0, 2.0], np.float32), 2)[0].tolist()
    [1, 2]
    """

    def __init__(self, target: F32, hashes: U64) -> None:
        self._transposed = np.ascontiguousarray(target.T, np.float32)
        self._hashes = hashes
        self.nodes = len(hashes)

    def scores(self, query: F32) -> F32:
        """<query, target[v]> of every node, float32[nodes]; `query` is float32[d]."""
        out = np.zeros(self.nodes, np.float32)
        _scores(self._transposed, np.ascontiguousarray(query, np.float32), out[: self._transposed.shape[1]])
        return out

    def top(
        self, query: F32, most: int, bonus: tuple[I64, F32] | None = None, exclude: I64 | None = None
    ) -> tuple[I64, F32]:
        """The `most` best nodes and their scores, best first; equal scores in the order of their hashes.

        `bonus` (nodes, values) is added before ranking: the evidence of raw co-purchases. `exclude` leaves nodes out.
        """
        scores = self.scores(query)
        if bonus is not None:
            np.add.at(scores, bonus[0], bonus[1])
        if exclude is not None:
            scores[exclude] = -np.inf
        return best(scores, self._hashes, most)


def best(scores: F32, hashes: U64, most: int) -> tuple[I64, F32]:
    """The `most` highest scores: (places, scores), highest first, ties by hash; what is -inf is left out.

    >>> places, _ = best(np.array([1.0, 2.0, 1.0], np.float32), np.array([9, 8, 7], np.uint64), 2)
    >>> places.tolist()
    [1, 2]
    """
    n = len(scores)
    most = min(most, n)
    if most <= 0:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    cut = np.partition(scores, n - most)[n - most]
    candidates = np.flatnonzero(scores >= cut)
    order = np.lexsort((hashes[candidates], -scores[candidates]))
    chosen = candidates[order][:most]
    chosen = chosen[scores[chosen] > -np.inf]
    return chosen.astype(np.int64), scores[chosen]
