"""Hashes: equal to plain Python, never 0, the same whatever the Arrow layout; digests add up."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import attribution as slow
from thalweg.graph_store.hash import SEED_ID2, hash_bytes, hash_strings, hash_text, mix64, pair64

U64 = st.integers(0, 2**64 - 1)
TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=40)), max_size=30)


def hash_slowly(data: bytes, seed: int) -> int:
    """`hash_span`, in Python integers."""
    mask, c1, c2, c3 = slow.MASK, 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
    h, full = seed ^ (len(data) * c1 & mask), len(data) // 8 * 8
    for i in range(0, full, 8):
        h = (h ^ slow.mix64(int.from_bytes(data[i : i + 8], "little"))) * c2 & mask
        h ^= h >> 29
    h = slow.mix64(h ^ slow.mix64(int.from_bytes(data[full:], "little") ^ c3))
    return h or c1


@given(U64, U64)
def test_mixes_equal_plain_python(a, b):
    assert int(mix64(np.uint64(a))) == slow.mix64(a)
    assert int(pair64(np.uint64(a), np.uint64(b))) == slow.pair64(a, b) != 0


@given(st.binary(max_size=50), U64)
def test_hash_of_bytes_equals_plain_python(data, seed):
    assert hash_bytes(data, seed) == hash_slowly(data, seed) != 0


@given(TEXTS, st.integers(0, 5))
def test_strings_hash_alike_in_every_layout(texts, skip):
    """Plain, large, dictionary-encoded, chunked and sliced arrays: a hash is of the text alone, null is 0."""
    want = [0 if text is None else hash_text(text) for text in texts]
    plain = pa.array(texts, pa.string())
    assert hash_strings(plain).tolist() == want
    assert hash_strings(plain.cast(pa.large_string())).tolist() == want
    assert hash_strings(plain.dictionary_encode()).tolist() == want
    assert hash_strings(pa.chunked_array([plain[:3], plain[3:]])).tolist() == want
    assert hash_strings(plain[skip:]).tolist() == want[skip:]
    assert hash_strings(plain.dictionary_encode()[skip:]).tolist() == want[skip:]


def test_nothing_and_null_columns_hash():
    assert hash_strings(pa.chunked_array([], pa.string())).tolist() == []
    assert hash_strings(pa.nulls(2)).tolist() == [0, 0]


def test_what_is_no_string_is_refused_with_the_mend():
    with pytest.raises(TypeError, match="cast the column first"):
        hash_strings(pa.array([1, 2]))


def test_ids_keep_their_zeros_and_two_seeds_differ():
    assert len({hash_text(text) for text in ("0108775015", "108775015", "", " ", "0")}) == 5
    assert hash_text("a") != hash_text("a", SEED_ID2)


def test_no_collision_among_a_hundred_thousand_ids():
    assert len(np.unique(hash_strings(pa.array([f"item-{n}" for n in range(100_000)])))) == 100_000
