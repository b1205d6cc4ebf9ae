"""Bugs that seeds of the simulation have found, each with its seed and by itself."""

from __future__ import annotations

import json

import numpy as np
import pytest

from thalweg.streams.ingest import Ingest
from thalweg.streams.simulation import simulate_seed
from thalweg.streams.simulation.shop import START, settings
from thalweg.streams.wire import Message, Source

SOURCE = Source("shop", "id of shop", 0)


def opened(last: list[Message | None]) -> Ingest:
    return Ingest(settings(2, 100), [SOURCE], last, lambda: START + 10_000_000)


def read(ingest: Ingest, begin: int, end: int) -> list[Message]:
    """Rows of many users, a second apart, through ingest: the last block of each shard."""
    rows = [
        {"event_id": f"e{i}", "type": "impression", "ts": START + 1_000 * i, "user_id": f"u{i}", "item_id": "tea"}
        for i in range(begin, end)
    ]
    ingest.offer(0, np.arange(begin, end), [json.dumps(row).encode() for row in rows])
    return [message for _, message in ingest.take(True)[0]]


@pytest.fixture
def again() -> list[Message]:
    """The blocks of an ingester that was opened after one that died between the shards: shard 1 lacks 20 rows."""
    ingest = opened([None, None])
    both = read(ingest, 0, 20)
    first, _ = read(ingest, 20, 40)
    return read(opened([first, both[1]]), 20, 40)


def test_rows_that_a_shard_lost_come_again_with_their_clock(again: list[Message]) -> None:
    """Seed 69: stamped with the clock of the shard that had got its block, they were late."""
    rows = again[1].block.rows
    assert len(rows) > 5 and again[1].block.ranges == {0: (20, 40)}
    assert (rows["ts"] >= rows["clock"]).all()


def test_rows_read_again_for_one_shard_are_not_sent_again_to_another(again: list[Message]) -> None:
    """Seed 14: outside the block's ranges no mark dropped them, so they were applied again."""
    assert len(again[0].block.rows) == 0 and again[0].block.ranges == {0: (40, 40)}


@pytest.mark.parametrize("seed", [14, 69])
def test_the_seeds_that_found_them(seed: int) -> None:
    assert simulate_seed(seed).failure is None
