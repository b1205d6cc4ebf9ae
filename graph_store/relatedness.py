"""What is bought after this: source vectors against target vectors, with the evidence of the live graph added.

    score(u, v) = <source[u], target[v]> + evidence * z(u, v)

z comes from the graph as it is now, the vectors from the version in service. An item whose row is thin (fewer than
THIN decayed customers) has no vector worth the name: for it, and to fill a list that is too short, items are taken by
decayed popularity, and say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .adjacency import Adjacency
from .embedding import Embedding
from .nearest import Nearest, best
from .shrunk_z import SHRINK

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

THIN = 2.0
"""Decayed customers of all an item's outgoing pairs, below which it is not asked."""


class Related(NamedTuple):
    """One answer.

    Attributes
    ----------
    item : hash of the item
    score : what it is ranked by
    similarity : inner product of the embedding version in service
    z, customers : shrunk z and decayed customers of the raw pairs, summed over the sources
    source : hash of the source that gives most of the score; 0 where there is none
    kind : "related", or "popular": taken by decayed popularity, because too little is known
    """

    item: int
    score: float
    similarity: float
    z: float
    customers: float
    source: int
    kind: str


class Relatedness:
    """Answers from one state of the graph and one embedding version; make a new one when either changes.

    >>> from .decay import Decay
    >>> from .state_store import StateStore
    >>> Relatedness(Adjacency(StateStore.memory(), Decay(10, 40), 0), None).related([(5, 1.0)], 3)
    []
    """

    def __init__(self, graph: Adjacency, embedding: Embedding | None, evidence: float = 0.3) -> None:
        self.hashes = graph.hashes()
        self.popularity = graph.popularity()
        self._graph, self._embedding, self._evidence = graph, embedding, evidence
        self._rows = graph.rows()
        self._out, self._into = graph.marginals()
        self._total = max(1e-9, float(self._out.sum()))
        target = np.zeros((0, 1), np.float32) if embedding is None else embedding.target
        self._nearest = Nearest(target, self.hashes)

    def related(self, sources: Sequence[tuple[int, float]], most: int, exclude: Sequence[int] = ()) -> list[Related]:
        """The `most` items related to the sources, (item hash, weight) each, best first; sources are left out.

        `exclude` are item hashes that are left out too. Items that only popularity speaks for come last.
        """
        nodes = self._graph.nodes(np.array([item for item, _ in sources], np.uint64))
        known = [(int(n), w) for n, (_, w) in zip(nodes, sources) if n >= 0]
        asked = [(n, w) for n, w in known if self._out[n] >= THIN]
        out = self._graph.nodes(np.array(exclude, np.uint64))
        left_out = np.unique(np.concatenate([out[out >= 0], np.array([n for n, _ in known], np.int64)]))
        found: list[Related] = []
        if asked:
            found = self._ask(asked, most, left_out)
        if len(found) < most:
            taken = self._graph.nodes(np.array([answer.item for answer in found], np.uint64))
            found += self._popular(most - len(found), np.concatenate([left_out, taken]))
        return found

    def row(self, node: int) -> tuple[npt.NDArray[np.int32], F32, F32]:
        """Out-neighbours of a node with decayed customers and shrunk z."""
        other, customers = self._rows.row(node)
        expected = self._out[node] * self._into[other] / self._total
        return other, customers, ((customers - expected) / np.sqrt(expected + SHRINK)).astype(np.float32)

    def _vector(self, node: int) -> F32:
        if self._embedding is None or node >= len(self._embedding.items):
            return np.zeros(0 if self._embedding is None else self._embedding.source.shape[1], np.float32)
        return np.asarray(self._embedding.source[node])

    def _ask(self, asked: list[tuple[int, float]], most: int, left_out: I64) -> list[Related]:
        similarity = np.zeros((len(asked), len(self.hashes)), np.float32)
        z, customers = np.zeros_like(similarity), np.zeros(len(self.hashes), np.float32)
        for r, (node, weight) in enumerate(asked):
            if self._embedding is not None:
                similarity[r] = np.float32(weight) * self._nearest.scores(self._vector(node))
            other, count, evidence = self.row(node)
            z[r, other] = np.float32(weight) * evidence
            customers[other] += count
        parts = similarity + np.float32(self._evidence) * z
        scores = parts.sum(axis=0)
        scores[left_out] = -np.inf
        places, values = best(scores, self.hashes, most)
        return [
            Related(
                int(self.hashes[v]), float(value), float(similarity[:, v].sum()), float(z[:, v].sum()),
                float(customers[v]), int(self.hashes[asked[int(parts[:, v].argmax())][0]]), "related",
            )
            for v, value in zip(places.tolist(), values.tolist())
            if value > 0
        ]  # fmt: skip

    def _popular(self, most: int, left_out: I64) -> list[Related]:
        value = self.popularity.astype(np.float32)
        value[left_out] = -np.inf
        places, values = best(value, self.hashes, most)
        return [
            Related(int(self.hashes[v]), float(p), 0.0, 0.0, 0.0, 0, "popular")
            for v, p in zip(places.tolist(), values.tolist())
            if p > 0
        ]
