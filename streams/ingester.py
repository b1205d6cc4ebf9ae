"""The ingester: the Kafka side of ingest. Raw topics in, blocks on thalweg.events out, one active at a time.

It keeps nothing: opening, it reads the last block of each shard and goes on behind it. A raw message counts as read
only in a block that is acknowledged, and dead letters are acknowledged before the block that covers them is sent. Which
of several ingesters works is settled by membership: the one to whom the group gives partition 0 of thalweg.events. Two
at work at once do no harm, the marks drop one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import compress
from operator import methodcaller
from typing import Any

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

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
    watermarks,
)  # fmt: skip
from .outbox import Outbox
from .row import EVENT_ROW
from .wire import Message, Source, WireError, decode, encode

BATCH = 10_000
"""Raw messages taken at once."""
IN_FLIGHT = 64
"""Blocks on their way; beyond, reading waits."""
ANSWER = 2.0
"""Seconds that the broker has to say where partitions end that might be idle."""
FAREWELL = 10.0
"""Seconds that leaving the group may take; who does not manage is missed after the session timeout."""
REFRESH = 30.0
"""Seconds between looks for raw partitions that were added."""

_ERROR, _TOPIC, _PARTITION, _OFFSET, _VALUE = map(methodcaller, ("error", "topic", "partition", "offset", "value"))

log = logging.getLogger("thalweg.ingest")


class Ingester:
    """Ingest at work; see the module.

    Parameters
    ----------
    report : told once a second what it does: clock, idle, raw messages read, rows that wait for other partitions,
        blocks not acknowledged, and of each raw partition its position and what is still to be read

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
        told = 0.0
        try:
            while not stop():
                if election.elected():
                    log.info("elected application=%s", self._kafka.application)
                    self._work(stop, election)
                else:
                    time.sleep(0.1)
                    if time.monotonic() - told > 1.0:
                        told = time.monotonic()
                        self._report({"standby": True})
        finally:
            election.close()

    def _work(self, stop: Callable[[], bool], election: _Election) -> None:
        sources = raw_partitions(self.configuration)
        last = [self._last(q) for q in range(self._checked_partitions())]
        ingest = Ingest(self.configuration, sources, last, lambda: int(time.time() * 1000))
        consumer = make_consumer(
            self._kafka, f"{self._kafka.application}-raw", error_cb=lambda error: session.broker_said(error)
        )
        outbox = Outbox(self._kafka)
        session: _Session = _Session(self, ingest, consumer, outbox)
        session.told_to_stop = stop
        try:
            session.go(lambda: stop() or not election.elected())
            outbox.flush(stop)
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


class _Look(threading.Thread):
    """A look at which raw partitions there are, aside: where the broker is away it takes long, and finds nothing."""

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(name="looks for raw partitions", daemon=True)
        self._configuration = configuration
        self.found: list[Source] | None = None
        self.start()

    def run(self) -> None:
        """In the thread."""
        with suppress(BrokerError):
            self.found = raw_partitions(self._configuration)


