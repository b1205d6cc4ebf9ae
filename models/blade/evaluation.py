"""Does relatedness find the pairs of a later period? HitRate@10 and MRR@10 of held-back edges.

An edge (u, v) is true where the period has at least EVIDENCE customers for it and a lift of at least LIFT. For each
true edge all items but u are ranked by the score given u; other true targets of u are left out of the ranking; among
equal scores the more popular item comes first. Both figures are means over edges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thalweg.graph_store.csr import Csr
from thalweg.graph_store.hash import mix64
from thalweg.graph_store.kernel import kernel
from thalweg.graph_store.refresh_rule import EVIDENCE, LIFT

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Scorer = Callable[[I64], F32]
"""Scores of all items for some sources: int64[q] -> float32[q, n]; higher is more related."""

TOP = 10
_BLOCK = 128


class Edges(NamedTuple):
    """True edges, sorted by source then target: int64[m] each."""

    source: I64
    target: I64

    @property
    def queries(self) -> I64:
        """The distinct sources, rising."""
        return np.unique(self.source)

    def of_sources(self, mask: npt.NDArray[np.bool_]) -> Edges:
        """The edges whose source has `mask[source]`."""
        keep = mask[self.source]
        return Edges(self.source[keep], self.target[keep])


class Quality(NamedTuple):
    """HitRate@10 and MRR@10 over `edges` true edges of `queries` sources."""

    hit_rate: float
    mrr: float
    edges: int
    queries: int


def true_edges(
    source: npt.NDArray[np.int32], target: npt.NDArray[np.int32], count: npt.NDArray[np.floating],
    out: npt.NDArray[np.float64], into: npt.NDArray[np.float64],
) -> Edges:  # fmt: skip
    """The pairs of a period that count as true; `count` in customers, `out` and `into` its row sums over all pairs.

    >>> one = np.array([3.0, 0.0, 0.0]); two = np.array([0.0, 3.0, 0.0])
    >>> true_edges(np.array([0], np.int32), np.array([1], np.int32), np.array([3.0]), one, two).target.tolist()
    []
    """
    expected = out[source] * into[target] / max(1e-9, float(out.sum()))
    keep = (count >= EVIDENCE) & (count >= LIFT * expected) & (source != target)
    u, v = source[keep].astype(np.int64), target[keep].astype(np.int64)
    order = np.lexsort((v, u))
    return Edges(u[order], v[order])


def sample_sources(edges: Edges, hashes: npt.NDArray[np.uint64], most: int) -> Edges:
    """At most `most` sources' edges, chosen by the hash of the item, so that the choice moves with nothing else."""
    queries = edges.queries
    if len(queries) <= most:
        return edges
    drawn = queries[np.argsort([int(mix64(hashes[q])) for q in queries.tolist()], kind="stable")[:most]]
    mask = np.zeros(len(hashes), np.bool_)
    mask[drawn] = True
    return edges.of_sources(mask)


@kernel
def _rank(scores, popularity, begin, target, rank):  # type: ignore[no-untyped-def]
    for r in range(begin.shape[0] - 1):
        for e in range(begin[r], begin[r + 1]):
            v = target[e]
            score = scores[r, v]
            better = 0
            for j in range(scores.shape[1]):
                x = scores[r, j]
                if x > score or (x == score and j != v and (popularity[j], -j) > (popularity[v], -v)):
                    better += 1
            for f in range(begin[r], begin[r + 1]):
                j = target[f]
                x = scores[r, j]
                if j != v and (x > score or (x == score and (popularity[j], -j) > (popularity[v], -v))):
                    better -= 1
            rank[e] = 1 + better


def ranks(edges: Edges, scorer: Scorer, popularity: npt.NDArray[np.floating]) -> I64:
    """Rank of each edge's target, 1 is best, int64[m]."""
    queries, first = np.unique(edges.source, return_index=True)
    begin = np.append(first, len(edges.source)).astype(np.int64)
    rank = np.zeros(len(edges.source), np.int64)
    order = np.asarray(popularity, np.float64)
    for b in range(0, len(queries), _BLOCK):
        sources = queries[b : b + _BLOCK]
        scores = np.array(scorer(sources), np.float32)
        scores[np.arange(len(sources)), sources] = -np.inf
        piece = begin[b : b + len(sources) + 1]
        _rank(scores, order, piece - piece[0], edges.target[piece[0] : piece[-1]], rank[piece[0] : piece[-1]])
    return rank


def quality(rank: I64, queries: int) -> Quality:
    """Figures of some ranks.

    >>> quality(np.array([1, 4, 11]), 2)
    Quality(hit_rate=0.6666666666666666, mrr=0.4166666666666667, edges=3, queries=2)
    """
    if len(rank) == 0:
        return Quality(0.0, 0.0, 0, 0)
    hit = rank <= TOP
    return Quality(float(hit.mean()), float(np.where(hit, 1.0 / rank, 0.0).mean()), len(rank), queries)


def evaluate(edges: Edges, scorer: Scorer, popularity: npt.NDArray[np.floating]) -> Quality:
    """HitRate@10 and MRR@10 of one scorer."""
    return quality(ranks(edges, scorer, popularity), len(edges.queries))


def by_vectors(source: F32, target: F32) -> Scorer:
    """Scorer of dual embeddings: <source[u], target[v]>."""
    transposed = np.ascontiguousarray(target.T)
    return lambda sources: np.asarray(source[sources] @ transposed, np.float32)


def by_rows(rows: Csr, nodes: int) -> Scorer:
    """Scorer that reads a value for each pair; 0 where there is none."""

    def score(sources: I64) -> F32:
        out = np.zeros((len(sources), nodes), np.float32)
        for r, u in enumerate(sources.tolist()):
            other, value = rows.row(u)
            out[r, other] = value
        return out

    return score


def by_popularity(popularity: npt.NDArray[np.floating]) -> Scorer:
    """Scorer that says the same for every source."""
    values = np.asarray(popularity, np.float32)
    return lambda sources: np.repeat(values[None], len(sources), axis=0)


def together(*parts: tuple[float, Scorer]) -> Scorer:
    """Weighted sum of scorers."""

    def score(sources: I64) -> F32:
        return np.asarray(sum(np.float32(weight) * scorer(sources) for weight, scorer in parts), np.float32)

    return score
