"""A stage: its state is a pure function of the prefix of one partition of one topic (DESIGN section 2).

The base class does what all four stages share: marks and the gap check, the merge, opening timers and the audit trail,
the checkpoint and recovery. A subclass applies rows in order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..graph_store.digest import Numbered, digest_entries
from ..graph_store.state_store import StateStore
from .block import NO_CLOCK, Block, Codes, Names, Rows, no_names
from .configuration import Configuration
from .merge import Merge
from .row import pick

Order = npt.NDArray[np.int64]
Outputs = dict[str, tuple[Rows, Codes]]

_TRAIL = np.dtype([("ts", "<i8"), ("low", "<u8"), ("high", "<u8")])
_ORIGIN = ("clock", "source", "offset")


class Gap(RuntimeError):
    """A block begins above the mark of its source: something between was lost; both numbers are in the message."""


@dataclass
class Opening:
    """A periodic timer due 1 ms before each boundary k * period, after the rows and closing timers due by then.

    `rank` orders timers due together: 1 reading, 2 refresh, 3 audit. `fire(boundary)` is called with the boundary, ms.
    """

    name: str
    period: int
    rank: int
    fire: Callable[[int], None]
    offset: int = 0
    next: int | None = None


class Stage(ABC):
    """Base of the four stages.

    Parameters
    ----------
    configuration : the configuration
    store : where the state is kept; its tables are filled when the stage is made
    sources : number of sources of its input topic
    """

    name: ClassVar[str]
    row_type: ClassVar[np.dtype[Any]]
    one_clock: ClassVar[bool] = False
    """True where the rows of all sources carry one clock (ingest's), so that the merge has a single source."""

    carries_features: ClassVar[bool] = True
    """False where the rows of its topic come without features."""

    def __init__(self, configuration: Configuration, store: StateStore, sources: int) -> None:
        self.configuration = configuration
        self.store = store
        self.merge = Merge(1 if self.one_clock else sources)
        self.shard = 0
        self.marks = np.zeros(sources, np.int64)
        self.tops = np.full(sources, NO_CLOCK, np.int64)
        self.position = 0
        self.input: str | None = None
        """Id of the topic that `position` counts in; None: fresh, or made by a replay, which counts merged rows."""
        self.origins: dict[int, str] = {}
        """Lineage of the state that each source's blocks come from, as first seen."""
        self._width = len(configuration.features) if self.carries_features else 0
        self._trail = store.growing("trail", _TRAIL)
        self._held = store.growing("held", self.row_type)
        self._held_features = store.growing("held_features", np.dtype([("codes", "<u4", (max(1, self._width),))]))
        self._openings = [*self.openings(), Opening("audit", int(configuration.audit_interval), 3, self._audit)]
        self._openings.sort(key=lambda opening: opening.rank)
        if not store.fresh:
            self._recover(store.position)

    # ---- what a subclass says

    @abstractmethod
    def apply(self, rows: Rows, features: Codes, order: Order, before: int) -> None:
        """Apply rows[order[0]], rows[order[1]], ... one after the other.

        Before a row at ts, own closing timers due below ts fire; after the last row, those due below `before`.
        """

    def openings(self) -> list[Opening]:
        """Periodic timers of the stage's own."""
        return []

    @abstractmethod
    def entries(self) -> Iterator[tuple[str, Rows | Numbered]]:
        """Logical entries of the state for the digest: (table, structured array); no slots, counters, layout."""

    @abstractmethod
    def take(self) -> Outputs:
        """Rows emitted since the last call, by topic."""

    def mention(self, hashes: npt.NDArray[np.uint64], names: list[str]) -> None:
        """Item ids mentioned by a block; most stages do not care."""

    def intake(self, block: Block, rows: Rows) -> None:
        """Called with each block's rows that are not dropped by the marks, before they are merged."""

    def save(self) -> None:
        """Called before a commit: put what lives outside the tables into them."""

    # ---- the frame

    @property
    def width(self) -> int:
        """Features of each row it reads."""
        return self._width

    @property
    def clock(self) -> int:
        """The stage's clock, ms."""
        return self.merge.clock

    def process(self, block: Block, position: int) -> dict[str, Block]:
        """Take one block, which ends at `position` in this stage's input; what it emits, by topic.

        An input block always yields an output block a topic, if only its clock, so that a lost one is seen.
        Raises Gap where a range of the block begins above the source's mark.
        """
        fresh = self._check_marks(block)
        if fresh is not None:
            rows, features = fresh
            self.mention(*block.names)
            self.intake(block, rows)
            self._accept(block, rows, features)
        else:  # its clock counts: of two ingesters the one behind in rows may be the one that knows more of time
            self._accept(block, block.rows[:0], block.features[:0])
        return self._emit(position, block.names)

    def skip(self, position: int) -> dict[str, Block]:
        """Pass over something in the input, up to `position`, that is no block; emits as `process` does, no rows."""
        return self._emit(position, no_names())

    def attach(self, topic: str) -> None:
        """Go on, from its beginning, with the topic of this id: positions and marks count in it from here on.

        A state made by replay keeps what it learned, and its clock; so do the marks of log files.
        """
        self.input, self.position = topic, 0
        if not self.one_clock:
            self.marks[:] = 0
            self.origins = {}

    def _emit(self, position: int, names: Names) -> dict[str, Block]:
        start = self.position
        self.position = max(start, position)
        return {
            topic: Block(rows, features, {self.shard: (start, self.position)}, self.clock, names)
            for topic, (rows, features) in self.take().items()
        }

    def _check_marks(self, block: Block) -> tuple[Rows, Codes] | None:
        """Rows at or above the marks; None where the whole block has been seen. Raises the marks."""
        rows, features = block.rows, block.features
        partly = False
        for source, (start, end) in block.ranges.items():
            mark = int(self.marks[source])
            if start > mark:
                raise Gap(
                    f"{self.name}: a block of source {source} begins at {start}, the mark is {mark}; the rows between "
                    "were lost: start again from an older position, or replay into a new --state folder"
                )
            partly = partly or start < min(mark, end)  # an empty range brings no rows
        covers = any(end > start for start, end in block.ranges.values())
        if covers and all(end <= self.marks[source] for source, (_, end) in block.ranges.items()):
            return None
        if partly:
            if "offset" not in (rows.dtype.names or ()):
                raise Gap(f"{self.name}: a block is cut across a mark: {block.ranges} at marks {self.marks.tolist()}")
            fresh = rows["offset"] >= self.marks[rows["source"]]
            rows, features = pick(rows, fresh), features[fresh]
        for source, (_, end) in block.ranges.items():
            self.marks[source] = max(int(self.marks[source]), end)
        for source, top in block.tops.items():
            self.tops[source] = max(int(self.tops[source]), top)
        return rows, features

    def _accept(self, block: Block, rows: Rows, features: Codes) -> None:
        """Move the clock of the block's source, hold its rows, apply what is ready."""
        source = 0 if self.one_clock else next(iter(block.ranges))
        if len(rows) and int(rows["ts"].min()) < self.clock:
            raise Gap(f"{self.name}: a row below the clock {self.clock}: the stage before broke its promise")
        self.merge.offer(rows, features)
        self._advance(source, block.clock)

    def _advance(self, source: int, clock: int) -> None:
        """Move a source's clock; apply the rows and fire the timers that the merge's clock has passed."""
        self.merge.clocks[source] = max(int(self.merge.clocks[source]), clock)
        ready = self.merge.release()
        clock = self.clock
        if ready is None:
            ready = (self._held.rows[:0], np.zeros((0, self._width), np.uint32), np.zeros(0, np.int64))
        rows, features, order = ready
        ts = rows["ts"][order]
        if len(ts):
            self._start_openings(int(ts[0]))
        begin = 0
        for due in iter(lambda: self._next_due(clock), None):
            end = int(np.searchsorted(ts, due, "right"))
            self.apply(rows, features, order[begin:end], due + 1)
            begin = end
            self._fire(due)
        self.apply(rows, features, order[begin:], clock)

    def _start_openings(self, ts: int) -> None:
        for opening in self._openings:
            if opening.next is None:
                opening.next = (
                    (ts - opening.offset) // opening.period * opening.period + opening.period + opening.offset
                )

    def _next_due(self, clock: int) -> int | None:
        """The least time at which an opening timer is due and which the clock has passed."""
        due = min((o.next - 1 for o in self._openings if o.next is not None), default=clock)
        return due if due < clock else None

    def _fire(self, due: int) -> None:
        for opening in self._openings:
            if opening.next is not None and opening.next - 1 == due:
                opening.fire(opening.next)
                opening.next += opening.period

    def _audit(self, boundary: int) -> None:
        digest = self.digest(held=False)
        self._trail.reserve(1)
        self._trail.rows[self._trail.count[0]] = (boundary, digest & (2**64 - 1), digest >> 64)
        self._trail.count[0] += 1

    def digest(self, held: bool = True) -> int:
        """128-bit digest of the state: a sum over logical entries, so that shards add up and order does not matter."""
        total = sum(digest_entries(table, rows) for table, rows in self.entries())
        if held:
            rows, features = self.held_content()
            for name in _ORIGIN:
                if name in (rows.dtype.names or ()):
                    rows[name] = 0
            packed = (
                np.concatenate(
                    [rows.view(np.uint8).reshape(len(rows), -1), features.view(np.uint8).reshape(len(rows), -1)], axis=1
                )
                if len(rows)
                else np.zeros((0, 1), np.uint8)
            )
            total += digest_entries("held", packed)
        return total % 2**128

    def trail(self) -> dict[int, int]:
        """The audit trail: boundary (ms) -> digest without held rows."""
        return {int(ts): int(high) << 64 | int(low) for ts, low, high in self._trail.entries().tolist()}

    def held_rows(self) -> tuple[Rows, Codes]:
        """Rows that the merge still holds, with their features: copies."""
        return self.merge.rows(np.zeros(0, self.row_type), np.zeros((0, self._width), np.uint32))

    def held_content(self) -> tuple[Rows, Codes]:
        """Of the rows that are held those that will do something, for the digest: copies."""
        return self.held_rows()

    def checkpoint(self) -> int:
        """Commit state, position, marks and clocks in one atomic batch; bytes written.

        To be called only when every output of the blocks before is safe: acknowledged, or committed downstream.
        """
        self.save()
        rows, features = self.held_rows()
        for table, content in ((self._held, rows), (self._held_features, features)):
            table.count[0] = 0
            table.reserve(len(content))
            table.count[0] = len(content)
        self._held.rows[: len(rows)] = rows
        if self._width:
            self._held_features.rows["codes"][: len(rows)] = features
        return self.store.commit(
            {
                "position": self.position,
                "input": self.input,
                "origins": {str(source): origin for source, origin in self.origins.items()},
                "marks": self.marks.tolist(),
                "tops": self.tops.tolist(),
                "clocks": self.merge.clocks.tolist(),
                "openings": {opening.name: opening.next for opening in self._openings},
                "configuration": self.configuration.fingerprint(),
            }
        )

    def _recover(self, position: dict[str, Any]) -> None:
        self.position = position["position"]
        self.input = position.get("input")
        self.origins = {int(source): origin for source, origin in position.get("origins", {}).items()}
        known = len(position["marks"])  # sources may have been added since
        self.marks[:known] = position["marks"]
        self.tops[:known] = position["tops"]
        self.merge.clocks[:] = position["clocks"]
        for opening in self._openings:
            opening.next = position["openings"][opening.name]
        rows = self._held.entries().copy()
        features = np.zeros((len(rows), self._width), np.uint32)
        if self._width:
            features[:] = self._held_features.entries()["codes"]
        self.merge.offer(rows, features)
