"""Messages on the internal topics: what goes in comes out, and what is no block says so."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.graph_store.hash import hash_text
from thalweg.streams.block import NO_CLOCK, Block
from thalweg.streams.row import COPURCHASE_ROW, EVENT_ROW, LABEL_ROW, OUTCOME_ROW
from thalweg.streams.wire import MESSAGE_BYTES, Message, Reject, Source, WireError, decode, encode, rows_per_message

ROW_TYPES = (EVENT_ROW, LABEL_ROW, COPURCHASE_ROW, OUTCOME_ROW)


def some(row_type: np.dtype[Any], n: int, features: int, seed: int = 0) -> Message:
    """A message with rows of random bits."""
    draw = np.random.default_rng(seed)
    rows = np.frombuffer(draw.bytes(n * row_type.itemsize), row_type).copy()
    codes = draw.integers(0, 2**32, (n, features), dtype=np.uint32)
    names = ["A", "ünï", ""][: n % 4]
    block = Block(
        rows, codes, {0: (3, 9), 7: (0, 0)}, NO_CLOCK if n % 2 else 5,
        (np.array([hash_text(name) for name in names], np.uint64), names), {}, {0: 17},
    )  # fmt: skip
    sources = (Source("clicks", "id", 0), Source("views", "other", 3))
    return Message(
        block, "f" * 32, "lineage", sources, (Reject(0, 4, "click", "bad_json"),), n % 3 == 0, ((1, n),) * (n % 2)
    )


@given(st.sampled_from(ROW_TYPES), st.integers(0, 40), st.integers(0, 5), st.integers(0, 99))
def test_what_goes_in_comes_out(row_type: np.dtype[Any], n: int, features: int, seed: int) -> None:
    sent = some(row_type, n, features, seed)
    got = decode(encode(sent), row_type, features)
    assert got.block.rows.tobytes() == sent.block.rows.tobytes()
    assert (got.block.features == sent.block.features).all() and got.block.features.flags.writeable
    assert (got.block.ranges, got.block.clock, got.block.tops) == (sent.block.ranges, sent.block.clock, sent.block.tops)
    assert got.block.names[0].tolist() == sent.block.names[0].tolist() and got.block.names[1] == sent.block.names[1]
    assert (got.fingerprint, got.origin, got.sources) == (sent.fingerprint, sent.origin, sent.sources)
    assert (got.rejects, got.idle, got.begins) == (sent.rejects, sent.idle, sent.begins)


def test_any_arrow_reader_can_read_it() -> None:
    sent = some(LABEL_ROW, 12, 2)
    with pa.ipc.open_stream(io.BytesIO(encode(sent))) as reader:
        table = reader.read_all()
    assert table.column("op").to_pylist() == sent.block.rows["op"].tolist()
    assert table.column("features").to_pylist() == sent.block.features.tolist()


def test_a_block_cut_anywhere_is_none() -> None:
    whole = encode(some(LABEL_ROW, 30, 1))
    for cut in range(0, len(whole) - 8, 97):
        with pytest.raises(WireError):
            decode(whole[:cut], LABEL_ROW, 1)


@pytest.mark.parametrize("value", [None, b"", b"{}", b"x" * 1_000, b"\xff\xff\xff\xff\x00\x00\x00\x00"])
def test_rubbish_is_no_block(value: bytes | None) -> None:
    with pytest.raises(WireError, match="no block"):
        decode(value, EVENT_ROW, 0)


def test_a_block_of_another_topic_is_refused() -> None:
    with pytest.raises(WireError, match="not those of this topic"):
        decode(encode(some(LABEL_ROW, 3, 0)), EVENT_ROW, 0)
    with pytest.raises(WireError, match="not those of this topic"):
        decode(encode(some(LABEL_ROW, 3, 1)), LABEL_ROW, 0)
    with pytest.raises(WireError):
        decode(encode(some(LABEL_ROW, 3, 1)), LABEL_ROW, 2)


@pytest.mark.parametrize("row_type", ROW_TYPES)
def test_a_full_message_is_one_that_a_broker_takes(row_type: np.dtype[Any]) -> None:
    """Random bits do not compress: this is the worst case."""
    n = rows_per_message(row_type, 20)
    assert n * (row_type.itemsize + 80) <= MESSAGE_BYTES
    assert len(encode(some(row_type, n, 20))) < 1_000_000
