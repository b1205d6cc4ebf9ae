"""The index of a ring finds what a dict would, across growth and dropped tails."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.graph_store.kernel import kernel
from thalweg.graph_store.ring_index import RingIndex, ring_prefetch, ring_put
from thalweg.graph_store.table import Ring

KEYED = np.dtype([("key", "<u8"), ("ts", "<i8")])


@kernel
def fetch_and_put(heads, nexts, key, number):  # type: ignore[no-untyped-def]
    ring_prefetch(heads, key)
    ring_put(heads, nexts, key, number)


def add(ring: Ring, index: RingIndex, key: int) -> None:
    ring.reserve(1)
    index.follow(ring)
    number = int(ring.ends[1])
    ring.rows["key"][number & (len(ring.rows) - 1)] = key
    fetch_and_put(index.heads, index.nexts, np.uint64(key), number)
    ring.ends[1] += 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=120))
def test_equals_a_dict(steps: list[tuple[int, bool]]) -> None:
    ring, index, newest = Ring("open", KEYED), RingIndex(), {}
    for key, drop in steps:
        newest[key] = int(ring.ends[1])
        add(ring, index, key)
        if drop:
            ring.ends[0] = min(int(ring.ends[0]) + 2, int(ring.ends[1]))
        alive = {k: n for k, n in newest.items() if n >= ring.ends[0]}
        assert {k: index.find(ring, k) for k in range(1, 41)} == {k: alive.get(k, -1) for k in range(1, 41)}


def test_an_index_made_anew_finds_the_same() -> None:
    ring, index = Ring("open", KEYED), RingIndex()
    for key in range(1, 1000):
        add(ring, index, key)
    ring.ends[0] = 300
    again = RingIndex()
    again.follow(ring)
    assert all(again.find(ring, key) == index.find(ring, key) for key in range(1, 1001))
