"""The frame that all stages share: marks, gaps, openings, the audit trail, checkpoints, recovery."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.graph_store.digest import digest_entries
from thalweg.graph_store.state_store import StateStore
from thalweg.streams.block import NO_CLOCK, Block
from thalweg.streams.configuration import Configuration, from_builtins
from thalweg.streams.row import EVENT_ROW, OUTCOME_ROW
from thalweg.streams.stage import Gap, Opening, Outputs, Stage

CONFIGURATION = from_builtins({"audit_interval": "100ms", "features": [{"name": "device"}]})
LEDGER = np.dtype([("id", "<u8"), ("ts", "<i8"), ("code", "<i8")])


class Ledger(Stage):
    """Writes down what it is given, in the order it is given, and when its openings fire."""

    name: ClassVar[str] = "ledger"
    row_type: ClassVar[np.dtype[Any]] = OUTCOME_ROW

    def __init__(self, configuration: Configuration, store: StateStore, sources: int = 1) -> None:
        self.diary: list[tuple[str, int]] = []
        super().__init__(configuration, store, sources)
        self.ledger = store.growing("ledger", LEDGER)
        self.emitted = 0

    def openings(self) -> list[Opening]:
        return [
            Opening("refresh", 200, 2, lambda at: self.diary.append(("refresh", at))),
            Opening("reading", 100, 1, lambda at: self.diary.append(("reading", at))),
            Opening("shifted", 100, 1, lambda at: self.diary.append(("shifted", at)), offset=50),
        ]

    def apply(self, rows: np.ndarray, features: np.ndarray, order: np.ndarray, before: int) -> None:
        self.ledger.reserve(len(order))
        for k in order:
            assert before == NO_CLOCK or rows["ts"][k] < before
            self.ledger.rows[len(self.ledger)] = (rows["id"][k], rows["ts"][k], features[k, 0])
            self.ledger.count[0] += 1
            self.diary.append(("row", int(rows["ts"][k])))
        self.diary.append(("timers before", before))

    def entries(self) -> Iterator[tuple[str, np.ndarray]]:
        yield "ledger", self.ledger.entries()

    def take(self) -> Outputs:
        start, self.emitted = self.emitted, len(self.ledger)
        rows = np.zeros(self.emitted - start, OUTCOME_ROW)
        rows["ts"] = self.ledger.entries()["ts"][start:]
        return {"outcomes": (rows, np.zeros((len(rows), 1), np.uint32))}

    def _audit(self, boundary: int) -> None:
        self.diary.append(("audit", boundary))
        super()._audit(boundary)


class Events(Ledger):
    """The same over rows that carry their origin and one clock."""

    row_type: ClassVar[np.dtype[Any]] = EVENT_ROW
    one_clock: ClassVar[bool] = True


def block(times: list[int], ranges: dict[int, tuple[int, int]], clock: int, **more: Any) -> Block:
    rows = np.zeros(len(times), OUTCOME_ROW)
    rows["ts"], rows["id"] = times, np.array(times, np.int64) + 1000
    return Block(rows, np.array(times, np.uint32).reshape(-1, 1), ranges, clock, **more)


def events(offsets: list[tuple[int, int]], ranges: dict[int, tuple[int, int]], clock: int) -> Block:
    """Rows of (source, offset); the time is 10 * offset."""
    rows = np.zeros(len(offsets), EVENT_ROW)
    for number, (source, offset) in enumerate(offsets):
        rows["ts"][number], rows["id"][number] = 10 * offset, source
        rows["source"][number], rows["offset"][number] = source, offset
    return Block(rows, np.zeros((len(rows), 1), np.uint32), ranges, clock)


def ledger(sources: int = 1, kind: type[Ledger] = Ledger) -> Ledger:
    return kind(CONFIGURATION, StateStore.memory(), sources)


def state(stage: Stage) -> tuple[Any, ...]:
    return stage.digest(), stage.trail(), stage.marks.tolist(), stage.clock, stage.position


# ---- marks


def test_a_block_delivered_twice_changes_nothing_and_still_answers():
    stage = ledger()
    first = block([5, 7], {0: (0, 2)}, 6)
    assert len(stage.process(first, 1)["outcomes"]) == 1
    before = state(stage)
    again = stage.process(first, 1)["outcomes"]
    assert state(stage) == before and len(again) == 0
    assert again.ranges == {0: (1, 1)} and again.clock == 6


def test_a_block_from_long_ago_changes_nothing():
    stage = ledger()
    old = block([5], {0: (0, 1)}, 6)
    for number, piece in enumerate((old, block([8], {0: (1, 2)}, 9), block([20], {0: (2, 3)}, 30)), 1):
        stage.process(piece, number)
    before = state(stage)
    stage.process(old, 1)
    assert state(stage) == before


def test_an_empty_range_raises_the_clock_and_moves_no_mark():
    stage = ledger()
    stage.process(block([5], {0: (0, 8)}, 6), 1)
    stage.process(block([], {0: (8, 8)}, 9), 2)
    assert stage.clock == 9 and stage.marks.tolist() == [8]
    stage.process(block([], {0: (3, 3)}, 7), 3)  # a heartbeat that comes again late
    assert stage.clock == 9 and stage.marks.tolist() == [8]


def test_a_range_without_rows_moves_the_mark():
    stage = ledger()
    stage.process(block([], {0: (0, 5)}, 3), 1)
    assert stage.marks.tolist() == [5]
    stage.process(block([4], {0: (5, 6)}, 5), 2)
    assert stage.marks.tolist() == [6]


def test_a_gap_stops_with_both_numbers_and_changes_nothing():
    stage = ledger()
    stage.process(block([5], {0: (0, 3)}, 6), 1)
    before = state(stage)
    with pytest.raises(Gap, match=r"ledger: a block of source 0 begins at 4, the mark is 3; .* new --state folder"):
        stage.process(block([9], {0: (4, 5)}, 10), 2)
    assert state(stage) == before
    stage.process(block([9], {0: (3, 5)}, 10), 2)


def test_a_gap_in_one_of_two_sources_is_seen():
    stage = ledger(2, Events)
    with pytest.raises(Gap, match="source 1 begins at 2, the mark is 0"):
        stage.process(events([(0, 0), (1, 2)], {0: (0, 1), 1: (2, 3)}, 100), 1)
    assert stage.marks.tolist() == [0, 0]


def test_events_that_overlap_the_marks_are_dropped_by_offset():
    stage = ledger(2, Events)
    stage.process(events([(0, 0), (1, 0), (0, 1)], {0: (0, 2), 1: (0, 1)}, 5), 1)
    stage.process(events([(0, 1), (1, 1), (0, 2)], {0: (1, 3), 1: (1, 2)}, 1000), 2)
    assert sorted((int(e["id"]), int(e["ts"])) for e in stage.ledger.entries()) == [
        (0, 0), (0, 10), (0, 20), (1, 0), (1, 10),
    ]  # fmt: skip
    assert stage.marks.tolist() == [3, 2]


def test_rows_without_an_origin_cannot_be_cut_across_a_mark():
    stage = ledger()
    stage.process(block([5], {0: (0, 3)}, 6), 1)
    with pytest.raises(Gap, match="cut across a mark"):
        stage.process(block([9], {0: (2, 5)}, 10), 2)


def test_a_row_below_the_clock_is_a_broken_promise():
    stage = ledger()
    stage.process(block([], {0: (0, 1)}, 50), 1)
    with pytest.raises(Gap, match="a row below the clock 50"):
        stage.process(block([49], {0: (1, 2)}, 60), 2)


def test_marks_clocks_and_tops_never_fall():
    stage = ledger()
    stage.process(block([], {0: (0, 1)}, 50, tops={0: 90}), 7)
    out = stage.process(block([], {0: (1, 2)}, 40, tops={0: 80}), 5)
    assert stage.clock == 50 and stage.tops.tolist() == [90] and stage.position == 7
    assert out["outcomes"].clock == 50


# ---- openings and the audit trail


def test_openings_fire_one_ms_before_their_boundary_in_order_of_rank():
    """At 199, due together: the row, closing timers, then reading, refresh, audit."""
    stage = ledger()
    stage.process(block([150, 198, 199, 200], {0: (0, 4)}, 201), 1)
    assert stage.diary == [
        ("row", 150), ("row", 198), ("row", 199), ("timers before", 200),
        ("reading", 200), ("refresh", 200), ("audit", 200),
        ("row", 200), ("timers before", 201),
    ]  # fmt: skip


def test_a_boundary_is_reached_when_the_clock_passes_the_ms_before_it():
    stage = ledger()
    stage.process(block([150], {0: (0, 1)}, 199), 1)
    assert ("reading", 200) not in stage.diary
    stage.process(block([], {0: (1, 2)}, 200), 2)
    assert stage.diary[-4:-1] == [("reading", 200), ("refresh", 200), ("audit", 200)]


def test_openings_begin_with_the_first_row_and_keep_their_offset():
    stage = ledger()
    stage.process(block([], {0: (0, 1)}, 10_000), 1)
    assert stage.diary == [("timers before", 10_000)]
    stage.process(block([10_130], {0: (1, 2)}, 10_400), 2)
    fired = [event for event in stage.diary if event[0] in ("shifted", "reading", "refresh")]
    assert fired == [
        ("shifted", 10_150), ("reading", 10_200), ("refresh", 10_200), ("shifted", 10_250), ("reading", 10_300),
        ("shifted", 10_350), ("reading", 10_400), ("refresh", 10_400),
    ]  # fmt: skip


def test_the_audit_trail_holds_the_digest_of_the_rows_before_each_boundary():
    stage = ledger()
    stage.process(block([10, 99, 100, 250, 399], {0: (0, 5)}, 500), 1)
    assert sorted(stage.trail()) == [100, 200, 300, 400, 500]
    for boundary, digest in stage.trail().items():
        rows = stage.ledger.entries()
        assert digest == digest_entries("ledger", rows[rows["ts"] < boundary])


def test_held_rows_are_in_the_digest_but_in_no_trail():
    stage = ledger()
    stage.process(block([10, 250], {0: (0, 2)}, 200), 1)
    assert stage.digest() != stage.digest(held=False) == stage.trail()[200]
    rows, features = stage.held_rows()
    assert rows["ts"].tolist() == [250] and features.tolist() == [[250]]


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.lists(st.integers(0, 60), max_size=6), st.integers(0, 90)), max_size=12),
    st.sets(st.integers(0, 12), max_size=3),
)
def test_delivery_cut_and_restarts_change_neither_digest_nor_trail(steps, restarts):
    """Two sources, blocks of any size: as one big block a source, in pieces, twice each, across restarts."""
    pieces, marks, clocks = [], [0, 0], [0, 0]
    for source, times, raised in [*steps, (0, [], 1000), (1, [], 1000)]:
        start = marks[source]
        marks[source] += len(times) + 1
        at = [clocks[source] + ts for ts in times]
        clocks[source] += raised
        piece = block(at, {source: (start, marks[source])}, clocks[source])
        piece.rows["id2"] = np.arange(start, start + len(at)) * 2 + source
        pieces.append(piece)
    plain = ledger(2)
    for number, piece in enumerate(pieces):
        plain.process(piece, number + 1)
    whole = ledger(2)
    for source in (0, 1):
        mine = [p for p in pieces if source in p.ranges]
        rows, features = np.concatenate([p.rows for p in mine]), np.concatenate([p.features for p in mine])
        whole.process(Block(rows, features, {source: (0, marks[source])}, clocks[source]), source + 1)
    with tempfile.TemporaryDirectory() as folder:
        store = StateStore.open(Path(folder) / "s", "f")
        stage = Ledger(CONFIGURATION, store, 2)
        for number, piece in enumerate(pieces):
            stage.process(piece, number + 1)
            stage.process(piece, number + 1)
            if number in restarts:
                stage.checkpoint()
                before = state(stage)
                store.close()
                store = StateStore.open(Path(folder) / "s", "f")
                stage = Ledger(CONFIGURATION, store, 2)
                assert state(stage) == before
                stage.process(pieces[0], 1)
        store.close()
    assert state(stage) == state(plain)
    assert (whole.digest(), whole.trail()) == (plain.digest(), plain.trail())


def test_a_restart_without_a_checkpoint_goes_back_to_the_last_one(tmp_path):
    store = StateStore.open(tmp_path / "s", "f")
    stage = Ledger(CONFIGURATION, store)
    stage.process(block([10], {0: (0, 1)}, 20), 1)
    stage.checkpoint()
    before = state(stage)
    stage.process(block([30], {0: (1, 2)}, 40), 2)
    after = state(stage)
    store.close()
    store = StateStore.open(tmp_path / "s", "f")
    stage = Ledger(CONFIGURATION, store)
    assert state(stage) == before
    stage.process(block([30], {0: (1, 2)}, 40), 2)
    assert state(stage) == after
    store.close()


def test_sources_may_be_added_to_a_stage_of_one_clock(tmp_path):
    store = StateStore.open(tmp_path / "s", "f")
    stage = Events(CONFIGURATION, store, 1)
    stage.process(events([(0, 0)], {0: (0, 1)}, 5), 1)
    stage.checkpoint()
    store.close()
    store = StateStore.open(tmp_path / "s", "f")
    stage = Events(CONFIGURATION, store, 2)
    assert stage.marks.tolist() == [1, 0]
    stage.process(events([(0, 1), (1, 1)], {0: (1, 2), 1: (0, 2)}, 50), 2)
    assert stage.marks.tolist() == [2, 2] and len(stage.ledger) == 3
    store.close()
