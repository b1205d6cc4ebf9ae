from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.graph_store.csr import build_rows
from thalweg.graph_store.shrunk_z import SHRINK, keep_highest, marginals, shrunk_z

pairs_of = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.floats(0, 50)), min_size=1, max_size=40)


def columns(pairs: list[tuple[int, int, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    source, target, count = zip(*pairs)
    return np.array(source, np.int32), np.array(target, np.int32), np.array(count)


@settings(max_examples=60, deadline=None)
@given(pairs_of)
def test_equals_the_formula(pairs: list[tuple[int, int, float]]) -> None:
    source, target, count = columns(pairs)
    out, into = defaultdict(float), defaultdict(float)
    for u, v, c in pairs:
        out[u] += c
        into[v] += c
    total = sum(out.values()) or 1.0
    got = shrunk_z(source, target, count, *marginals(source, target, count, 7))
    for (u, v, c), z in zip(pairs, got.tolist()):
        expected = out[u] * into[v] / total
        assert z == pytest.approx((c - expected) / math.sqrt(expected + SHRINK), rel=1e-5, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 35))
def test_keep_highest_keeps_just_so_many_and_the_earlier_of_equals(values: list[int], most: int) -> None:
    mask = keep_highest(np.array(values, np.float64), most)
    ranked = sorted(range(len(values)), key=lambda i: (-values[i], i))
    assert np.flatnonzero(mask).tolist() == sorted(ranked[:most])


def test_a_fluke_of_two_rare_items_stays_below_a_hundred_of_two_common_ones() -> None:
    source, target = np.array([0, 2, 0, 2, 4], np.int32), np.array([1, 3, 5, 6, 5], np.int32)
    count = np.array([100.0, 1.0, 10.0, 0.5, 50.0])
    z = shrunk_z(source, target, count, *marginals(source, target, count, 7))
    assert z[0] > z[1]


@settings(max_examples=60, deadline=None)
@given(pairs_of)
def test_rows_hold_the_pairs_in_their_order(pairs: list[tuple[int, int, float]]) -> None:
    source, target, count = columns(pairs)
    rows = build_rows(source, target, count, 7)
    for node in range(7):
        other, value = rows.row(node)
        wanted = [(v, np.float32(c)) for u, v, c in pairs if u == node]
        assert list(zip(other.tolist(), value)) == wanted
