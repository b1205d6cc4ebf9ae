"""The step of a refresh that reads the adjacency: what goes into the snapshot, and what is left out."""

from __future__ import annotations

import numpy as np

from .adjacency import Adjacency
from .refresh_rule import EVIDENCE, LIFT
from .shrunk_z import keep_highest, marginals, shrunk_z
from .snapshot import BuildSettings, Snapshot


def take_snapshot(graph: Adjacency, version: int, ts: int, settings: BuildSettings, prior: str | None) -> Snapshot:
    """Freeze the graph at `ts` (ms): its `settings.max_edges` pairs of highest shrunk z, and the period's true ones.

    The row sums are those of all pairs, so that pruning does not move the expected counts.
    """
    entries = graph.pairs.entries()
    source, target = entries["source"], entries["target"]
    since = ts if graph.since is None else graph.since
    weight, sums = graph.weights(), graph.marginals()
    z = shrunk_z(source, target, weight, *sums)
    z[(weight <= 0) | (weight < settings.min_weight)] = -np.inf
    weight[~(keep_highest(z, settings.max_edges) & (z > 0))] = 0
    recent = np.maximum(entries["recent"], 0).astype(np.float32) / np.float32(graph.unit_at((since + ts) // 2))
    recent_sums = marginals(source, target, recent, len(graph.items))
    mask = weight > 0
    often = np.flatnonzero(recent >= EVIDENCE)
    expected = recent_sums[0][source[often]] * recent_sums[1][target[often]] / max(1e-9, float(recent_sums[0].sum()))
    mask[often[recent[often] >= LIFT * expected]] = True
    return Snapshot(
        version, ts, settings, prior, graph.hashes(), graph.popularity(), graph.item_codes(), *sums, *recent_sums,
        source[mask], target[mask], weight[mask].astype(np.float32), recent[mask],
        entries["last"][mask],
    )  # fmt: skip
