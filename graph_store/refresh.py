"""The step of a refresh that reads the adjacency: what goes into the snapshot, and what is left out."""

from __future__ import annotations

import numpy as np

from .adjacency import Adjacency
from .refresh_rule import EVIDENCE, LIFT
from .shrunk_z import keep_highest, marginals, shrunk_z
from .snapshot import BuildSettings, Snapshot


def take_snapshot(graph: Adjacency, version: int, ts: int, settings: BuildSettings, prior: str | None) -> Snapshot:
    """Freeze the graph at `ts` (ms): the `settings.max_edges` pairs of highest shrunk z, and the last period's true ones.

    The row sums are those of all pairs, so that pruning does not move the expected counts.
    """
    entries = graph.pairs.entries()
    nodes = len(graph.items)
    weight = graph.weights()
    out, into = graph.marginals()
    since = ts if graph.since is None else graph.since
    fresh = np.maximum(entries["recent"], 0)
    recent = fresh / graph.unit_at((since + ts) // 2)
    recent_out, recent_into = marginals(entries["source"], entries["target"], recent, nodes)
    z = shrunk_z(entries["source"], entries["target"], weight, out, into)
    z[(weight <= 0) | (weight < settings.min_weight)] = -np.inf
    mask = keep_highest(z, settings.max_edges) & (z > 0)
    expected = recent_out[entries["source"]] * recent_into[entries["target"]] / max(1e-9, float(recent_out.sum()))
    mask |= (recent >= EVIDENCE) & (recent >= LIFT * expected)
    past = np.maximum(0, entries["weight"] - fresh) / graph.unit
    return Snapshot(
        version, ts, settings, prior, graph.hashes(), graph.popularity(), graph.item_codes(), out, into, recent_out,
        recent_into, entries["source"][mask], entries["target"][mask], weight[mask].astype(np.float32),
        past[mask].astype(np.float32), recent[mask].astype(np.float32), entries["last"][mask],
    )  # fmt: skip
