"""Reads log files as raw partitions: merged by event time, stamped with ingest's clock, cut into blocks.

Each file is one raw partition. The next row comes from the file whose running greatest event time is least; of equal
ones, from the file that the state knew first. The clock of a row is that greatest event time over all rows before it,
minus the allowed lateness: ingest's rule, with every file's next row known. It never falls, and whether a row is late
depends on the log alone, not on how it is cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from ..graph_store.hash import mix64
from ..graph_store.kernel import kernel
from .block import NO_CLOCK, Block, Codes, Rows
from .configuration import Configuration
from .dead_letter import DeadLetter
from .event import CanonicalBatch
from .intake import event_rows
from .row import EVENT_ROW, join, pick

_READ = 65_536
"""Rows read from a file at once."""


class File(Protocol):
    """One file of a log."""

    name: str

    def batches(self, start_row: int, rows: int) -> Iterator[CanonicalBatch]:
        """Batches from raw row number `start_row` on."""


@dataclass
class _Source:
    """One file being read: the rows at hand, what of them is merged, what has left in a piece."""

    index: int
    batches: Iterator[CanonicalBatch]
    left_end: int  # raw rows below have left
    left_top: int  # greatest event time among them
    loaded_end: int
    loaded_top: int
    rows: Rows
    codes: Codes
    keys: npt.NDArray[np.int64]  # running greatest event time, of each row at hand
    merged: int = 0  # rows at hand that are merged
    rejects: list[DeadLetter] = field(default_factory=list)
    exhausted: bool = False

    @property
    def waiting(self) -> bool:
        """True where a row at hand is not merged yet."""
        return self.merged < len(self.rows)


@dataclass(frozen=True)
class Piece:
    """Stamped rows of all partitions, before they are split by shard.

    Attributes
    ----------
    block : rows with ranges, clock, tops and names, for all shards together
    start, end : numbers of the merged good rows
    rejects : dead letters of the raw rows in the block's ranges
    """

    block: Block
    start: int
    end: int
    rejects: list[DeadLetter]


@kernel
def _fold_names(hashes):  # type: ignore[no-untyped-def]
    out = np.empty_like(hashes)
    for i in range(hashes.shape[0]):
        out[i] = mix64(hashes[i])
    return out


def shards_of(keys: npt.NDArray[np.uint64], partitions: int) -> npt.NDArray[np.int64]:
    """Partition of thalweg.events for each shard key: int64[n]."""
    return (_fold_names(np.ascontiguousarray(keys)) % np.uint64(partitions)).astype(np.int64)


class Reader:
    """Merged and stamped pieces of a log.

    Parameters
    ----------
    files : (index among the sources of the state, file), in the log's documented order
    configuration : the configuration
    marks, tops : for each file, how many raw rows are taken already and the greatest event time among them
    position : number of merged good rows taken already
    clock : ms, the stamp that the next row gets at least
    """

    def __init__(
        self,
        files: Iterable[tuple[int, File]],
        configuration: Configuration,
        marks: dict[int, int] | None = None,
        tops: dict[int, int] | None = None,
        position: int = 0,
        clock: int = NO_CLOCK,
    ) -> None:
        self._configuration = configuration
        self._lateness = int(configuration.time.lateness)
        self.position = position
        self._width = len(configuration.features)
        self._sources = [
            self._begin(index, file, (marks or {}).get(index, 0), (tops or {}).get(index, NO_CLOCK))
            for index, file in sorted(files, key=lambda numbered: numbered[0])
        ]
        self.top = max([NO_CLOCK, *(source.left_top for source in self._sources)])
        self._stamp = clock
        self._names: dict[int, str] = {}

    def _begin(self, index: int, file: File, mark: int, top: int) -> _Source:
        return _Source(
            index, file.batches(mark, _READ), mark, top, mark, top, np.zeros(0, EVENT_ROW),
            np.zeros((0, self._width), np.uint32), np.zeros(0, np.int64),
        )  # fmt: skip

    def _load(self, source: _Source) -> None:
        """Read on until the source has a row that is not merged, or is at its end."""
        while not source.exhausted and not source.waiting:
            batch = next(source.batches, None)
            if batch is None:
                source.exhausted = True
                return
            source.rows, source.codes, (hashes, names) = event_rows(batch, self._configuration, source.index)
            source.keys = np.maximum.accumulate(np.maximum(source.rows["ts"], source.loaded_top))
            source.merged, source.loaded_end = 0, batch.end
            source.rejects.extend(batch.rejects)
            if len(source.rows):
                source.loaded_top = int(source.keys[-1])
            self._names.update(zip(hashes.tolist(), names.to_pylist(), strict=True))

    def pieces(
        self, rows: int, cuts: Iterable[int] = (), close: bool = False, held: Callable[[], int] = lambda: NO_CLOCK
    ) -> Iterator[Piece]:
        """Pieces of `rows` merged good rows, also cut at each position in `cuts`.

        At the end of the files stands a piece of its own, with what is left and one position for the progress row that
        carries the clock. `close` adds one more, whose clock has passed every row, and the time that `held` then says:
        the greatest that any stage holds. What a late row emits stands at the clock of a state that was closed before.
        """
        wanted = sorted(cut for cut in cuts if cut > self.position)
        chunks: list[tuple[Rows, Codes]] = []
        have = 0
        target = self._target(rows, wanted)
        for chunk_rows, chunk_codes in self._merged():
            begin = 0
            while begin < len(chunk_rows):
                more = min(target - have, len(chunk_rows) - begin)
                chunks.append((chunk_rows[begin : begin + more], chunk_codes[begin : begin + more]))
                have, begin = have + more, begin + more
                if have == target:
                    yield self._piece(chunks)
                    chunks, have = [], 0
                    target = self._target(rows, wanted)
        if chunks:
            yield self._piece(chunks)
        yield self._piece([], last=True)
        if close:
            self._stamp = max(self._stamp, self.top + 1, held() + 1)
            yield self._piece([], last=True)

    def _target(self, rows: int, wanted: list[int]) -> int:
        while wanted and wanted[0] <= self.position:
            wanted.pop(0)
        return min(rows, wanted[0] - self.position) if wanted else rows

    def _merged(self) -> Iterator[tuple[Rows, Codes]]:
        """Chunks of rows in reading order."""
        while True:
            for source in self._sources:
                self._load(source)
            live = [source for source in self._sources if source.waiting]
            if not live:
                return
            if len(live) == 1:
                rows, codes, _ = _take(live[0], len(live[0].rows))
                yield rows, codes
                continue
            # what a source has not loaded lies at or above its last key: up to the least last key the order is known
            limit, index = min((int(source.keys[-1]), source.index) for source in live)
            parts = []
            for source in live:
                side: Literal["left", "right"] = "right" if source.index <= index else "left"
                parts.append(_take(source, max(int(np.searchsorted(source.keys, limit, side)), source.merged)))
            order = np.argsort(np.concatenate([keys for _, _, keys in parts]), kind="stable")
            yield pick(join([rows for rows, _, _ in parts]), order), np.concatenate([c for _, c, _ in parts])[order]

    def _piece(self, chunks: list[tuple[Rows, Codes]], last: bool = False) -> Piece:
        rows, codes = np.zeros(0, EVENT_ROW), np.zeros((0, self._width), np.uint32)
        if len(chunks) == 1:  # a piece of what was read: its rows are nobody else's
            rows, codes = chunks[0]
        elif chunks:
            rows, codes = join([c[0] for c in chunks]), np.concatenate([c[1] for c in chunks])
        ranges, rejects = self._leave(rows, last)
        self._stamp_rows(rows)
        rejected = Counter((letter.type, letter.reason) for letter in rejects)
        tops = {source.index: source.left_top for source in self._sources}
        names, self._names = self._names, {}
        mentioned = np.array(list(names), np.uint64), list(names.values())
        start, self.position = self.position, self.position + len(rows) + int(last)
        block = Block(rows, codes, ranges, self._stamp, mentioned, dict(rejected), tops)
        return Piece(block, start, self.position, rejects)

    def _stamp_rows(self, rows: Rows) -> None:
        """Stamp each row with the clock as it stands before the row counts; move the clock."""
        if len(rows):
            tops = np.maximum.accumulate(np.maximum(rows["ts"], self.top))
            rows["clock"][0] = self._stamp
            rows["clock"][1:] = np.maximum(self._stamp, tops[:-1] - self._lateness)
            self.top = int(tops[-1])
            self._stamp = max(self._stamp, self.top - self._lateness)

    def _leave(self, rows: Rows, last: bool) -> tuple[dict[int, tuple[int, int]], list[DeadLetter]]:
        """Raw rows that the piece covers of each source, and the rejects among them."""
        ranges: dict[int, tuple[int, int]] = {}
        rejects: list[DeadLetter] = []
        for source in self._sources:
            mine = rows["source"] == source.index if len(self._sources) > 1 else slice(None)
            offsets, start = rows["offset"][mine], source.left_end
            if len(offsets):
                source.left_end = int(offsets[-1]) + 1
                source.left_top = max(source.left_top, int(rows["ts"][mine].max()))
            if last:
                source.left_end = max(source.left_end, source.loaded_end)
            ranges[source.index] = (start, source.left_end)
            if source.rejects:
                rejects.extend(letter for letter in source.rejects if letter.row < source.left_end)
                source.rejects = [letter for letter in source.rejects if letter.row >= source.left_end]
        return ranges, rejects


def _take(source: _Source, until: int) -> tuple[Rows, Codes, npt.NDArray[np.int64]]:
    """Rows at hand that are not merged, up to `until`, as merged now."""
    begin, source.merged = source.merged, until
    return source.rows[begin:until], source.codes[begin:until], source.keys[begin:until]
