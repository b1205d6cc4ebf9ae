"""The ingester: the Kafka side of ingest. Raw topics in, blocks on thalweg.events out, one active at a time.

It keeps nothing: opening, it reads the last block of each shard and goes on behind it. A raw message counts as read
only in a block that is acknowledged, and dead letters are acknowledged before the block that covers them is sent. Which
of several ingesters works is settled by membership: the one to whom the group gives partition 0 of thalweg.events. Two
at work at once do no harm, the marks drop one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from ..graph_store import fault
from .broker_error import BrokerError
from .configuration import Configuration
from .dead_letter import DeadLetter, to_json
from .ingest import Ingest
from .kafka import (
    DEAD_LETTERS,
    internal,
    make_consumer,
    partitions,
    tail,
    topic_ids,
)  # fmt: skip
from .outbox import Outbox
from .row import EVENT_ROW
from .wire import Message, Source, WireError, decode, encode

BATCH = 10_000
"""Raw messages taken at once."""
IN_FLIGHT = 64
"""Blocks on their way; beyond, reading waits."""
REFRESH = 30.0
"""Seconds between looks for raw partitions that were added."""

log = logging.getLogger("thalweg.ingest")


class Ingester:
    """Ingest at work; see the module.

    Parameters
    ----------
    report : told once a second what it does: position of each raw partition, clock, rows a second, idle

    Raises BrokerError or IngestError where it must not go on.

    >>> Ingester(Configuration()).run(stop=lambda: True)  # told to stop before it was elected
    """

    def __init__(self, configuration: Configuration, report: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.configuration = configuration
        self._kafka = configuration.kafka
        self._events = internal(self._kafka, "events")
        self._report = report or (lambda said: None)
        self._linger = int(self._kafka.linger) / 1000
        self._idle_timeout = int(configuration.time.idle_timeout) / 1000
        self.rows = 0
        self.idle_since: float | None = None
        """Moment (monotonic) since which every raw partition is idle and everything is acknowledged."""

    def run(self, stop: Callable[[], bool]) -> None:
        """Work until `stop` says so; stand by while another one works."""
        election = _Election(self._kafka, self._events)
        try:
            while not stop():
                if election.elected():
                    log.info("elected application=%s", self._kafka.application)
                    self._work(stop, election)
                else:
                    time.sleep(0.1)
                    self._report({"standby": True})
        finally:
            election.close()

    def _work(self, stop: Callable[[], bool], election: _Election) -> None:
        sources = raw_partitions(self.configuration)
        last = [self._last(q) for q in range(self._checked_partitions())]
        ingest = Ingest(self.configuration, sources, last, lambda: int(time.time() * 1000))
        consumer = make_consumer(self._kafka, f"{self._kafka.application}-raw")
        outbox = Outbox(self._kafka)
        try:
            _Session(self, ingest, consumer, outbox).go(lambda: stop() or not election.elected())
            outbox.flush()
        finally:
            consumer.close()

    def _checked_partitions(self) -> int:
        wanted = self.configuration.partitions
        found = partitions(self._kafka, [self._events])[self._events]
        if found == 0:
            raise BrokerError(
                f"{self._kafka.brokers}: there is no topic {self._events}; run `thalweg topics create --brokers "
                f"{self._kafka.brokers} --partitions {wanted}`"
            )
        if found != wanted:
            raise BrokerError(
                f"{self._events} has {found} partitions, the configuration says {wanted}; set partitions = {found}, or "
                "take another kafka.application"
            )
        return found

    def _last(self, shard: int) -> Message | None:
        """The last block of a shard; what is no block is passed over."""
        width = len(self.configuration.features)

        def is_block(value: bytes | None) -> bool:
            try:
                decode(value, EVENT_ROW, width)
            except WireError:
                return False
            return True

        found = tail(self._kafka, self._events, shard, is_block)
        return None if found is None else decode(found[1], EVENT_ROW, width)


def raw_partitions(configuration: Configuration) -> list[Source]:
    """Every partition of every raw topic; BrokerError where a topic is missing."""
    kafka = configuration.kafka
    ids = topic_ids(kafka, kafka.topics)
    missing = [topic for topic, identity in ids.items() if identity is None]
    if missing:
        raise BrokerError(
            f"{kafka.brokers}: there is no raw topic {', '.join(missing)}; run `thalweg topics create`, or name your "
            "topics under kafka.topics"
        )
    counts = partitions(kafka, ids)
    return sorted(Source(topic, str(ids[topic]), p) for topic, count in counts.items() for p in range(count))


class _Session:
    """One spell of work: the loop from the consumer through ingest to the outbox."""

    def __init__(self, owner: Ingester, ingest: Ingest, consumer: Consumer, outbox: Outbox) -> None:
        self._owner = owner
        self._kafka = owner.configuration.kafka
        self._ingest = ingest
        self._consumer = consumer
        self._outbox = outbox
        self._index = {(source.topic, source.partition): i for i, source in enumerate(ingest.sources)}
        now = time.monotonic()
        self._heard = dict.fromkeys(self._index.values(), now)
        self._at_end: set[int] = set()
        self._paused: set[int] = set()
        self._moved = now
        self._told = 0.0

    def go(self, stop: Callable[[], bool]) -> None:
        """Until `stop`; then what is at hand is left to the next one, what is on its way is awaited."""
        self._assign()
        looked = time.monotonic()
        while not stop():
            got = self._consume()
            self._idle()
            self._emit()
            self._balance()
            self._tell()
            if not got and time.monotonic() - looked > REFRESH:
                looked = time.monotonic()
                if raw_partitions(self._owner.configuration) != sorted(self._ingest.sources):
                    log.info("raw partitions changed, opening again")
                    return

    def _assign(self) -> None:
        wanted = []
        for i, source in enumerate(self._ingest.sources):
            begin, _ = self._consumer.get_watermark_offsets(TopicPartition(source.topic, source.partition), timeout=20)
            self._ingest.begins(i, max(begin, 0))
            position = self._ingest.positions[i]
            wanted.append(TopicPartition(source.topic, source.partition, position or OFFSET_BEGINNING))
        self._consumer.assign(wanted)
        log.info("opened %s", " ".join(f"{p.topic}/{p.partition}@{max(p.offset, 0)}" for p in wanted))

    def _consume(self) -> int:
        """Read what is there and offer it; the number of messages."""
        wait = 0.01 if self._ingest.waiting else self._owner._linger
        messages = self._consumer.consume(BATCH, timeout=wait)
        now = time.monotonic()
        for place, batch in _by_place(messages).items():
            if place not in self._index:  # the client's own, of no partition
                self._errors(None, [error for error in (message.error() for message in batch) if error is not None])
                continue
            source = self._index[place]
            good = [message for message in batch if message.error() is None]
            if good:
                self._at_end.discard(source)
                self._heard[source] = now
                offsets = np.fromiter((message.offset() for message in good), np.int64, len(good))
                before = self._ingest.positions[source]
                self._ingest.offer(source, offsets, [message.value() for message in good])
                self._owner.rows += self._ingest.positions[source] - before
            if len(good) < len(batch):  # the end of a partition is told behind its last message
                self._errors(source, [error for error in (message.error() for message in batch) if error is not None])
        return len(messages)

    def _errors(self, source: int | None, errors: list[KafkaError]) -> None:
        where = self._kafka.brokers if source is None else str(self._ingest.sources[source])
        for error in errors:
            if source is not None and error.code() == KafkaError._PARTITION_EOF:
                self._at_end.add(source)
            elif source is not None and error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                self._out_of_range(source, error)
            elif error.fatal() or not error.retriable() and error.code() not in _PASSING:
                raise BrokerError(f"{where}: {error.str()}")

    def _out_of_range(self, source: int, error: KafkaError) -> None:
        """What was to be read next is not there: deleted unread, or not written yet where a log was cut off."""
        where = self._ingest.sources[source]
        begin, _ = self._consumer.get_watermark_offsets(TopicPartition(where.topic, where.partition), timeout=20)
        self._ingest.begins(source, begin)
        raise BrokerError(
            f"{where}: offset {self._ingest.positions[source]:,} is not there any more (the log begins at "
            f"{begin:,}): {error.str()}"
        )

    def _idle(self) -> None:
        """A source is idle once all of it was read and nothing came for `time.idle_timeout`."""
        now = time.monotonic()
        for source in self._at_end:
            if now - self._heard[source] >= self._owner._idle_timeout:
                self._ingest.caught_up(source, True)

    def _emit(self) -> None:
        """Send what is ready; what waits for a source that is behind, once it has waited for the linger."""
        now = time.monotonic()
        everything = now - self._moved >= self._owner._linger
        while True:
            blocks, letters = self._ingest.take(everything)
            if not blocks:
                break
            self._moved = now
            self._send(blocks, letters)
        self._outbox.poll()
        while self._outbox.waiting > IN_FLIGHT:
            time.sleep(0.002)
            self._outbox.poll()
        quiet = self._ingest.idle and not self._outbox.waiting
        self._owner.idle_since = (self._owner.idle_since or now) if quiet else None

    def _send(self, blocks: list[tuple[int, Message]], letters: list[DeadLetter]) -> None:
        if letters:
            topic = internal(self._kafka, DEAD_LETTERS)
            for letter in letters:
                self._outbox.send(topic, 0, to_json(letter), str(letter.place).encode())
            self._outbox.flush()
            fault.reach("ingest dead letters sent")
        for shard, message in blocks:
            self._outbox.send(self._owner._events, shard, encode(message))
            fault.reach("ingest between shards")
        fault.reach("ingest block sent")

    def _balance(self) -> None:
        """Pause sources of which very much waits, read on where it has become less."""
        for source, where in enumerate(self._ingest.sources):
            wants = self._ingest.wants(source)
            if wants == (source in self._paused):
                change = self._consumer.resume if wants else self._consumer.pause
                change([TopicPartition(where.topic, where.partition)])
                (self._paused.discard if wants else self._paused.add)(source)

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told < 1.0:
            return
        self._told = now
        self._owner._report(
            {
                "clock": self._ingest.clock, "idle": self._ingest.idle, "rows": self._owner.rows,
                "waiting": self._ingest.waiting, "unacknowledged": self._outbox.waiting,
                "positions": {
                    str(source): self._ingest.positions[i] for i, source in enumerate(self._ingest.sources)
                },
            }
        )  # fmt: skip


_PASSING = (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._RESOLVE)
"""Errors that librdkafka goes on after by itself, when the broker is back."""


def _by_place(messages: list[Any]) -> dict[tuple[str, int], list[Any]]:
    """Messages by topic and partition, in their order."""
    groups: dict[tuple[str, int], list[Any]] = {}
    for message in messages:
        groups.setdefault((message.topic(), message.partition()), []).append(message)
    return groups


class _Election:
    """Membership in a group on thalweg.events: who is given partition 0 is elected."""

    def __init__(self, kafka: Any, topic: str) -> None:
        timeout = int(kafka.session_timeout)
        self._mine = False
        self._consumer = make_consumer(
            kafka, f"{kafka.application}-ingest",
            **{"session.timeout.ms": timeout, "heartbeat.interval.ms": timeout // 5, "auto.offset.reset": "latest"},
        )  # fmt: skip
        self._consumer.subscribe([topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)

    def _assigned(self, consumer: Consumer, given: list[TopicPartition]) -> None:
        consumer.assign(given)
        if given:
            consumer.pause(given)  # nothing is read here
        self._mine = any(each.partition == 0 for each in given)

    def _revoked(self, consumer: Consumer, taken: list[TopicPartition]) -> None:
        self._mine = self._mine and all(each.partition != 0 for each in taken)

    def elected(self) -> bool:
        """Whether this process is the one to work; to be asked often, it keeps the membership alive."""
        try:
            self._consumer.poll(0)
        except KafkaException as error:
            raise BrokerError(f"{error.args[0].str()}") from None
        return self._mine

    def close(self) -> None:
        """Leave the group: the next one is elected at once."""
        self._consumer.close()