class _Session:
    """One spell of work: the loop from the consumer through ingest to the outbox."""

    def __init__(self, owner: Ingester, ingest: Ingest, consumer: Consumer, outbox: Outbox) -> None:
        self._owner = owner
        self._kafka = owner.configuration.kafka
        self._ingest = ingest
        self._consumer = consumer
        self._outbox = outbox
        self._index: dict[tuple[Any, Any], int] = {
            (source.topic, source.partition): i for i, source in enumerate(ingest.sources)
        }
        now = time.monotonic()
        self._heard = dict.fromkeys(self._index.values(), now)
        self._at_end: dict[int, int] = {}  # source -> the end that was told; control records may precede it
        self._idles: set[int] = set()
        self._paused: set[int] = set()
        self._moved = self._asked = now
        self._told = 0.0
        self._begins = [0] * len(ingest.sources)
        self.told_to_stop: Callable[[], bool] = lambda: False  # by its owner, not by an election

    def go(self, stop: Callable[[], bool]) -> None:
        """Until `stop`; then what is at hand is left to the next one, what is on its way is awaited."""
        self._assign()
        look, looked = None, time.monotonic()
        while not stop():
            if self._outbox.waiting <= IN_FLIGHT:
                self._consume()
                self._idle()
                self._emit()
            else:  # the broker is behind, or away
                time.sleep(0.002)
            self._outbox.poll()
            self._balance()
            self._tell()
            if look is not None and not look.is_alive():
                if look.found is not None and look.found != sorted(self._ingest.sources):
                    log.info("raw partitions changed, opening again")
                    return
                look = None
            if look is None and time.monotonic() - looked > REFRESH:
                look, looked = _Look(self._owner.configuration), time.monotonic()

    def _assign(self) -> None:
        wanted = []
        for i, source in enumerate(self._ingest.sources):
            begin, _ = watermarks(self._kafka, self._consumer, source.topic, source.partition)
            self._ingest.begins(i, max(begin, 0))
            self._begins[i] = max(begin, 0)
            position = self._ingest.positions[i]
            wanted.append(TopicPartition(source.topic, source.partition, position or OFFSET_BEGINNING))
        self._consumer.assign(wanted)
        log.info("opened %s", " ".join(f"{p.topic}/{p.partition}@{max(p.offset, 0)}" for p in wanted))

    def _consume(self) -> int:
        """Read what is there and offer it; the number of messages."""
        wait = 0.01 if self._ingest.waiting else self._owner._linger
        messages = self._consumer.consume(BATCH, timeout=wait)
        now = time.monotonic()
        good = [error is None for error in map(_ERROR, messages)]
        self._offer(messages if all(good) else list(compress(messages, good)), now)
        for i, fine in enumerate(good):  # the end of a partition is told behind its messages
            if not fine:
                self._error(messages[i])
        return len(messages)

    def _offer(self, messages: list[Any], now: float) -> None:
        """Hand messages over, those of each partition together; `map` of a method caller runs no bytecode a message."""
        places = zip(map(_TOPIC, messages), map(_PARTITION, messages), strict=True)
        sources = np.fromiter(map(self._index.__getitem__, places), np.int64, len(messages))
        if messages:
            self._owner.idle_since = None
        offsets = np.fromiter(map(_OFFSET, messages), np.int64, len(messages))
        values = list(map(_VALUE, messages))
        for source in np.unique(sources).tolist():
            mine = sources == source
            self._at_end.pop(source, None)
            self._idles.discard(source)
            self._heard[source] = now
            before = self._ingest.positions[source]
            self._ingest.offer(source, offsets[mine], list(compress(values, mine)))
            self._owner.rows += self._ingest.positions[source] - before

    def _error(self, told: Any) -> None:
        """What the client says of a partition, or of itself."""
        source, error = self._index.get((told.topic(), told.partition())), told.error()
        if source is not None and error.code() == KafkaError._PARTITION_EOF:
            self._at_end[source] = told.offset() or 0
        elif error.code() in _PASSING and not error.fatal():
            self.broker_said(error)
        elif source is not None and error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            self._out_of_range(source, error)
        elif error.fatal() or not error.retriable():
            where = self._kafka.brokers if source is None else str(self._ingest.sources[source])
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
        """A source is idle once all of it was read, and a broker that was there had nothing for `time.idle_timeout`.

        Those that are idle are asked for again each timeout: a broker that hangs breaks no connection.
        """
        now, timeout = time.monotonic(), self._owner._idle_timeout
        due = [s for s in self._at_end if s not in self._idles and now - self._heard[s] >= timeout]
        if not due and (not self._idles or now - self._asked < timeout):
            return
        self._asked = now
        ends = self._ends([*due, *self._idles])
        if ends is None:
            self._unheard()
            return
        for source, end in ends.items():
            quiet = end <= self._at_end[source]
            if quiet != (source in self._idles):
                self._ingest.caught_up(source, quiet)
                (self._idles.add if quiet else self._idles.discard)(source)
            if not quiet:
                self._heard[source] = now

    def _ends(self, sources: list[int]) -> dict[int, int] | None:
        """Where the broker says, now, that sources end; None where it does not say. One question for all of them: each
        waits for the fetch that is on its way."""
        named = [self._ingest.sources[source] for source in sources]
        asked = [TopicPartition(each.topic, each.partition, OFFSET_END) for each in named]
        try:
            found = self._consumer.offsets_for_times(asked, timeout=ANSWER)
        except KafkaException:
            return None
        if any(each.error is not None for each in found):
            return None
        return {self._index[each.topic, each.partition]: each.offset for each in found}

    def broker_said(self, error: KafkaError) -> None:
        """What the client says of its connections: where one is lost, nobody has been heard."""
        if error.code() in _PASSING:
            self._unheard()

    def _unheard(self) -> None:
        """The broker was away: what it did not bring says nothing. Those who send come back one after the other, so
        no source is idle until the timeout has passed anew; else what the last one brings would be late."""
        now = time.monotonic()
        for source in self._idles:
            self._ingest.caught_up(source, False)
        self._idles.clear()
        self._heard = dict.fromkeys(self._heard, now)

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
        quiet = self._ingest.idle and not self._outbox.waiting
        self._owner.idle_since = (self._owner.idle_since or now) if quiet else None

    def _send(self, blocks: list[tuple[int, Message]], letters: list[DeadLetter]) -> None:
        if letters:
            topic = internal(self._kafka, DEAD_LETTERS)
            for letter in letters:
                self._outbox.send(topic, 0, to_json(letter), str(letter.place).encode())
            self._outbox.flush(self.told_to_stop)
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
                "sources": [self._said(i, source) for i, source in enumerate(self._ingest.sources)],
            }
        )  # fmt: skip

    def _said(self, index: int, source: Source) -> dict[str, Any]:
        """Where a raw partition stands, and how much of it is still to be read, by the ends that fetches told."""
        position = self._ingest.positions[index]
        end = self._consumer.get_watermark_offsets(TopicPartition(source.topic, source.partition), cached=True)[1]
        read = max(position, self._begins[index], self._at_end.get(index, 0))
        return {"source": str(source), "position": position, "behind": max(0, end - read)}


