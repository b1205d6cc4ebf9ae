"""What versions say of themselves: nothing is lost between a manifest and the report, and totals weigh pairs."""

from __future__ import annotations

from typing import Any

import pytest

from thalweg.graph_store.embedding import Manifest
from thalweg.streams.graph_summary import METHODS, related_from, versions_from


def manifest(version: int, previous: dict[str, Any], choice: dict[str, Any] | None = None) -> Manifest:
    return Manifest(
        version=version, ts=version * 1000, inputs="ab" * 16, vectors="cd" * 16, method="svd", reason="because",
        evidence=0.3, dimensions=8, items=10, pairs=20, health={"one_way_share": 0.1}, choice=choice or {},
        previous=previous,
    )  # fmt: skip


def evaluation(version: int, edges: int, rate: float) -> dict[str, Any]:
    return {
        "version": version, "method": "svd", "edges": edges, "queries": 3,
        "hit_rate_10": dict.fromkeys(METHODS, rate), "mrr_10": dict.fromkeys(METHODS, rate / 2),
    }  # fmt: skip


def test_totals_weigh_pairs() -> None:
    """100 pairs at .1 and 300 at .3: (100 * .1 + 300 * .3) / 400 = .25."""
    found = related_from([manifest(1, {}), manifest(2, evaluation(1, 100, 0.1)), manifest(3, evaluation(2, 300, 0.3))])
    assert [row["name"] for row in found["total"]] == list(METHODS.values())
    assert all(row["hit_rate"] == pytest.approx(0.25) and row["pairs"] == 400 for row in found["total"])
    assert all(row["reciprocal_rank"] == pytest.approx(0.125) for row in found["total"])


def test_a_version_is_shown_at_the_time_it_was_made() -> None:
    found = related_from([manifest(1, {}), manifest(2, evaluation(1, 100, 0.1))])
    assert {row["ts"] for row in found["refreshes"]} == {1000}
    assert len(found["refreshes"]) == len(METHODS)


def test_a_period_without_pairs_says_nothing() -> None:
    assert related_from([manifest(1, {}), manifest(2, {"version": 1, "edges": 0, "queries": 0})]) == {
        "total": [], "refreshes": [],
    }  # fmt: skip


def test_versions_say_how_they_were_made() -> None:
    choice = {"svd": {"hit_rate": 0.1, "edges": 5}, "propagation": {"hit_rate": 0.2, "edges": 5}}
    first, second = versions_from([manifest(1, {}), manifest(2, {}, choice)])
    assert first["svd"] is None and first["propagation"] is None
    assert second["svd"] == 0.1 and second["propagation"] == 0.2 and second["one_way"] == 0.1
    assert second["items"] == 10 and second["pairs"] == 20 and second["inputs"] == "ab" * 16
