"""Bugs that seeds of the simulation have found, each by itself; `test_planted_bugs` has the seeds find them again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from thalweg.graph_store.state_store import StateStore
from thalweg.streams.attribution import AttributionStage
from thalweg.streams.block import Block
from thalweg.streams.ingest import Ingest
from thalweg.streams.row import EVENT_ROW, Type
from thalweg.streams.simulation import simulate_seed
from thalweg.streams.simulation.plan import Loss, Plan
from thalweg.streams.simulation.shop import START, Traits, settings
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
    """Stamped with the clock of the shard that had got its block, they were late."""
    rows = again[1].block.rows
    assert len(rows) > 5 and again[1].block.ranges == {0: (20, 40)}
    assert (rows["ts"] >= rows["clock"]).all()


def test_rows_read_again_for_one_shard_are_not_sent_again_to_another(again: list[Message]) -> None:
    """Outside the block's ranges no mark dropped them, so they were applied again."""
    assert len(again[0].block.rows) == 0 and again[0].block.ranges == {0: (40, 40)}


def test_a_source_is_idle_only_behind_its_last_row() -> None:
    """Rows that wait for a source that is behind, while their own is called idle, hold the clock all the same."""
    sources = [Source("shop", "id of shop", p) for p in range(3)]
    ingest = Ingest(settings(1, 100), sources, [None], lambda: START + 10_000_000)
    stamped = []

    def offer(source: int, *seconds: int) -> None:
        rows = [
            {"event_id": f"e{source}-{s}", "type": "impression", "ts": START + 1_000 * s, "item_id": "tea"}
            for s in seconds
        ]
        ingest.offer(source, np.arange(len(rows)), [json.dumps(row).encode() for row in rows])

    def take(everything: bool) -> None:
        stamped.extend(row for _, message in ingest.take(everything)[0] for row in message.block.rows)

    offer(2, 50)
    offer(1, 200)
    take(True)
    offer(0, 90, 100, 110)
    take(False)
    for idle in (0, 2):
        ingest.caught_up(idle, True)
        take(False)
    assert len(stamped) == 5 and all(row["ts"] >= row["clock"] for row in stamped)
    assert ingest.clock == START + 198_000


def test_a_progress_row_that_is_held_is_no_state() -> None:
    """A log with heartbeats, replayed, held the last of them; from a topic ingest lets none through."""

    def digest(*kinds: Type) -> int:
        rows = np.zeros(len(kinds), EVENT_ROW)
        rows["rank"], rows["ts"], rows["offset"] = kinds, START, np.arange(len(kinds))
        stage = AttributionStage(settings(1, 10), StateStore.memory(), 1)
        stage.process(Block(rows, np.zeros((len(kinds), 2), np.uint32), {0: (0, len(kinds))}, START - 1), 1)
        return stage.digest()

    assert digest(Type.CLICK, Type.PROGRESS) == digest(Type.CLICK) != digest()


def test_the_clock_of_a_block_that_was_seen_counts() -> None:
    """Two ingesters: one sent the last rows and died, the other sent them again, with the clock that frees them."""
    rows = np.zeros(2, EVENT_ROW)
    rows["rank"], rows["ts"], rows["offset"] = Type.CLICK, START, (0, 1)
    stage = AttributionStage(settings(1, 10), StateStore.memory(), 1)
    for clock in (START - 5, START + 5, START):
        stage.process(Block(rows.copy(), np.zeros((2, 2), np.uint32), {0: (0, 2)}, clock), 1)
    assert stage.clock == START + 5
    assert (
        stage.books()["click"]["read"] == stage.books()["click"]["applied"] + stage.books()["click"]["duplicate"] == 2
    )


@pytest.mark.slow
def test_raw_messages_trimmed_before_every_shard_had_them_are_missed() -> None:
    """An ingester died between the first blocks: one shard has rows of a source, another has none of them, and they
    are deleted. The next ingester stands at 0, reads from where the log begins, and the other shard never gets them."""
    plan = Plan(Traits(rows=30), shards=3, block_rows=5, reads=8, rates={"ingest crash": 0.5}, loss=Loss.RAW_TRIMMED)
    for seed in range(20):  # 2, 7 and 19 were the first
        failure = simulate_seed(seed, plan).failure
        assert failure is None, f"seed {seed} {failure}"
