from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.graph_store.nearest import Nearest, best


def slow_top(
    target: np.ndarray, query: np.ndarray, hashes: np.ndarray, most: int, bonus: dict[int, float]
) -> list[int]:
    scored = []
    for node in range(len(hashes)):
        score = float(np.dot(target[node].astype(np.float64), query.astype(np.float64))) if node < len(target) else 0.0
        scored.append((-(score + bonus.get(node, 0.0)), int(hashes[node]), node))
    return [node for _, _, node in sorted(scored)[:most]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 90), st.integers(1, 13), st.integers(1, 20), st.integers(0, 5))
def test_equals_sorting_everything(seed: int, n: int, d: int, most: int, newer: int) -> None:
    draw = np.random.default_rng(seed)
    target = draw.integers(-3, 4, (n, d)).astype(np.float32)  # whole numbers: sums are exact, ties are many
    query = draw.integers(-2, 3, d).astype(np.float32)
    hashes = draw.permutation(n + newer).astype(np.uint64)
    bonus = {int(node): float(draw.integers(1, 5)) for node in draw.choice(n + newer, min(3, n), replace=False)}
    index = Nearest(target, hashes)
    given_bonus = np.array(list(bonus), np.int64), np.array(list(bonus.values()), np.float32)
    nodes, scores = index.top(query, most, given_bonus)
    assert nodes.tolist() == slow_top(target, query, hashes, most, bonus)
    assert (np.diff(scores) <= 0).all()


def test_excluded_nodes_never_come() -> None:
    index = Nearest(np.ones((5, 2), np.float32), np.arange(1, 6).astype(np.uint64))
    nodes, _ = index.top(np.ones(2, np.float32), 10, exclude=np.array([0, 3]))
    assert nodes.tolist() == [1, 2, 4]


def test_ties_are_broken_by_the_hash_whatever_the_order_of_the_nodes() -> None:
    hashes = np.array([50, 20, 90, 10], np.uint64)
    places, _ = best(np.zeros(4, np.float32), hashes, 3)
    assert hashes[places].tolist() == [10, 20, 50]


@pytest.mark.parametrize("most", [0, -1])
def test_nothing_asked_nothing_found(most: int) -> None:
    places, scores = best(np.ones(3, np.float32), np.arange(3).astype(np.uint64), most)
    assert len(places) == len(scores) == 0


def test_no_vectors_at_all() -> None:
    index = Nearest(np.zeros((0, 4), np.float32), np.array([3, 1], np.uint64))
    assert index.top(np.ones(4, np.float32), 2, (np.array([0]), np.array([1.0], np.float32)))[0].tolist() == [0, 1]
