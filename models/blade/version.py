"""One embedding version, as a pure function of a snapshot and the version before.

1. Learn the K pairs of the propagation on the graph as it was before the last period (`training`).
2. Randomised SVD of positive shrunk z of the whole graph; where training beat its warm start on the validation slice,
   the learned propagation on top of it. Where it did not, the SVD's vectors go into service, and the manifest says so.
3. Turn the vectors to the basis of the version before.
4. Evaluate the version before on the pairs of the period since: both arms, the score that serves, and baselines.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from thalweg.graph_store.csr import build_rows
from thalweg.graph_store.embedding import Embedding, Manifest, vectors_digest
from thalweg.graph_store.shrunk_z import shrunk_z
from thalweg.graph_store.snapshot import Snapshot

from .direction import significant_share
from .evaluation import (
    Edges,
    Quality,
    Scorer,
    by_popularity,
    by_rows,
    by_vectors,
    evaluate,
    sample_sources,
    together,
    true_edges,
)
from .latest import latest_targets
from .propagation import Hops, combine, normalise, propagate
from .rotation import shared_rows, turn_to
from .sparse import SparseMatrix
from .svd import randomised_svd
from .training import Trained, split_sources, train

F32 = npt.NDArray[np.float32]

LEARN_SOURCES = 1000
"""Sources whose edges train and validate the propagation; more cost time and change the K pairs little."""
EVALUATE_SOURCES = 1500


class Graph(NamedTuple):
    """Pairs with positive shrunk z: int32[m] ends and float32[m] values."""

    source: npt.NDArray[np.int32]
    target: npt.NDArray[np.int32]
    z: F32
    nodes: int


def positive_graph(snapshot: Snapshot, past: bool = False) -> Graph:
    """The pairs that stand above their expectation: of the whole graph, or of it before the last period."""
    count = snapshot.past if past else snapshot.weight
    sums = (snapshot.past_out, snapshot.past_into) if past else (snapshot.out, snapshot.into)
    z = shrunk_z(snapshot.source, snapshot.target, count, *sums)
    keep = (count > 0) & (z > 0)
    return Graph(snapshot.source[keep], snapshot.target[keep], z[keep], snapshot.nodes)


def warm_start(graph: Graph, dimensions: int, steps: int, seed: int) -> Hops:
    """Dual SVD of positive z and its hops, float32[steps + 1, n, d] each; hop 0 is the SVD's vectors."""
    source, target = randomised_svd(SparseMatrix(*graph), dimensions, seed).dual()
    if steps == 0:
        return Hops(source[None], target[None])
    values = normalise(graph.source, graph.target, graph.z, graph.nodes)
    return propagate(SparseMatrix(graph.source, graph.target, values, graph.nodes), source, target, steps)


def period_edges(snapshot: Snapshot) -> Edges:
    """The true edges of the last period."""
    return true_edges(snapshot.source, snapshot.target, snapshot.recent, snapshot.recent_out, snapshot.recent_into)


def learn(snapshot: Snapshot, edges: Edges) -> Trained:
    """The learned pairs from the graph before the period to the period's edges; all 0 where that says nothing."""
    s = snapshot.settings
    past = positive_graph(snapshot, past=True)
    edges = sample_sources(edges, snapshot.items, LEARN_SOURCES)
    training, validation = split_sources(edges, snapshot.items)
    steps = s.propagation if len(past.z) and s.epochs else 0
    if steps == 0 or len(training.source) == 0 or len(validation.source) == 0:
        nothing = Quality(0.0, 0.0, 0, 0)
        return Trained((0.0,) * s.propagation, (0.0,) * s.propagation, 0, nothing, nothing)
    hops = warm_start(past, s.dimensions, steps, s.seed)
    return train(hops, training, validation, snapshot.popularity, s.epochs, s.seed)


def build(snapshot: Snapshot, before: Embedding | None, inputs: str) -> Embedding:
    """Build the version. `before` is the version that the snapshot names as prior; `inputs` the snapshot's digest."""
    s = snapshot.settings
    edges = period_edges(snapshot)
    learned = learn(snapshot, edges)
    graph = positive_graph(snapshot)
    hops = warm_start(graph, s.dimensions, s.propagation if learned.better else 0, s.seed)
    svd = hops.source[0], hops.target[0]
    source, target = combine(hops, learned.a, learned.b) if learned.better else svd
    basis = None if before is None else (before.source, before.target, before.items)
    turn = turn_to(source, target, snapshot.items, basis)
    vectors = [np.ascontiguousarray(block @ turn) for block in (source, target, *svd)]
    manifest = Manifest(
        version=snapshot.version,
        ts=snapshot.ts,
        inputs=inputs,
        vectors=vectors_digest(*vectors),
        method="propagation" if learned.better else "svd",
        reason=_reason(learned),
        evidence=s.evidence,
        dimensions=s.dimensions,
        items=snapshot.nodes,
        pairs=len(graph.z),
        health=_health(snapshot, graph),
        choice=_choice(learned),
        previous={} if before is None else evaluate_version(snapshot, edges, before),
    )
    latest = latest_targets(snapshot.source, snapshot.target, snapshot.last, snapshot.nodes)
    out, popularity = snapshot.out.astype(np.float32), snapshot.popularity.astype(np.float32)
    return Embedding(manifest, snapshot.items, popularity, out, vectors[0], vectors[1], vectors[2], vectors[3], latest)


