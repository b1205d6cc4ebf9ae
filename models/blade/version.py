"""One embedding version, as a pure function of a snapshot and the version before.

1. Learn the K pairs of the propagation on the graph of the version before (`training`).
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
    """Pairs with a value each, positive shrunk z unless said otherwise: int32[m] ends, float32[m] values."""

    source: npt.NDArray[np.int32]
    target: npt.NDArray[np.int32]
    z: F32
    nodes: int


def positive_graph(snapshot: Snapshot) -> Graph:
    """The pairs of a snapshot that stand above their expectation."""
    z = shrunk_z(snapshot.source, snapshot.target, snapshot.weight, snapshot.out, snapshot.into)
    keep = (snapshot.weight > 0) & (z > 0)
    return Graph(snapshot.source[keep], snapshot.target[keep], z[keep], snapshot.nodes)


def warm_start(graph: Graph, dimensions: int, seed: int) -> tuple[F32, F32]:
    """Dual SVD of positive z: source and target vectors, float32[n, d] each."""
    return randomised_svd(SparseMatrix(*graph), dimensions, seed).dual()


def hops_from(graph: Graph, source: F32, target: F32, steps: int) -> Hops:
    """The hops of the propagation from a warm start, float32[steps + 1, n, d]; hop 0 is the warm start."""
    values = normalise(graph.source, graph.target, graph.z, graph.nodes)
    return propagate(SparseMatrix(graph.source, graph.target, values, graph.nodes), source, target, steps)


def period_edges(snapshot: Snapshot) -> Edges:
    """The true edges of the last period."""
    return true_edges(snapshot.source, snapshot.target, snapshot.recent, snapshot.recent_out, snapshot.recent_into)


class Before(NamedTuple):
    """The version before in the snapshot's node numbers: its vectors, baselines and graph. New items have zeros."""

    manifest: Manifest
    source: F32
    target: F32
    svd_source: F32
    svd_target: F32
    popularity: F32
    latest: npt.NDArray[np.int32]
    counts: Graph
    positive: Graph


def align(before: Embedding, items: npt.NDArray[np.uint64]) -> Before:
    """Bring a version to other node numbers: those of `items`."""
    n = len(items)
    here, there = shared_rows(items, before.items)

    def moved(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        out = np.zeros((n, *values.shape[1:]), np.float32)
        out[here] = values[there]
        return out

    number = np.full(len(before.items) + 1, -1, np.int32)  # the last stands for "none", which is -1 in `latest`
    number[there] = here
    latest = np.full((n, before.latest.shape[1]), -1, np.int32)
    latest[here] = number[before.latest[there]]
    z = shrunk_z(before.pair_source, before.pair_target, before.pair_weight, before.out, before.into)
    source, target = number[before.pair_source], number[before.pair_target]
    vectors = [moved(v) for v in (before.source, before.target, before.svd_source, before.svd_target)]
    return Before(
        before.manifest, vectors[0], vectors[1], vectors[2], vectors[3], moved(before.popularity), latest,
        Graph(source, target, np.asarray(before.pair_weight), n), Graph(source[z > 0], target[z > 0], z[z > 0], n),
    )  # fmt: skip


def learn(snapshot: Snapshot, edges: Edges, before: Before | None) -> Trained:
    """The learned pairs, from the graph of the version before to the edges since; all 0 where that says nothing."""
    s = snapshot.settings
    edges = sample_sources(edges, snapshot.items, LEARN_SOURCES)
    training, validation = split_sources(edges, snapshot.items)
    if before is None or s.propagation * s.epochs * len(training.source) * len(validation.source) == 0:
        nothing = Quality(0.0, 0.0, 0, 0)
        return Trained((0.0,) * s.propagation, (0.0,) * s.propagation, 0, nothing, nothing)
    hops = hops_from(before.positive, before.svd_source, before.svd_target, s.propagation)
    return train(hops, training, validation, before.popularity.astype(np.float64), s.epochs, s.seed)


def build(snapshot: Snapshot, prior: Embedding | None, inputs: str) -> Embedding:
    """Build the version. `prior` is the version that the snapshot names as such; `inputs` the snapshot's digest."""
    s = snapshot.settings
    edges = period_edges(snapshot)
    before = None if prior is None else align(prior, snapshot.items)
    learned = learn(snapshot, edges, before)
    previous = (
        {} if before is None else evaluate_version(sample_sources(edges, snapshot.items, EVALUATE_SOURCES), before)
    )
    graph = positive_graph(snapshot)
    svd = warm_start(graph, s.dimensions, s.seed)
    source, target = svd
    if learned.better:
        source, target = combine(hops_from(graph, *svd, s.propagation), learned.a, learned.b)
    basis = None if prior is None else (prior.source, prior.target, prior.items)
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
        previous=previous,
    )
    kept = snapshot.weight > 0
    return Embedding(
        manifest=manifest,
        items=snapshot.items,
        popularity=snapshot.popularity.astype(np.float32),
        source=vectors[0],
        target=vectors[1],
        svd_source=vectors[2],
        svd_target=vectors[3],
        latest=latest_targets(snapshot.source, snapshot.target, snapshot.last, snapshot.nodes),
        pair_source=snapshot.source[kept],
        pair_target=snapshot.target[kept],
        pair_weight=snapshot.weight[kept],
        out=snapshot.out,
        into=snapshot.into,
    )


def evaluate_version(edges: Edges, before: Before) -> dict[str, object]:
    """HitRate@10 and MRR@10 of the version before on the edges since, beside baselines, all as they were then."""
    about = {"version": before.manifest.version, "method": before.manifest.method}
    if len(edges.source) == 0:
        return {**about, "edges": 0, "queries": 0}
    served = by_vectors(before.source, before.target)
    arms = {
        "popularity": by_popularity(before.popularity),
        "count": _by_pairs(before.counts),
        "latest": _by_latest(before.latest, before.counts.nodes),
        "svd": by_vectors(before.svd_source, before.svd_target),
        "served": served,
        "score": together((1.0, served), (before.manifest.evidence, _by_pairs(before.positive))),
    }
    figures = {name: evaluate(edges, arm, before.popularity) for name, arm in arms.items()}
    return {
        **about,
        "edges": len(edges.source),
        "queries": len(edges.queries),
        "hit_rate_10": {name: figure.hit_rate for name, figure in figures.items()},
        "mrr_10": {name: figure.mrr for name, figure in figures.items()},
    }


def _by_pairs(graph: Graph) -> Scorer:
    return by_rows(build_rows(graph.source, graph.target, graph.z, graph.nodes), graph.nodes)


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
