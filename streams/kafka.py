"""Kafka through confluent-kafka: settings, producers, topics, and the last message that is really there.

Every wait has a bound, and every error names the broker or the topic, what is wrong and the mend. Settings of
`kafka.client` go to librdkafka as they are and are printed nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from .broker_error import BrokerError

try:
    from confluent_kafka import (
        OFFSET_BEGINNING,
        Consumer,
        KafkaError,
        KafkaException,
        Producer,
        TopicCollection,
        TopicPartition,
    )
    from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
except ModuleNotFoundError as error:
    raise BrokerError(f"{error.name} is not installed; run: pip install 'thalweg[kafka]'") from None

from .configuration import Kafka
from .topology import FLOWS

TIMEOUT = 20.0
"""Seconds that a broker has to answer."""

FETCH_WAIT = 100
"""Milliseconds that a broker may hold back a fetch for which it has nothing. The embedded broker looks again after half
of it only."""

MAX_MESSAGE, TAKEN = 1_000_000, 1_048_588
"""Bytes of one message: below what brokers take unless told otherwise, and what internal topics are told to take."""

DEAD_LETTERS = "dead_letters"


def client_settings(kafka: Kafka) -> dict[str, Any]:
    """librdkafka's settings: the brokers and `kafka.client`, underscores as dots.

    >>> client_settings(Kafka(brokers="b:1", client={"security_protocol": "SSL"}))["security.protocol"]
    'SSL'
    """
    said = {key if key == "log_level" else key.replace("_", "."): value for key, value in kafka.client.items()}
    # 2: librdkafka's own lines about every try to connect stay out of the terminal; what fails is raised as one error
    # A broker that comes back is met by all of them within a second, not by one at once and by the next after ten
    soon = {} if "reconnect.backoff.ms" in said else {"reconnect.backoff.max.ms": 1000}
    return {"bootstrap.servers": kafka.brokers, "log_level": 2, **soon, **said}


def internal(kafka: Kafka, topic: str) -> str:
    """Name of an internal topic on the broker.

    >>> internal(Kafka(), "events")
    'thalweg.events'
    """
    return f"{kafka.application}.{topic}"


def internal_topics(kafka: Kafka, partitions: int) -> dict[str, int]:
    """Every internal topic and its number of partitions: events has `partitions`, the others one.

    >>> {name: count for name, count in internal_topics(Kafka(), 4).items() if count > 1}
    {'thalweg.events': 4}
    """
    names = {flow.reads for flow in FLOWS} | {name for flow in FLOWS for name in flow.writes} | {DEAD_LETTERS}
    return {internal(kafka, name): partitions if name == "events" else 1 for name in sorted(names)}


def _client(kind: Any, kafka: Kafka, **more: Any) -> Any:
    try:
        return kind({**client_settings(kafka), **more})
    except (KafkaException, ValueError, TypeError) as error:
        reason = error.args[0].str() if error.args and isinstance(error.args[0], KafkaError) else error
        raise BrokerError(f"{kafka.brokers}: a setting under kafka.client is wrong: {reason}") from None


def make_admin(kafka: Kafka) -> AdminClient:
    """An admin client; keep it in a variable until its futures are done.

    >>> make_admin(Kafka(client={"no_such": "1"}))
    Traceback (most recent call last):
    thalweg.streams.broker_error.BrokerError: 127.0.0.1:9092: a setting under kafka.client is wrong: No such ...
    """
    return _client(AdminClient, kafka)


def make_producer(kafka: Kafka, **more: Any) -> Producer:
    """An idempotent producer that waits for all replicas. Blocks are compressed already; it compresses nothing.

    What it sends arrives as a prefix of what it was given, whatever fails: it lets no message time out, which would
    leave a hole that no reader gets past, and stops for good at one that cannot be delivered. Whoever waits for
    acknowledgements bounds that, see `Outbox`.

    >>> type(make_producer(Kafka())).__name__
    'Producer'
    """
    settings = {
        "enable.idempotence": True, "enable.gapless.guarantee": True, "message.timeout.ms": 0, "acks": "all",
        "linger.ms": 2, "message.max.bytes": MAX_MESSAGE + 100_000,
    }  # fmt: skip
    return _client(Producer, kafka, **{**settings, **more})


def make_consumer(kafka: Kafka, group: str, **more: Any) -> Consumer:
    """A consumer that commits nothing by itself and reports the end of a partition."""
    settings = {
        "group.id": group, "enable.auto.commit": False, "enable.partition.eof": True, "auto.offset.reset": "error",
        "fetch.wait.max.ms": client_settings(kafka).get("fetch.wait.max.ms", FETCH_WAIT),
        "fetch.queue.backoff.ms": 2,  # librdkafka else pauses for 1 s whenever its queue is full
        "allow.auto.create.topics": False,
    }  # fmt: skip
    return _client(Consumer, kafka, **{**settings, **more})


def _reach(kafka: Kafka, error: Exception) -> BrokerError:
    found = error.args[0] if error.args else error
    said = found.str() if isinstance(found, KafkaError) else str(found)
    return BrokerError(f"{kafka.brokers}: the broker does not answer ({said}); is it running, is the address right?")


def metadata(kafka: Kafka, admin: AdminClient | None = None) -> Any:
    """The cluster's metadata; BrokerError where no broker answers within `TIMEOUT`."""
    try:
        return (admin or make_admin(kafka)).list_topics(timeout=TIMEOUT)
    except KafkaException as error:
        raise _reach(kafka, error) from None


