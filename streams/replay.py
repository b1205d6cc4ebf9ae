"""The replay driver: log files through the same stage objects that a worker runs, in one process.

A block goes through every stage before the next is read. Checkpoints are committed downstream first: after a kill, a
stage that is behind emits again what the one that reads it has seen, and the marks drop it. So a replay that was
interrupted anywhere goes on where it was, and ends with the state of one that was not.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ..graph_store import fault
from ..graph_store.state_store import StateError
from .block import NO_CLOCK, Block, no_names
from .configuration import Configuration
from .dead_letter import DeadLetterFile, Reason, dead_letter
from .examples import ExampleFiles
from .heap import keep_freed_memory
from .log import Log, expand, open_log
from .log_file import LogFile
from .reader import Piece, Reader, shards_of
from .row import pick
from .state_directory import MAX_SOURCES, StateDirectory, stored_configuration
from .time_bounds import Bounds
from .verify import late_rows

HEAD = 4096
"""First bytes of a file that tell it from others."""

CHECKPOINT_SHARE = 12
"""A checkpoint waits at least so many times as long as the last one took: a state whose pages all change (a graph of
20 million pairs is 1 GB) would else spend the replay on writing. Wall time, so it decides when to write, never what."""

Progress = Callable[[int, int | None, int], None]
"""progress(rows done, rows in all or None, event time in ms)."""


class LateRows(RuntimeError):
    """A strict replay refuses a log with late rows; the message has their number and the first places."""


@dataclass
class Summary:
    """What a replay did.

    Attributes
    ----------
    rows : good rows that went through the stages in this run
    seconds : wall time of the run, set-up excluded
    interrupted : the run stopped because it was asked to; the state is checkpointed, the next run goes on
    dead_letters : by reason, over the whole life of the state
    late : rows that were applied, or set aside, below the clock they were stamped with
    unfinished : what was wrong with the ends of files (a cut-off gzip and the like)
    """

    state: str
    logs: list[str]
    rows: int = 0
    seconds: float = 0.0
    checkpoints: int = 0
    checkpoint_bytes: int = 0
    interrupted: bool = False
    closed: bool = False
    late: int = 0
    dead_letters: dict[str, int] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.rows / self.seconds if self.seconds else 0.0


def replay(
    logs: Sequence[str | Path],
    state: str | Path,
    configuration: Configuration | None = None,
    *,
    close: bool = False,
    strict: bool = False,
    block_rows: int = 10_000,
    progress: Progress | None = None,
    dead_letters: str | Path | None = None,
    examples: str | Path | None = None,
    stop: Callable[[], bool] | None = None,
) -> Summary:
    """Replay `logs` into the state directory `state`; go on where an interrupted run stopped.

    Parameters
    ----------
    close : at the end, let rows through that are still held above the clock
    strict : refuse a log with late rows (LateRows) before anything is applied
    block_rows : rows a block; changes nothing but speed
    dead_letters : JSONL file; none: STATE/dead_letters.jsonl
    examples : folder for thalweg.examples, every emission of the learner; none: not emitted. The state is the same
    stop : asked before each block; True, and from then on always, checkpoints and returns

    Raises StateError, ConfigurationError, or what `open_log` raises for files that cannot be read.
    """
    run = Replay(logs, state, configuration, block_rows=block_rows, dead_letters=dead_letters, examples=examples)
    try:
        if strict:
            run.refuse_late_rows(stop)
        return run.go(close=close, progress=progress, stop=stop)
    finally:
        run.close()


class Replay:
    """One run of the replay driver; see `replay`."""

    def __init__(
        self,
        logs: Sequence[str | Path],
        state: str | Path,
        configuration: Configuration | None = None,
        *,
        block_rows: int = 10_000,
        dead_letters: str | Path | None = None,
        examples: str | Path | None = None,
    ) -> None:
        folder = Path(state)
        if configuration is None:
            configuration = (
                stored_configuration(folder) if (folder / "configuration.json").exists() else Configuration()
            )
        self.configuration = configuration
        self._block_rows = block_rows
        paths = expand(logs)
        self.state = StateDirectory(folder, self.configuration, examples=examples is not None)
        try:
            self._register(folder, paths)
            self._log = self._open_log(logs)
            self._dead = DeadLetterFile(dead_letters or folder / "dead_letters.jsonl")
        except BaseException:
            self.state.close()
            raise
        self._examples = None if examples is None else ExampleFiles(Path(examples), self.state.feedback.position)
        self._aside: list[tuple[int, int, str, str]] = []
        self.summary = Summary(str(folder), [file.name for file in self._log.files])

    def _register(self, folder: Path, paths: list[Path]) -> None:
        """Number the log files among the sources that the state knows. Stages that stand apart want their own files."""
        first = self.state.attribution[0]
        if first.input is not None:
            raise StateError(
                f"{folder}: a live worker has gone on with this state; go on with `thalweg worker`, or replay into a "
                "new --state folder"
            )
        self._registry, self._last = first.registry, first.store.value("files", [])
        known: list[list[Any]] = self._registry.value
        self._identities = [_identity(path, known) for path in paths]
        self._fresh = [identity for identity in self._identities if identity not in known]
        self._index = {tuple(identity): i for i, identity in enumerate([*known, *self._fresh])}
        if len(set(self._positions())) > 1 and sorted(self._last.value) != sorted(self._identities):
            raise StateError(
                f"{folder}: an interrupted replay of {', '.join(name for name, *_ in self._last.value)} is not "
                "finished; replay those files again first, then others"
            )
        if len(self._index) > MAX_SOURCES:
            raise StateError(
                f"{folder}: more than {MAX_SOURCES} log files; join some, or replay into a new --state folder"
            )

    def _open_log(self, logs: Sequence[str | Path]) -> Log:
        """Open the files; their time bounds are looked for once and kept in the state."""
        kept = self.state.attribution[0].store.value("bounds", None)
        bounds = None if self._fresh or kept.value is None else Bounds(*kept.value)
        log = open_log(logs, self.configuration, bounds)
        if self._fresh or self._last.value != self._identities:
            self._last.value = self._identities
            kept.value = [log.bounds.earliest, log.bounds.latest, log.bounds.origin]
            for stage in self.state.attribution:  # each, for each may be the first that a worker opens
                stage.registry.value = [list(identity) for identity in self._index]
            self.state.checkpoint()
        return log

    def _positions(self) -> list[int]:
        """Where each stage stands, in merged rows of the log."""
        partitions = len(self.state.attribution)
        return [
            stage.position if stage.name == "attribution" else stage.position // partitions
            for stage in self.state.stages()
        ]

    def _reader(self) -> Reader:
        behind = min(self.state.attribution, key=lambda stage: stage.position)
        indexes = [self._index[tuple(identity)] for identity in self._identities]
        return Reader(
            [(index, file) for index, file in zip(indexes, self._log.files, strict=True)],
            self.configuration,
            marks={index: int(behind.marks[index]) for index in indexes},
            tops={index: int(behind.tops[index]) for index in indexes},
            position=behind.position,
            clock=behind.clock,
        )

    def refuse_late_rows(self, stop: Callable[[], bool] | None = None) -> None:
        """Raise LateRows where a row still to be read lies below the clock it would be stamped with. Where `stop` says
        so the rest is not looked at, and `go`, given the same, reads nothing."""
        late = 0
        places: list[str] = []
        for piece in self._reader().pieces(self._block_rows):
            if stop is not None and stop():
                return
            rows = piece.block.rows
            below = rows[rows["ts"] < rows["clock"]]
            late += len(below)
            places += [self._place(int(row["source"]), int(row["offset"])) for row in below[: 3 - len(places)]]
        if late:
            raise LateRows(
                f"{late:,} rows lie more than {self.configuration.time.lateness} behind the rows before them, the "
                f"first at {', '.join(places)}; sort the log, raise time.lateness, or replay without --strict to apply "
                "and count them"
            )

    def _place(self, source: int, offset: int) -> str:
        return f"{list(self._index)[source][0]} row {offset + 1:,}"

    def go(
        self, *, close: bool = False, progress: Progress | None = None, stop: Callable[[], bool] | None = None
    ) -> Summary:
        """Read to the end of the log, or until `stop` says so; checkpoint; the summary."""
        summary = self.summary
        started = last = time.monotonic()
        keep_freed_memory()
        every = int(self.configuration.store.checkpoint) / 1000
        cost = 0.0
        cuts = set(self._positions())
        counts = [file.rows for file in self._log.files]
        total = None if None in counts else sum(count or 0 for count in counts)
        for piece in self._reader().pieces(self._block_rows, cuts, close, self._greatest_held):
            if stop is not None and stop():
                summary.interrupted = True
                break
            self._apply(piece)
            summary.rows += len(piece.block.rows)
            fault.reach("block applied")
            if progress is not None:
                progress(summary.rows, total, piece.block.clock)
            if time.monotonic() - last >= max(every, CHECKPOINT_SHARE * cost):
                began = time.monotonic()
                self._checkpoint()
                last = time.monotonic()
                cost = last - began
        self._checkpoint()
        summary.unfinished = self._log.unfinished
        summary.closed = close and not summary.interrupted
        summary.seconds = time.monotonic() - started
        summary.late = late_rows(self.state)
        summary.dead_letters = self._dead_letters()
        return summary

    def _greatest_held(self) -> int:
        """Greatest time of the rows that any stage still holds, ms."""
        held = [stage.held_rows()[0]["ts"] for stage in self.state.stages()]
        return max((int(ts.max()) for ts in held if len(ts)), default=NO_CLOCK)

    def _dead_letters(self) -> dict[str, int]:
        totals: dict[str, int] = {}
        for stage in self.state.attribution:
            for reason, count in stage.dead_letters().items():
                totals[reason] = totals.get(reason, 0) + count
        return dict(sorted(totals.items()))

    def _checkpoint(self) -> None:
        self._write_aside()
        if self._examples is not None:
            self._examples.flush(self.state.feedback.position)
        self.summary.checkpoint_bytes += self.state.checkpoint()
        self.summary.checkpoints += 1

    def _write_aside(self) -> None:
        """Dead letters for the events that attribution set aside, with their content read again from the log."""
        files = {
            self._index[tuple(identity)]: file for identity, file in zip(self._identities, self._log.files, strict=True)
        }
        for source in sorted({aside[0] for aside in self._aside}):
            mine = {offset: (reason, kind) for s, offset, reason, kind in self._aside if s == source}
            if source not in files:  # it was held when an earlier replay, of that file, came to its end
                name = list(self._index)[source][0]
                detail = "read by an earlier replay: its content stands in that file"
                for offset, (reason, kind) in sorted(mine.items()):
                    place = (name, offset, offset + 1)
                    self._dead.write([dead_letter(place, Reason(reason), None, detail=detail, kind=kind)])
                continue
            for offset, raw in read_back(files[source], sorted(mine)):
                reason, kind = mine[offset]
                place = (files[source].name, offset, offset + 1)
                self._dead.write([dead_letter(place, Reason(reason), raw, kind=kind)])
        self._aside = []

    def _apply(self, piece: Piece) -> None:
        """One piece of the log through all stages."""
        self._dead.write(piece.rejects)
        partitions = len(self.state.attribution)
        shards = shards_of(piece.block.rows["key"], partitions) if partitions > 1 else None
        span = piece.end - piece.start
        for q, stage in enumerate(self.state.attribution):
            block = piece.block if shards is None else _shard(piece.block, shards == q, q)
            out = stage.process(block, piece.end)
            end = piece.start * partitions + (q + 1) * span
            self._deliver(out, end)
            self._aside += stage.take_rejected()

    def _deliver(self, out: dict[str, Block], end: int) -> None:
        outcomes = self.state.feedback.process(out["labels"], end)
        if self._examples is not None:
            self._examples.take(outcomes["examples"])
        self.state.calibration.process(outcomes["outcomes"], end)
        self.state.copurchase.process(out["copurchases"], end)

    def close(self) -> None:
        """Give the state and the files back."""
        self._dead.close()
        self.state.close()


def _shard(block: Block, mine: npt.NDArray[np.bool_], shard: int) -> Block:
    """The rows of one shard; what is told once (rejects) goes to shard 0."""
    return Block(
        pick(block.rows, mine), block.features[mine], block.ranges, block.clock,
        block.names if shard == 0 else no_names(), block.rejected if shard == 0 else {}, block.tops,
    )  # fmt: skip


def read_back(file: LogFile, offsets: list[int]) -> Iterator[tuple[int, bytes]]:
    """The events at some raw rows of a file, as JSON of their canonical fields."""
    wanted = set(offsets)
    for batch in file.batches(offsets[0], 10_000):
        for at in np.flatnonzero(np.isin(batch.offsets, offsets)).tolist():
            record = batch.events.slice(at, 1).to_pylist()[0]
            wanted.discard(int(batch.offsets[at]))
            yield int(batch.offsets[at]), msgspec.json.encode({k: v for k, v in record.items() if v is not None})
        if not wanted:
            return


def _identity(path: Path, known: list[list[Any]]) -> list[Any]:
    """Name, number of first bytes and their digest: what tells one log file from another, also after it has grown.

    A file of a known name must begin with the bytes that it began with, else StateError: its rows could not be told
    from the old ones by place.
    """
    before = next((identity for identity in known if identity[0] == path.name), None)
    size = min(path.stat().st_size, HEAD) if before is None else before[1]
    with path.open("rb") as file:
        head = file.read(size)
    identity = [path.name, size, hashlib.blake2b(head, digest_size=8).hexdigest()]
    if before is not None and identity != before:
        raise StateError(
            f"{path}: the state was made from another file of this name; rename the file, or replay into a new --state"
        )
    return identity
