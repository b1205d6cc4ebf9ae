"""Properties of the reader: one merged order, one clock, whatever the chunks and cuts; resuming goes on exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from thalweg.streams.block import NO_CLOCK
from thalweg.streams.configuration import Configuration, from_builtins
from thalweg.streams.dead_letter import DeadLetter, Reason, dead_letter
from thalweg.streams.event import CanonicalBatch, event_schema
from thalweg.streams.reader import Piece, Reader, shards_of
from thalweg.streams.row import Type

CONFIGURATION = from_builtins({"time": {"lateness": "5ms"}})


@dataclass
class MemoryFile:
    """Raw rows in memory: a time, or None for a row that is rejected; handed out `chunk` raw rows at a time."""

    name: str
    times: list[int | None]
    chunk: int = 3
    path: str = field(default="")

    def batches(self, start_row: int, rows: int) -> Iterator[CanonicalBatch]:
        """As a log file does, with small batches."""
        for start in range(start_row, len(self.times), self.chunk):
            end = min(start + self.chunk, len(self.times))
            offsets = [i for i in range(start, end) if self.times[i] is not None]
            rejects = [self._reject(i) for i in range(start, end) if self.times[i] is None]
            yield CanonicalBatch(start, end, np.array(offsets, np.int64), self._events(offsets), rejects)

    def _events(self, offsets: list[int]) -> pa.RecordBatch:
        schema = event_schema(CONFIGURATION)
        columns: dict[str, list[object]] = {name: [None] * len(offsets) for name in schema.names}
        columns["event_id"] = [f"{self.name}-{i}" for i in offsets]
        columns["type"] = [int(Type.CLICK)] * len(offsets)
        columns["ts"] = [self.times[i] for i in offsets]
        columns["item_id"] = [f"item{i % 3}" for i in offsets]
        return pa.RecordBatch.from_pydict(columns, schema=schema)

    def _reject(self, row: int) -> DeadLetter:
        return dead_letter((self.name, row, row + 1), Reason.BAD_JSON, b"?", kind="click")


def read(files: list[MemoryFile], rows: int, cuts: tuple[int, ...] = (), close: bool = False) -> list[Piece]:
    """All pieces of the files."""
    return list(Reader(list(enumerate(files)), CONFIGURATION).pieces(rows, cuts, close))


def seen(pieces: list[Piece]) -> list[tuple[int, int, int, int]]:
    """(source, offset, time, clock) of every row, in order."""
    return [
        (int(r["source"]), int(r["offset"]), int(r["ts"]), int(r["clock"]))
        for piece in pieces
        for r in piece.block.rows
    ]


def expected(files: list[MemoryFile]) -> list[tuple[int, int, int, int]]:
    """The slow, obvious merge: the file whose running greatest time is least, then the clock before each row."""
    left = [[(i, t) for i, t in enumerate(f.times) if t is not None] for f in files]
    tops: list[int] = [NO_CLOCK] * len(files)
    out, top = [], NO_CLOCK
    while any(left):
        heads = [(max(tops[f], rows[0][1]), f) for f, rows in enumerate(left) if rows]
        key, f = min(heads)
        offset, ts = left[f].pop(0)
        tops[f] = key
        out.append((f, offset, ts, top - 5 if top != NO_CLOCK else NO_CLOCK))
        top = max(top, ts)
    return out


TIMES = st.lists(st.one_of(st.integers(0, 60), st.none()), max_size=25)
FILES = st.lists(TIMES, min_size=1, max_size=3)


@given(FILES, st.integers(1, 9), st.integers(1, 5))
def test_one_order_and_clock_whatever_the_cut(times: list[list[int | None]], rows: int, chunk: int) -> None:
    """Equal to the slow twin; ranges cover every raw row once; rejects come once, in the piece that covers them."""
    files = [MemoryFile(f"f{i}", t, chunk) for i, t in enumerate(times)]
    pieces = read(files, rows)
    assert seen(pieces) == expected(files)
    for source, file in enumerate(files):
        spans = [piece.block.ranges[source] for piece in pieces]
        assert spans[0][0] == 0 and spans[-1][1] == len(file.times)
        assert all(a[1] == b[0] for a, b in zip(spans, spans[1:], strict=False))
    rejected = [letter.place for piece in pieces for letter in piece.rejects]
    assert sorted(rejected) == [(f.name, i) for f in files for i, t in enumerate(f.times) if t is None]


@given(FILES, st.integers(1, 9), st.data())
def test_reading_goes_on_where_it_stopped(times: list[list[int | None]], rows: int, data: st.DataObject) -> None:
    """From the marks, tops, position and clock after any piece, the rest comes as it would have."""
    files = [MemoryFile(f"f{i}", t) for i, t in enumerate(times)]
    pieces = read(files, rows)
    stop = data.draw(st.integers(0, len(pieces) - 1))
    last = pieces[stop].block
    marks = {source: end for source, (_, end) in last.ranges.items()}
    rest = Reader(list(enumerate(files)), CONFIGURATION, marks, last.tops, pieces[stop].end, last.clock).pieces(rows)
    assert seen(list(rest)) == seen(pieces[stop + 1 :])


def test_the_end_and_the_close_have_positions_of_their_own() -> None:
    """One position for the progress row at the end, one more for the close, whose clock has passed every row."""
    pieces = read([MemoryFile("f", [1, 2, 9])], 2, close=True)
    assert [(piece.start, piece.end) for piece in pieces] == [(0, 2), (2, 3), (3, 4), (4, 5)]
    assert [piece.block.clock for piece in pieces] == [-3, 4, 4, 10]


def test_pieces_are_cut_where_a_stage_stands() -> None:
    """A cut inside a piece divides it."""
    pieces = read([MemoryFile("f", list(range(10)))], 4, cuts=(3, 7))
    assert [piece.end for piece in pieces] == [3, 7, 10, 11]


@given(st.lists(st.integers(1, 2**63), min_size=1, max_size=50), st.integers(1, 7))
def test_a_key_has_one_shard(keys: list[int], partitions: int) -> None:
    """Shards are numbers below N, and equal keys have equal shards."""
    shards: npt.NDArray[np.int64] = shards_of(np.array(keys, np.uint64), partitions)
    assert shards.min() >= 0 and shards.max() < partitions
    by_key: dict[int, int] = {}
    for key, shard in zip(keys, shards.tolist(), strict=True):
        assert by_key.setdefault(key, shard) == shard


def test_configuration_default_is_used() -> None:
    """An empty log yields the end alone."""
    pieces = list(Reader([(0, MemoryFile("f", []))], Configuration()).pieces(10))
    assert len(pieces) == 1 and len(pieces[0].block) == 0
