"""The hash index against a dict: puts, finds, deletes, growth, and keys that collide."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.graph_store.hash_index import HashIndex, delete, find, put

STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "delete", "find", "reserve"]), st.integers(1, 40), st.integers(0, 9)),
    max_size=120,
)


@settings(max_examples=200)
@given(STEPS, st.sampled_from([1, 2**29, 2**61]))
def test_the_index_is_a_dict(steps, stride):
    """Keys that are multiples of a stride share home cells, so that chains wrap and shift."""
    index, truth = HashIndex(16), {}
    for step, number, value in steps:
        key = (number * stride) % 2**64 or 1
        word = np.uint64(key)
        if step == "put":
            index.reserve(1)
            assert put(index.keys, index.values, index.count, word, np.int64(value)) == truth.get(key, -1)
            truth[key] = value
        elif step == "delete":
            assert delete(index.keys, index.values, index.count, word) == truth.pop(key, -1)
        elif step == "reserve":
            index.reserve(number)
        else:
            assert find(index.keys, index.values, word) == truth.get(key, -1)
        assert len(index) == len(truth)
    keys = np.array(sorted(truth), np.uint64)
    assert index.find_many(keys).tolist() == [truth[key] for key in sorted(truth)]


def test_many_keys_grow_the_index_and_later_values_win():
    draw = np.random.default_rng(3)
    keys = draw.integers(1, 2**63, 20_000).astype(np.uint64)
    index = HashIndex()
    index.put_many(keys, np.arange(len(keys)))
    index.put_many(keys[:100], -np.arange(100) - 5)
    assert index.find_many(keys[:100]).tolist() == (-np.arange(100) - 5).tolist()
    assert index.find_many(keys[100:]).tolist() == list(range(100, 20_000))
    assert index.find_many(keys[:50] + np.uint64(2**63)).tolist() == [-1] * 50
    assert len(index) == 20_000 and len(index.keys) >= 40_000


def test_deleting_every_other_key_keeps_the_rest():
    draw = np.random.default_rng(4)
    keys = np.unique(draw.integers(1, 2**63, 5_000).astype(np.uint64))
    index = HashIndex()
    index.put_many(keys, np.arange(len(keys)))
    for key in keys[::2]:
        delete(index.keys, index.values, index.count, key)
    found = index.find_many(keys)
    assert (found[::2] == -1).all() and found[1::2].tolist() == list(range(1, len(keys), 2))
    assert int(np.count_nonzero(index.keys)) == len(index)