_PASSING = (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._RESOLVE)
"""Errors that librdkafka goes on after by itself, when the broker is back."""


_REFUSED = (
    KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.INVALID_SESSION_TIMEOUT,
    KafkaError.INVALID_GROUP_ID, KafkaError.INCONSISTENT_GROUP_PROTOCOL, KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
)  # fmt: skip
"""Errors after which a group would be waited for in vain."""


class _Election:
    """Membership in a group on thalweg.events: who is given partition 0 is elected."""

    def __init__(self, kafka: Any, topic: str) -> None:
        timeout = int(kafka.session_timeout)
        self._mine, self._group = False, f"{kafka.brokers}: the group {kafka.application}-ingest"
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
            told = self._consumer.poll(0)
        except KafkaException as error:
            raise BrokerError(f"{error.args[0].str()}") from None
        said = None if told is None else told.error()
        if said is not None and (said.fatal() or said.code() in _REFUSED):
            raise BrokerError(f"{self._group}: {said.str()}")
        return self._mine

    def close(self) -> None:
        """Leave the group: the next one is elected at once. No stop waits for it beyond `FAREWELL`."""
        leaving = threading.Thread(target=self._leave, name="leaves the group", daemon=True)
        leaving.start()
        leaving.join(FAREWELL)

    def _leave(self) -> None:
        """An assignment on its way is met before the client is closed: within that it can wait for ever (seen once)."""
        with suppress(KafkaException):
            self._consumer.unsubscribe()
            for _ in range(2):
                self._consumer.poll(0.05)
        self._consumer.close()