def partitions(kafka: Kafka, names: Iterable[str]) -> dict[str, int]:
    """Number of partitions of each topic; 0 where it is missing."""
    known = metadata(kafka).topics
    return {name: len(known[name].partitions) if name in known else 0 for name in names}


def topic_ids(kafka: Kafka, names: Iterable[str]) -> dict[str, str | None]:
    """Id that the broker gave each topic, another one after it is made again; None where it is missing."""
    admin, wanted = make_admin(kafka), list(names)
    metadata(kafka, admin)
    out: dict[str, str | None] = {}
    if not wanted:
        return out
    for name, future in admin.describe_topics(TopicCollection(wanted), request_timeout=TIMEOUT).items():
        try:
            out[name] = str(future.result(TIMEOUT).topic_id)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise _reach(kafka, error) from None
            out[name] = None
    return out


def largest_message(kafka: Kafka, names: Iterable[str]) -> int:
    """Bytes of the largest message that all of these topics take, `MAX_MESSAGE` at most, or where they do not say."""
    admin, wanted = make_admin(kafka), [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
    least = MAX_MESSAGE
    for future in admin.describe_configs(wanted, request_timeout=TIMEOUT).values() if wanted else ():
        try:
            least = min(least, int(future.result(TIMEOUT)["max.message.bytes"].value))
        except (KafkaException, KeyError, TypeError, ValueError):  # not for us to see, or not known there
            continue
    return least


def create_topics(kafka: Kafka, events: int, raw: int = 1) -> list[str]:
    """Make the topics that are missing: events with `events` partitions, raw ones with `raw`; the names made.

    BrokerError where thalweg.events exists with another number of partitions.
    """
    wanted = {**internal_topics(kafka, events), **dict.fromkeys(kafka.topics, raw)}
    known = partitions(kafka, wanted)
    name = internal(kafka, "events")
    if known[name] not in (0, events):
        raise BrokerError(
            f"{name} has {known[name]} partitions, {events} are asked for: the number is fixed for an application; ask "
            f"for {known[name]}, or take another kafka.application"
        )
    return _create(kafka, {topic: count for topic, count in wanted.items() if not known[topic]})


def _create(kafka: Kafka, missing: dict[str, int]) -> list[str]:
    admin, made = make_admin(kafka), []
    if not missing:
        return []
    mine = f"{kafka.application}."
    new = [
        NewTopic(
            topic, num_partitions=count, replication_factor=-1,
            config={"max.message.bytes": str(TAKEN)} if topic.startswith(mine) and topic not in kafka.topics else {},
        )
        for topic, count in missing.items()
    ]  # fmt: skip
    for topic, future in admin.create_topics(new, request_timeout=TIMEOUT).items():
        try:
            future.result(TIMEOUT)
            made.append(topic)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise BrokerError(f"{kafka.brokers}: {topic} cannot be made: {error.args[0].str()}") from None
    _await_topics(kafka, missing)
    return sorted(made)


def _await_topics(kafka: Kafka, names: Iterable[str]) -> None:
    """A topic just made is not known everywhere at once."""
    until = time.monotonic() + TIMEOUT
    while not all(partitions(kafka, names).values()):
        if time.monotonic() > until:
            raise BrokerError(f"{kafka.brokers}: topics that were made do not appear within {TIMEOUT:.0f} s")
        time.sleep(0.1)


def read_on(kafka: Kafka, topic: str, partition: int, begin: int, end: int) -> Iterator[tuple[int, bytes | None]]:
    """Messages (offset, value) of a partition from `begin` up to offset `end`; BrokerError where they are not there."""
    if begin >= end:
        return
    consumer = make_consumer(kafka, f"{kafka.application}-read")
    try:
        consumer.assign([TopicPartition(topic, partition, begin or OFFSET_BEGINNING)])
        until = time.monotonic() + TIMEOUT
        while time.monotonic() < until:
            for message in consumer.consume(500, timeout=0.05):
                until = time.monotonic() + TIMEOUT
                error = message.error()
                if error is None:
                    offset = int(message.offset() or 0)
                    yield offset, message.value()
                    if offset + 1 >= end:
                        return
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise BrokerError(f"{topic}/{partition} offset {begin:,}: cannot be read: {error.str()}")
        raise BrokerError(f"{kafka.brokers}: {topic}/{partition} cannot be read within {TIMEOUT:.0f} s")
    finally:
        consumer.close()


def tail(kafka: Kafka, topic: str, partition: int, accept: Any = None) -> tuple[int, bytes | None] | None:
    """The last message that is there, (offset, value), or the last one that `accept(value)` takes; None where none is.

    Read to the end of the log that a fetch reports: one broker's offset of "the latest" is that of its last batch.
    """
    # The end is reported by a fetch that found nothing, and a broker holds that back for half a second unless told.
    consumer = make_consumer(kafka, f"{kafka.application}-tail", **{"fetch.wait.max.ms": 20})
    try:
        low, high = watermarks(kafka, consumer, topic, partition)
        start, found = max(low, high - 1), None
        while True:
            found = _read_to_end(kafka, consumer, TopicPartition(topic, partition, start), accept) or found
            if found is not None or start <= low:
                return found
            start = max(low, start - 2 * (high - start) - 1)  # go back until something is accepted
    finally:
        consumer.close()


def end_of(kafka: Kafka, topic: str, partition: int) -> int:
    """Offset behind the last message that was ever there: also where everything has expired."""
    last = tail(kafka, topic, partition)
    if last is not None:
        return last[0] + 1
    consumer = make_consumer(kafka, f"{kafka.application}-tail")
    try:
        return watermarks(kafka, consumer, topic, partition)[1]
    finally:
        consumer.close()


_SETTLING = (
    KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC,
)  # fmt: skip
"""Errors about a partition that pass by themselves: its topic was just made, or its leader moves."""


def watermarks(kafka: Kafka, consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    """Offset of the first message, and behind the last one, as the broker says; BrokerError where it does not."""
    until = time.monotonic() + TIMEOUT
    while True:
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT)
            return low, high
        except KafkaException as error:
            if error.args[0].code() not in _SETTLING or time.monotonic() > until:
                raise _reach(kafka, error) from None
            time.sleep(0.1)


def _read_to_end(
    kafka: Kafka, consumer: Consumer, start: TopicPartition, accept: Any
) -> tuple[int, bytes | None] | None:
    if start.offset <= 0:
        start.offset = OFFSET_BEGINNING
    consumer.assign([start])
    found = None
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until:
        for message in consumer.consume(500, timeout=0.05):
            until = time.monotonic() + TIMEOUT
            error = message.error()
            if error is None:
                if accept is None or accept(message.value()):
                    found = (int(message.offset() or 0), message.value())
            elif error.code() == KafkaError._PARTITION_EOF:
                return found
            else:
                raise BrokerError(f"{start.topic}/{start.partition}: cannot be read: {error.str()}")
    raise BrokerError(f"{kafka.brokers}: {start.topic}/{start.partition} cannot be read within {TIMEOUT:.0f} s")
