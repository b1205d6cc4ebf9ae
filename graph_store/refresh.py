"""The step of a refresh that reads the adjacency: what goes into the snapshot, and what is left out."""

from __future__ import annotations

import numpy as np

from .adjacency import Adjacency
from .refresh_rule import EVIDENCE, LIFT
from .shrunk_z import keep_highest, marginals, shrunk_z
from .snapshot import BuildSettings, Snapshot


def take_snapshot(graph: Adjacency, version: int, ts: int, settings: BuildSettings, prior: str | None) -> Snapshot:
    """Freeze the graph at `ts` (ms): its `settings.max_edges` pairs of highest shrunk z, and the period's true ones.

    The row sums are those of all pairs, so that pruning does not move the expected counts. What the graph was before
    the period is pruned by its own shrunk z: whether a pair turned out true must not help it to stay.
    """
    entries = graph.pairs.entries()
    source, target = entries["source"], entries["target"]
    since = ts if graph.since is None else graph.since
    fresh = np.maximum(entries["recent"], 0)
    weight = graph.weights()
    past = np.maximum(0, entries["weight"] - fresh) / graph.unit
    recent = fresh / graph.unit_at((since + ts) // 2)
    sums = {}
    for name, count in (("weight", weight), ("past", past), ("recent", recent)):
        sums[name] = marginals(source, target, count, len(graph.items))
    for name, count in (("weight", weight), ("past", past)):
        z = shrunk_z(source, target, count, *sums[name])
        z[(count <= 0) | (count < settings.min_weight)] = -np.inf
        count[~(keep_highest(z, settings.max_edges) & (z > 0))] = 0
    expected = sums["recent"][0][source] * sums["recent"][1][target] / max(1e-9, float(sums["recent"][0].sum()))
    mask = (weight > 0) | (past > 0) | ((recent >= EVIDENCE) & (recent >= LIFT * expected))
    return Snapshot(
        version, ts, settings, prior, graph.hashes(), graph.popularity(), graph.item_codes(), *sums["weight"],
        *sums["past"], *sums["recent"], source[mask], target[mask], weight[mask].astype(np.float32),
        past[mask].astype(np.float32), recent[mask].astype(np.float32), entries["last"][mask],
    )  # fmt: skip
