"""Raw messages read again for their dead letters: the bytes at a place, or a remark why they cannot be had."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import TopicPartition

from tests.brokers import ApacheKafka, delete_topic, new_kafka
from thalweg.streams.configuration import Kafka
from thalweg.streams.kafka import create_topics, make_admin, topic_ids
from thalweg.streams.outbox import Outbox
from thalweg.streams.raw_reader import ELSEWHERE, GONE, RawReader
from thalweg.streams.wire import Source

pytestmark = pytest.mark.broker
VALUES = (b"{}", None, b"", b"\xff\x00" * 40_000)


def filled(kafka: Kafka) -> Source:
    """A raw topic of two partitions, with messages on the second."""
    create_topics(kafka, 1, raw=2)
    topic, outbox = next(iter(kafka.topics)), Outbox(kafka)
    for value in VALUES:
        outbox.send(topic, 1, value)
    outbox.flush()
    return Source(topic, str(topic_ids(kafka, [topic])[topic]), 1)


@pytest.fixture
def source(kafka: Kafka) -> Source:
    return filled(kafka)


@pytest.fixture
def reader(kafka: Kafka) -> Iterator[RawReader]:
    reader = RawReader(kafka)
    yield reader
    reader.close()


def read(reader: RawReader, source: Source, *offsets: int) -> list[tuple[int, bytes | None, str]]:
    """What is read at these places: (offset, bytes, remark)."""
    again = list(reader.read([(source, offset) for offset in offsets]))
    assert {each.name for each in again} == {str(source)}
    return [(each.offset, each.raw, each.detail) for each in again]


def test_the_bytes_at_each_place(source: Source, reader: RawReader) -> None:
    """All at once in the order of their places, some of them, one before those that were read."""
    assert read(reader, source, 3, 0, 2, 1, 3) == [(offset, value, "") for offset, value in enumerate(VALUES)]
    assert read(reader, source, 3, 1) == [(1, VALUES[1], ""), (3, VALUES[3], "")]
    assert read(reader, source, 0) == [(0, VALUES[0], "")]


def test_many_places_are_one_pass_and_far_ones_a_jump(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand in 20,000 messages within seconds; with a stride of 5 each is jumped to."""
    create_topics(kafka, 1)
    topic, outbox = next(iter(kafka.topics)), Outbox(kafka)
    for n in range(20_000):
        outbox.send(topic, 0, b"%d" % n)
    outbox.flush()
    source, reader = Source(topic, str(topic_ids(kafka, [topic])[topic]), 0), RawReader(kafka)
    assert read(reader, source, *range(7, 20_000, 20)) == [(n, b"%d" % n, "") for n in range(7, 20_000, 20)]
    monkeypatch.setattr("thalweg.streams.raw_reader.STRIDE", 5)
    assert read(reader, source, 3, 9_000, 19_999) == [(n, b"%d" % n, "") for n in (3, 9_000, 19_999)]
    reader.close()


def test_a_place_without_a_message_says_so(source: Source, reader: RawReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the end, and in the partition that has none; within the bound."""
    monkeypatch.setattr("thalweg.streams.raw_reader.LOOKS", 20)
    reader.read([(source, 0)])
    assert read(reader, source, 2, 77) == [(2, VALUES[2], ""), (77, None, GONE)]
    assert read(reader, source, 77) == [(77, None, GONE)]
    assert read(reader, source._replace(partition=0), 0) == [(0, None, GONE)]
    assert read(reader, source, 0) == [(0, VALUES[0], "")], "and the next one is read"


def test_a_topic_that_is_gone_or_made_again_has_other_messages(source: Source, kafka: Kafka) -> None:
    delete_topic(kafka, source.topic)
    for again in (False, True):
        if again:
            assert filled(kafka).id != source.id
        reader = RawReader(kafka)
        assert read(reader, source, 0, 1) == [(0, None, GONE), (1, None, GONE)]
        reader.close()


def test_what_expired_says_so(apache: ApacheKafka) -> None:
    kafka = new_kafka(apache.address)
    source = filled(kafka)
    admin = make_admin(kafka)
    for future in admin.delete_records([TopicPartition(source.topic, 1, 2)]).values():
        future.result(20)
    reader = RawReader(kafka)
    assert read(reader, source, 0, 1, 3) == [(0, None, GONE), (1, None, GONE), (3, VALUES[3], "")]
    assert read(reader, source, 0) == [(0, None, GONE)]
    reader.close()


def test_a_row_of_a_log_file_stands_in_that_file(reader: RawReader) -> None:
    file = Source("log.jsonl", "", None)  # type: ignore[arg-type]
    assert list(reader.read([(file, 4)])) == [(file, 4, "log.jsonl", None, ELSEWHERE)]
