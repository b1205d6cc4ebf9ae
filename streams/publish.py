"""Publishes a log to raw topics: its events as JSON, each to the topic of its type, and heartbeats to all of them.

Events keep their ids, so that what a topic brings again is known; a log without ids gets them from file and row, the
same as in a replay. Rows that are no events go out as the bytes they are, for ingest to judge; what has no topic is
dead-lettered here. Files are merged by running event time, as a replay merges them. Keys are shard keys' texts.

A heartbeat is a row of type `progress` with the greatest time so far, for every partition of every raw topic: it lets
the clock pass where a partition has nothing to say. Some of them are marks: sent once everything before is
acknowledged, they carry how far each file is published, and how it begins. The same command reads the last marks and
goes on from there; of what comes next it sends only what does not stand behind them already: duplicates would count as
late rows.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from .broker_error import BrokerError
from .configuration import Configuration
from .dead_letter import DeadLetter, Reason, dead_letter, to_json
from .event import TYPE_NAMES, CanonicalBatch
from .instant import MILLISECONDS_BELOW, SECONDS_BELOW, from_text
from .kafka import DEAD_LETTERS, internal, largest_message, make_producer, partitions, read_on, tail
from .log import open_log
from .log_file import LogError, LogFile
from .outbox import Outbox
from .row import Type

READ = 8_192
"""Rows read from a file at once."""
OVERHEAD = 1_000
"""Bytes that a message may need around key and value. What is then more than its topic takes is dead-lettered here."""
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
    speed : times real time, above 0; None: flat out
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
        self._unit = configuration.time.unit
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
        self._unmarked: list[tuple[str, int]] = []
        self._stop: Callable[[], bool] = lambda: False
        self._first = {name: first for name, file in self._files.items() if (first := _first(file))}
        self._done = dict.fromkeys(self._files, 0) | ({} if again else self._published())
        self.result = Published(resumed=sum(self._done.values()))
        self._beat_at, self._beat_when = self.result.resumed, time.monotonic()
        self._mark_at, self._mark_when = (self.result.resumed if self._top > NEVER else -MARK_ROWS), time.monotonic()
        # A mark before all of `_there` is passed would hide the rest of it from the next run.
        self._mark_from = self._mark_at + MARK_ROWS if self._there else 0
        self._largest = largest_message(self._kafka, self._partitions)
        # A broker measures batches: one of many small events must not be larger than one event may be.
        self._outbox = Outbox(self._kafka, make_producer(self._kafka, **{"batch.size": self._largest - OVERHEAD}))

    def go(self, close: bool, progress: Progress | None, stop: Callable[[], bool]) -> Published:
        """Send all of it, or until `stop`."""
        self._stop = stop
        began = time.monotonic()
        total = sum(file.rows or 0 for file in self._files.values()) or None
        sent = self.result.resumed
        first: tuple[float, int] | None = None
        if self._unmarked:
            self._beat(self._top, self._unmarked, published=self._done, first=self._first)
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
        self._outbox.flush(self._stop)
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
        self._outbox.flush(self._stop)
        self._beat(ts, published=self._done, first=self._first)

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
        if record["type"] == Type.PROGRESS:
            self._beat(max(self._top, record["ts"]))
            return
        record["type"], record["ts"] = kind, self._when(record["ts"])
        topic = self._topics.get(kind) or self._topics.get("")
        value = msgspec.json.encode(record)
        key = next((record[k] for k in ("user_id", "order_id", "request_id", "event_id") if record.get(k)), "")
        if topic is None or not self._fits(key, value):
            detail = f"no raw topic takes rows of type {kind}" if topic is None else self._too_large(value)
            self._refuse(place, value, Reason.BAD_TYPE if topic is None else Reason.BAD_ROW, detail, kind)
            return
        self._send(topic, key, value)
        self.result.events += 1

    def broken(self, letter: DeadLetter) -> None:
        """A row that is no event: the bytes that it is, to the topic of its type; else a dead letter."""
        topic = self._topics.get(letter.type) or self._topics.get("")
        key = f"{letter.source}#{letter.row}"
        whole = letter.raw is None or len(letter.raw) == letter.length and self._fits(key, letter.raw)
        if topic is None or not whole:
            self._outbox.send(internal(self._kafka, DEAD_LETTERS), 0, to_json(letter), str(letter.place).encode())
            self.result.dead_letters += 1
            return
        self._send(topic, key, letter.raw)
        self.result.broken += 1

    def _fits(self, key: str, value: bytes) -> bool:
        return len(key.encode()) + len(value) + OVERHEAD <= self._largest

    def _too_large(self, value: bytes) -> str:
        return f"{len(value):,} bytes; the raw topics take {self._largest:,} a message (max.message.bytes)"

    def _refuse(self, place: tuple[str, int, int], value: bytes, reason: Reason, detail: str, kind: str) -> None:
        letter = dead_letter(place, reason, value, detail=detail, kind=kind)
        self._outbox.send(internal(self._kafka, DEAD_LETTERS), 0, to_json(letter), str(letter.place).encode())
        self.result.dead_letters += 1

    def _send(self, topic: str, key: str, value: bytes | None) -> None:
        partition = _partition(key, self._partitions[topic])
        there = self._there.get((topic, partition))
        if there and there[name := _short(value)] > 0:
            there[name] -= 1
            return
        self._outbox.send(topic, partition, value, key.encode())
        self.result.topics[topic] = self.result.topics.get(topic, 0) + 1

    def _when(self, ts: int) -> int | str:
        """A time as ingest is to read it: ms, or text where it would take the number for another unit."""
        if self._unit == "ms" or (self._unit == "auto" and SECONDS_BELOW <= ts < MILLISECONDS_BELOW):
            return ts
        return f"{np.datetime64(ts, 'ms')}Z"

    def _beat(self, ts: int, to: Sequence[tuple[str, int]] | None = None, **more: Mapping[str, Any]) -> None:
        """A heartbeat into every partition of every raw topic, or into those named."""
        if ts == NEVER:
            return
        self._beaten = max(self._beaten, ts)
        value = msgspec.json.encode({"type": "progress", "ts": self._when(ts), "event_id": f"heartbeat-{ts}", **more})
        for topic, partition in self._places() if to is None else to:
            self._outbox.send(topic, partition, value, b"heartbeat")
            self.result.heartbeats += 1

    def _places(self) -> list[tuple[str, int]]:
        return [(topic, partition) for topic, count in self._partitions.items() for partition in range(count)]

    def _published(self) -> dict[str, int]:
        """How far every file was published: the last mark of all, for it was sent when everything before it was there.

        Nothing where a partition has no mark of these files: it is new, or none of them was published. Notes what
        stands behind the mark, the partitions that have an earlier one only, behind which nothing of the rest can
        stand yet, and the greatest time that the mark says. LogError where a file is another one than that published.
        """
        places = self._places()
        marks = [tail(self._kafka, topic, partition, self._is_own_mark) for topic, partition in places]
        said = [_mark(mark[1]) for mark in marks if mark is not None]
        if len(said) < len(places):
            return {}
        stand = [(*(mark.published.get(name, 0) for name in self._files), mark.at) for mark in said]
        furthest = max(stand, key=lambda each: (sum(each[:-1]), each[-1]))
        best = said[stand.index(furthest)]
        self._top = best.at
        for name, first in best.first.items():
            if self._first.get(name, first) != first:
                raise LogError(
                    f"{self._files[name].path}: another file of that name, which begins otherwise, was published to "
                    "these topics before; rename this one, or send it whole with --again"
                )
        for (topic, partition), mark, own in zip(places, marks, stand, strict=True):
            if own != furthest:
                self._unmarked.append((topic, partition))
                continue
            last = tail(self._kafka, topic, partition)
            if mark is not None and last is not None and last[0] > mark[0]:
                behind = read_on(self._kafka, topic, partition, mark[0] + 1, last[0] + 1)
                self._there[topic, partition] = Counter(_short(value) for _, value in behind)
        return {name: best.published[name] for name in self._files if best.published.get(name, 0) > 0}

    def _is_own_mark(self, value: bytes | None) -> bool:
        """Whether a message is a mark that names one of these files."""
        if value is None or b'"published"' not in value:
            return False
        return bool(self._files.keys() & _mark(value).published.keys())


class _Mark(msgspec.Struct):
    """How far each file is published, how it begins, and the greatest time so far."""

    type: str
    ts: int | str
    published: dict[str, int]
    first: dict[str, str] = {}

    @property
    def at(self) -> int:
        """Its time in ms."""
        return self.ts if isinstance(self.ts, int) else from_text(self.ts)


def _mark(value: bytes | None) -> _Mark:
    """The mark that a message is; one that says nothing where it is none."""
    try:
        found = msgspec.json.decode(value or b"", type=_Mark)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _Mark("", NEVER, {})
    return found if found.type == "progress" else _Mark("", NEVER, {})


def _short(value: bytes | None) -> bytes:
    """What stands for a message that is there already: what waits behind a mark can be many."""
    return blake2b(value or b"", digest_size=16).digest()


def _first(file: LogFile) -> str:
    """What a file's first row says, shortened: it tells a file that has grown from another of its name. "": no row."""
    for batch in file.batches(0, 1):
        for letter in batch.rejects:
            return _short(letter.raw).hex()
        for record in _records(batch):
            said = [record.get(name) for name in ("event_id", "type", "ts", "user_id", "item_id")]
            return _short(msgspec.json.encode(said)).hex()
    return ""


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
