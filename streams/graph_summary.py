"""What the embedding versions say of themselves, as the report shows it: how each was made, and how it did afterwards.

A version's manifest holds the evaluation of the version before, on the pairs bought since; so the newest version is not
judged yet. See `thalweg.models.blade.version`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..graph_store.embedding import Manifest
from .summary import Ranked, RankedAt, Related, Version

METHODS = {
    "score": "related",
    "served": "related, vectors alone",
    "svd": "SVD vectors alone",
    "count": "raw count",
    "popularity": "popularity",
    "latest": "last bought",
}
"""Arms of an evaluation -> their names in the report; what `related` serves comes first."""


def versions_from(manifests: Sequence[Manifest]) -> list[Version]:
    """How each version was made.

    >>> versions_from([])
    []
    """
    return [
        Version(
            version=m.version,
            ts=m.ts,
            method=m.method,
            reason=m.reason,
            items=m.items,
            pairs=m.pairs,
            svd=_hit_rate(m.choice, "svd"),
            propagation=_hit_rate(m.choice, "propagation"),
            one_way=m.health.get("one_way_share"),
            inputs=m.inputs,
        )
        for m in manifests
    ]


def _hit_rate(choice: Mapping[str, Any], method: str) -> float | None:
    found = choice.get(method)
    return float(found["hit_rate"]) if found and found.get("edges") else None


def related_from(manifests: Sequence[Manifest]) -> Related:
    """How `related` did beside its baselines, version by version and in total (a pair counts one).

    >>> related_from([])
    {'total': [], 'refreshes': []}
    """
    made = {m.version: m.ts for m in manifests}
    refreshes = [
        RankedAt(
            ts=made.get(m.previous["version"], m.ts),
            name=name,
            pairs=int(m.previous["edges"]),
            hit_rate=float(m.previous["hit_rate_10"][arm]),
            reciprocal_rank=float(m.previous["mrr_10"][arm]),
        )
        for m in manifests
        if m.previous.get("edges")
        for arm, name in METHODS.items()
        if arm in m.previous["hit_rate_10"]
    ]
    totals = (_total(name, [r for r in refreshes if r["name"] == name]) for name in METHODS.values())
    return Related(total=[total for total in totals if total is not None], refreshes=refreshes)


def _total(name: str, parts: Sequence[RankedAt]) -> Ranked | None:
    pairs = sum(part["pairs"] for part in parts)
    if not pairs:
        return None
    hits = sum(part["hit_rate"] * part["pairs"] for part in parts) / pairs
    ranks = sum(part["reciprocal_rank"] * part["pairs"] for part in parts) / pairs
    return Ranked(name=name, pairs=pairs, hit_rate=hits, reciprocal_rank=ranks)
