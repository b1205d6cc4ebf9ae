"""Publishes a log to raw topics: its events as JSON, each to the topic of its type, and heartbeats to all of them.

Events keep their ids, so that what a topic brings again is known; a log without ids gets them from file and row, the
same as in a replay. Rows that are no events go out as the bytes they are, for ingest to judge; what has no topic is
dead-lettered here. Files are merged by running event time, as a replay merges them. Keys are shard keys' texts.

A heartbeat is a row of type `progress` with the greatest time so far, for every partition of every raw topic: it lets
the clock pass where a partition has nothing to say. Some of them are marks: sent once everything before is
acknowledged, they carry how far each file is published. The same command reads the last marks and goes on from there;
of what comes next it sends only what does not stand behind them already: duplicates would count as late rows.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from .broker_error import BrokerError
from .configuration import Configuration
from .dead_letter import DeadLetter, Reason, dead_letter, to_json
from .event import TYPE_NAMES, CanonicalBatch
from .kafka import DEAD_LETTERS, MAX_MESSAGE, internal, partitions, read_on, tail
from .log import open_log
from .log_file import LogFile
from .outbox import Outbox

READ = 8_192
"""Rows read from a file at once."""
LARGEST = MAX_MESSAGE - 1_000
"""Bytes an event may have; a larger one is dead-lettered here, for no broker would take it."""
BEAT_ROWS, BEAT_SECONDS = 1_000, 1.0
"""Rows, or wall time in s, between two heartbeats."""
MARK_ROWS, MARK_SECONDS = 20_000, 5.0
"""Rows, or wall time in s, between two marks. Each waits for the acknowledgements; what is behind one is read again."""
NEVER = -(2**62)
"""The greatest time before the first event."""
TICK = 2_000
"""Rows between two looks at the wall clock, at stop and at progress."""

Progress = Callable[[int, int | None, int], None]


@dataclass
class Published:
    """What was sent.

    Attributes
    ----------
    events, broken : rows sent as events, and as the bytes that are no event
    dead_letters : rows that had no topic or were too large
    heartbeats : progress rows, one each a partition
    resumed : rows that an earlier run had published
    """

    events: int = 0
    broken: int = 0
    dead_letters: int = 0
    heartbeats: int = 0
    resumed: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    topics: dict[str, int] = field(default_factory=dict)


def publish(
    logs: Sequence[str | Path],
    configuration: Configuration,
    *,
    speed: float | None = None,
    close: bool = False,
    again: bool = False,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> Published:
    """Send a log to the raw topics of `configuration.kafka`.

    Parameters
    ----------
    speed : times real time; None: flat out
    close : end with heartbeats far enough ahead that nothing stays held
    again : from the beginning, whatever was published before

    Raises BrokerError, LogError, ConfigurationError.
    """
    return _Publisher(logs, configuration, speed, again).go(close, progress, stop or (lambda: False))


class _Publisher:
    def __init__(
        self, logs: Sequence[str | Path], configuration: Configuration, speed: float | None, again: bool
    ) -> None:
        self._kafka = configuration.kafka
        self._lateness = int(configuration.time.lateness)
        self._speed = speed
        log = open_log(logs, configuration)
        self._files = {file.name: file for file in log.files}
        self._topics: dict[str, str] = {}
        for topic, kind in self._kafka.topics.items():
            self._topics.setdefault(kind, topic)
        self._partitions = partitions(self._kafka, self._kafka.topics)
        missing = [topic for topic, count in self._partitions.items() if not count]
        if missing:
            raise BrokerError(
                f"{self._kafka.brokers}: there is no topic {', '.join(missing)}; run `thalweg topics create --brokers "
                f"{self._kafka.brokers}`"
            )
        self._top = self._beaten = NEVER
        self._there: dict[tuple[str, int], Counter[bytes]] = {}
        self._done = dict.fromkeys(self._files, 0) | ({} if again else self._published())
        self.result = Published(resumed=sum(self._done.values()))
        self._beat_at, self._beat_when = self.result.resumed, time.monotonic()
        self._mark_at, self._mark_when = (self.result.resumed if self._top > NEVER else -MARK_ROWS), time.monotonic()
        # A mark before all of `_there` is passed would hide the rest of it from the next run.
        self._mark_from = self._mark_at + MARK_ROWS if self._there else 0
        self._outbox = Outbox(self._kafka, None)

    def go(self, close: bool, progress: Progress | None, stop: Callable[[], bool]) -> Published:
        """Send all of it, or until `stop`."""
        began = time.monotonic()
        total = sum(file.rows or 0 for file in self._files.values()) or None
        sent = self.result.resumed
        first: tuple[float, int] | None = None
        for key, name, at, what in _merged(self._files, self._done):
            if sent % TICK == 0 or self._speed is not None:
                if stop():
                    self.result.interrupted = True
                    break
                if progress is not None and sent % TICK == 0:
                    progress(sent, total, key)
            if self._speed is not None:
                if first is None and key > NEVER:  # broken rows at the beginning have no time
                    first = time.monotonic(), key
                if first is not None and not self._wait(first, key, stop):
                    self.result.interrupted = True
                    break
            self._beat_if_due(sent, key)
            if isinstance(what, DeadLetter):
                self.broken(what)
            else:
                self.event(what, (name, at, at + 1))
            self._top = max(self._top, key)
            self._done[name] = at + 1
            sent += 1
        if not self.result.interrupted or sent >= self._mark_from:
            self._mark(self._top)
        if close and not self.result.interrupted and self._top > NEVER:
            self._beat(self._top + self._lateness + 1)
        self._outbox.flush()
        self.result.seconds = time.monotonic() - began
        return self.result

    def _beat_if_due(self, sent: int, key: int) -> None:
        """A heartbeat or a mark, so many rows or seconds after the last; the first mark before the first event."""
        if key == NEVER:
            return
        now = time.monotonic() if sent % 50 == 0 else 0.0
        due = sent - self._mark_at >= MARK_ROWS or now - self._mark_when >= MARK_SECONDS
        if due and sent >= self._mark_from:
            self._mark_at, self._mark_when = sent, time.monotonic()
            self._mark(self._top if self._top > NEVER else key)
        elif self._top > self._beaten and (sent - self._beat_at >= BEAT_ROWS or now - self._beat_when >= BEAT_SECONDS):
            self._beat(self._top)
        else:
            return
        self._beat_at, self._beat_when = sent, time.monotonic()

    def _mark(self, ts: int) -> None:
        """A heartbeat that says how far the files are published; all of that is acknowledged before it is sent."""
        self._outbox.flush()
        self._beat(ts, published=self._done)

    def _wait(self, first: tuple[float, int], key: int, stop: Callable[[], bool]) -> bool:
        """Until it is time for a row at `key`; False where it was told to stop."""
        assert self._speed is not None
        due = first[0] + (key - first[1]) / 1000 / self._speed
        while (left := due - time.monotonic()) > 0:
            if stop():
                return False
            time.sleep(min(left, 0.2))
        return True

    def event(self, record: dict[str, Any], place: tuple[str, int, int]) -> None:
        """One event to the topic of its type; a dead letter with its (file, row, line) where it cannot be sent."""
        kind = TYPE_NAMES[record["type"]]
        record["type"] = kind
        topic = self._topics.get(kind) or self._topics.get("")
        value = msgspec.json.encode(record)
        if topic is None or len(value) > LARGEST:
            detail = f"no raw topic takes rows of type {kind}" if topic is None else f"{len(value):,} bytes"
            self._refuse(place, value, Reason.BAD_TYPE if topic is None else Reason.BAD_ROW, detail, kind)
            return
        key = next((record[k] for k in ("user_id", "order_id", "request_id", "event_id") if record.get(k)), "")
        self._send(topic, key, value)
        self.result.events += 1

    def broken(self, letter: DeadLetter) -> None:
        """A row that is no event: the bytes that it is, to the topic of its type; else a dead letter."""
        topic = self._topics.get(letter.type)
        whole = letter.raw is None or len(letter.raw) == letter.length
        if topic is None or not whole:
            self._outbox.send(internal(self._kafka, DEAD_LETTERS), 0, to_json(letter), str(letter.place).encode())
            self.result.dead_letters += 1
            return
        self._send(topic, f"{letter.source}#{letter.row}", letter.raw)
        self.result.broken += 1

    def _refuse(self, place: tuple[str, int, int], value: bytes, reason: Reason, detail: str, kind: str) -> None:
        letter = dead_letter(place, reason, value, detail=detail, kind=kind)
        self._outbox.send(internal(self._kafka, DEAD_LETTERS), 0, to_json(letter), str(letter.place).encode())
        self.result.dead_letters += 1

    def _send(self, topic: str, key: str, value: bytes | None) -> None:
        partition = _partition(key, self._partitions[topic])
        there = self._there.get((topic, partition))
        if there and there[value or b""] > 0:
            there[value or b""] -= 1
            return
        self._outbox.send(topic, partition, value, key.encode())
        self.result.topics[topic] = self.result.topics.get(topic, 0) + 1

    def _beat(self, ts: int, **more: dict[str, int]) -> None:
        """A heartbeat into every partition of every raw topic."""
        if ts == NEVER:
            return
        self._beaten = max(self._beaten, ts)
        value = msgspec.json.encode({"type": "progress", "ts": ts, "event_id": f"heartbeat-{ts}", **more})
        for topic, count in self._partitions.items():
            for partition in range(count):
                self._outbox.send(topic, partition, value, b"heartbeat")
                self.result.heartbeats += 1

    def _published(self) -> dict[str, int]:
        """How far every file was published: the last mark of all, for it was sent when everything before it was there.

        Nothing where a partition has no mark of these files: it is new, or none of them was published. Notes what
        stands behind the marks, and the greatest time that the mark says.
        """
        places = [(topic, partition) for topic, count in self._partitions.items() for partition in range(count)]
        marks = [tail(self._kafka, topic, partition, self._is_own_mark) for topic, partition in places]
        said = [_mark(mark[1]) for mark in marks if mark is not None]
        if len(said) < len(places):
            return {}
        self._top, published = max(said, key=lambda mark: (sum(mark[1].get(name, 0) for name in self._files), mark[0]))
        for (topic, partition), mark in zip(places, marks, strict=True):
            last = tail(self._kafka, topic, partition)
            if mark is not None and last is not None and last[0] > mark[0]:
                behind = read_on(self._kafka, topic, partition, mark[0] + 1, last[0] + 1)
                self._there[topic, partition] = Counter(value or b"" for _, value in behind)
        return {name: published[name] for name in self._files if published.get(name, 0) > 0}

    def _is_own_mark(self, value: bytes | None) -> bool:
        """Whether a message is a mark that names one of these files."""
        return value is not None and b'"published"' in value and bool(self._files.keys() & _mark(value)[1].keys())


def _mark(value: bytes | None) -> tuple[int, dict[str, int]]:
    """The greatest time and how far each file is published, as a mark says; nothing where it is none."""
    try:
        found = msgspec.json.decode(value or b"", type=_Mark)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return NEVER, {}
    return (found.ts, found.published) if found.type == "progress" else (NEVER, {})


class _Mark(msgspec.Struct):
    type: str
    ts: int
    published: dict[str, int]


def _partition(key: str, count: int) -> int:
    if count == 1:
        return 0
    from ..graph_store.hash import hash_text

    return hash_text(key) % count


_Row = tuple[int, str, int, dict[str, Any] | DeadLetter]


def _merged(files: dict[str, LogFile], done: dict[str, int]) -> Iterator[_Row]:
    """Rows of all files by running greatest event time: (that time, file, raw row number, the event or the letter)."""
    return heapq.merge(*(_rows(file, done.get(name, 0)) for name, file in files.items()), key=lambda row: row[0])


def _rows(file: LogFile, start: int) -> Iterator[_Row]:
    top = NEVER
    for batch in file.batches(start, READ):
        rows: list[tuple[int, dict[str, Any] | DeadLetter]] = [(letter.row, letter) for letter in batch.rejects]
        rows += zip(batch.offsets.tolist(), _records(batch), strict=True)
        for at, what in sorted(rows, key=lambda row: row[0]):
            if not isinstance(what, DeadLetter):
                top = max(top, what["ts"])
            yield top, file.name, at, what


def _records(batch: CanonicalBatch) -> Iterator[dict[str, Any]]:
    """Events as plain dicts without what is absent."""
    for record in batch.events.to_pylist():
        yield {name: value for name, value in record.items() if value is not None and value == value}