def evaluate_version(snapshot: Snapshot, edges: Edges, before: Embedding) -> dict[str, object]:
    """HitRate@10 and MRR@10 of the version before on the last period's true edges, beside baselines that it had then.

    Counts and z are those of the graph before the period; popularity and latest pairs are the version's own.
    """
    edges = sample_sources(edges, snapshot.items, EVALUATE_SOURCES)
    if len(edges.source) == 0:
        return {"version": before.manifest.version, "edges": 0, "queries": 0}
    old = _align(snapshot, before)
    past = positive_graph(snapshot, past=True)
    z = by_rows(build_rows(past.source, past.target, past.z, past.nodes), past.nodes)
    seen = snapshot.past > 0
    count = build_rows(snapshot.source[seen], snapshot.target[seen], snapshot.past[seen], snapshot.nodes)
    served = by_vectors(old["source"], old["target"])
    arms = {
        "popularity": by_popularity(old["popularity"]),
        "count": by_rows(count, snapshot.nodes),
        "latest": _by_latest(old["latest"], snapshot.nodes),
        "svd": by_vectors(old["svd_source"], old["svd_target"]),
        "served": served,
        "score": together((1.0, served), (before.manifest.evidence, z)),
    }
    figures = {name: evaluate(edges, arm, old["popularity"]) for name, arm in arms.items()}
    return {
        "version": before.manifest.version,
        "method": before.manifest.method,
        "edges": len(edges.source),
        "queries": len(edges.queries),
        "hit_rate_10": {name: figure.hit_rate for name, figure in figures.items()},
        "mrr_10": {name: figure.mrr for name, figure in figures.items()},
    }


def _align(snapshot: Snapshot, before: Embedding) -> dict[str, npt.NDArray[Any]]:
    """The version's arrays by the snapshot's node numbers; an item that is new since has zeros."""
    here, there = shared_rows(snapshot.items, before.items)
    aligned: dict[str, npt.NDArray[Any]] = {}
    for name in ("source", "target", "svd_source", "svd_target", "popularity"):
        old = getattr(before, name)
        aligned[name] = np.zeros((snapshot.nodes, *old.shape[1:]), np.float32)
        aligned[name][here] = old[there]
    number = np.full(len(before.items) + 1, -1, np.int32)
    number[there] = here
    aligned["latest"] = np.full((snapshot.nodes, before.latest.shape[1]), -1, np.int32)
    aligned["latest"][here] = number[before.latest[there]]
    return aligned


def _by_latest(latest: npt.NDArray[np.int32], nodes: int) -> Scorer:
    def score(sources: npt.NDArray[np.int64]) -> F32:
        out = np.zeros((len(sources), nodes + 1), np.float32)
        for place in range(latest.shape[1] - 1, -1, -1):
            out[np.arange(len(sources)), latest[sources, place]] = latest.shape[1] - place
        return out[:, :nodes]

    return score


def _health(snapshot: Snapshot, graph: Graph) -> dict[str, float]:
    share, tested = significant_share(snapshot.source, snapshot.target, snapshot.weight, snapshot.nodes)
    return {"one_way_share": share, "one_way_tested": float(tested), "pairs": float(len(graph.z))}


def _reason(learned: Trained) -> str:
    if learned.epoch == 0:
        return "too few true pairs in the last period to train and validate on: the SVD's vectors serve"
    verdict = "the propagation serves" if learned.better else "the SVD's vectors serve"
    return (
        f"on {learned.svd.edges} held-back pairs HitRate@10 {learned.propagation.hit_rate:.4f} against "
        f"{learned.svd.hit_rate:.4f}, MRR@10 {learned.propagation.mrr:.4f} against {learned.svd.mrr:.4f}: {verdict}"
    )


def _choice(learned: Trained) -> dict[str, object]:
    return {
        "a": list(learned.a), "b": list(learned.b), "epoch": learned.epoch, "svd": learned.svd._asdict(),
        "propagation": learned.propagation._asdict(),
    }  # fmt: skip
