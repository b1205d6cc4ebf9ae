"""Topics, settings and the last message that is there, on a real broker; errors name the broker, waits have bounds."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import NewTopic

from tests.brokers import ApacheKafka, new_kafka
from thalweg.streams import kafka as module
from thalweg.streams import outbox as outbox_module
from thalweg.streams.broker_error import BrokerError
from thalweg.streams.configuration import Kafka
from thalweg.streams.kafka import (
    client_settings,
    create_topics,
    internal,
    internal_topics,
    make_admin,
    make_consumer,
    make_producer,
    partitions,
    read_on,
    tail,
    topic_ids,
    watermarks,
)
from thalweg.streams.outbox import Outbox

pytestmark = pytest.mark.broker
NOBODY = "127.0.0.1:9"


def filled(kafka: Kafka, *batches: list[bytes | None]) -> str:
    """A raw topic with messages on it, each list acknowledged before the next is sent."""
    create_topics(kafka, 1)
    topic, outbox = next(iter(kafka.topics)), Outbox(kafka)
    for batch in batches:
        for value in batch:
            outbox.send(topic, 0, value)
        outbox.flush()
    return topic


def test_topics_are_made_once(kafka: Kafka) -> None:
    made = create_topics(kafka, 3, raw=2)
    assert set(made) == {*internal_topics(kafka, 3), *kafka.topics}
    assert create_topics(kafka, 3, raw=2) == []
    assert create_topics(kafka, 3, raw=5) == []  # a raw topic that is there stays as it is
    found = partitions(kafka, made)
    assert found.pop(internal(kafka, "events")) == 3
    assert {found[topic] for topic in kafka.topics} == {2}
    assert {count for name, count in found.items() if name not in kafka.topics} == {1}


def test_another_number_of_partitions_is_refused_with_both(kafka: Kafka) -> None:
    create_topics(kafka, 3)
    with pytest.raises(BrokerError, match=rf"{kafka.application}\.events has 3 partitions, 4 are asked for"):
        create_topics(kafka, 4)
    assert partitions(kafka, [internal(kafka, "events")]) == {internal(kafka, "events"): 3}


def test_a_missing_topic_has_no_id_and_no_partitions(kafka: Kafka) -> None:
    create_topics(kafka, 1)
    events = internal(kafka, "events")
    ids = topic_ids(kafka, [events, internal(kafka, "labels"), f"{kafka.application}.none"])
    assert ids[f"{kafka.application}.none"] is None
    assert ids[events] and ids[events] != ids[internal(kafka, "labels")]
    assert topic_ids(kafka, []) == {}
    assert partitions(kafka, [f"{kafka.application}.none"]) == {f"{kafka.application}.none": 0}


def test_the_tail_is_the_last_message_whatever_the_batches(kafka: Kafka) -> None:
    """Sent as one batch of 700 and one of 3: one broker's latest offset is that of its last batch."""
    values: list[bytes | None] = [b"%d" % i for i in range(703)]
    topic = filled(kafka, values[:700], values[700:])
    assert tail(kafka, topic, 0) == (702, b"702")
    assert tail(kafka, topic, 0, lambda value: value == b"0") == (0, b"0")
    assert tail(kafka, topic, 0, lambda value: value is not None and value.endswith(b"7")) == (697, b"697")
    assert tail(kafka, topic, 0, lambda value: False) is None
    assert list(read_on(kafka, topic, 0, 0, 703)) == list(enumerate(values))
    assert list(read_on(kafka, topic, 0, 699, 702)) == [(699, b"699"), (700, b"700"), (701, b"701")]
    assert list(read_on(kafka, topic, 0, 5, 5)) == []


class Settling:
    """A consumer whose partition has no leader yet when it is first asked."""

    def __init__(self, code: int) -> None:
        self.asked, self.code = 0, code

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        self.asked += 1
        if self.asked < 3:
            raise KafkaException(KafkaError(self.code))
        return 4, 9


def test_a_partition_that_has_no_leader_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Apache Kafka says for a moment of a topic just made; what does not pass is an error at once."""
    settling: Any = Settling(KafkaError.NOT_LEADER_FOR_PARTITION)
    assert watermarks(Kafka(), settling, "a", 0) == (4, 9) and settling.asked == 3
    denied: Any = Settling(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(BrokerError, match="authorization"):
        watermarks(Kafka(), denied, "a", 0)
    assert denied.asked == 1
    monkeypatch.setattr(module, "TIMEOUT", 0.0)
    with pytest.raises(BrokerError, match="(?i)leader"):
        watermarks(Kafka(), Settling(KafkaError.LEADER_NOT_AVAILABLE), "a", 0)  # type: ignore[arg-type]


def test_the_tail_of_nothing_and_of_a_null(kafka: Kafka) -> None:
    topic = filled(kafka, [b"", None])
    assert tail(kafka, topic, 0) == (1, None)
    assert tail(kafka, list(kafka.topics)[1], 0) is None


def test_an_unreachable_broker_is_one_error_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 1.5)
    kafka = Kafka(brokers=NOBODY, client={"sasl_password": "secret-word"})
    for ask in (
        lambda: create_topics(kafka, 1), lambda: partitions(kafka, ["a"]), lambda: topic_ids(kafka, ["a"]),
        lambda: tail(kafka, "a", 0),
    ):  # fmt: skip
        began = time.monotonic()
        with pytest.raises(BrokerError, match=f"{NOBODY}: the broker does not answer.*is it running") as raised:
            ask()
        assert time.monotonic() - began < 15  # else within 20
        assert "secret-word" not in str(raised.value)


def test_what_cannot_be_delivered_is_raised_by_flush_and_by_the_next_send() -> None:
    kafka = Kafka(brokers=NOBODY)
    outbox = Outbox(kafka, make_producer(kafka, **{"message.timeout.ms": 300}))
    outbox.send("a", 0, b"x")
    with pytest.raises(BrokerError, match="a/0: a message was not delivered"):
        outbox.flush()
    with pytest.raises(BrokerError, match="a/0: a message was not delivered"):
        outbox.send("a", 0, b"y")


def test_what_is_behind_one_that_cannot_be_delivered_does_not_arrive(apache: ApacheKafka) -> None:
    """Else a reader of blocks would meet a hole, for ever."""
    kafka = new_kafka(apache.address)
    topic = next(iter(kafka.topics))
    small = NewTopic(topic, 1, 1, config={"max.message.bytes": "2000"})
    admin = make_admin(kafka)
    admin.create_topics([small])[topic].result()
    outbox = Outbox(kafka, make_producer(kafka, **{"batch.num.messages": 1}))  # else they are refused as one batch
    with pytest.raises(BrokerError, match=rf"{topic}/0: a message was not delivered: .*too large"):
        for i in range(30):
            outbox.send(topic, 0, bytes(5_000 if i == 9 else i))
        outbox.flush()
    with pytest.raises(BrokerError, match="was not delivered"):
        outbox.send(topic, 0, b"x")
    time.sleep(1)
    last = tail(kafka, topic, 0)
    assert last is not None
    assert [len(value or b"") for _, value in read_on(kafka, topic, 0, 0, last[0] + 1)] == list(range(9))


def test_a_broker_that_acknowledges_nothing_is_an_error_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(Kafka(brokers=NOBODY))
    outbox.send("a", 0, b"x")
    outbox.poll()
    monkeypatch.setattr(outbox_module, "OUTAGE", 0.2)
    time.sleep(0.3)
    with pytest.raises(BrokerError, match="nothing was acknowledged for 0 s"):
        outbox.poll()


def test_a_message_larger_than_the_client_takes_is_an_error_of_its_topic(kafka: Kafka) -> None:
    outbox = Outbox(kafka)
    with pytest.raises(BrokerError, match="a/0: .*large"):
        outbox.send("a", 0, bytes(3_000_000))


def test_a_wrong_setting_is_named_without_its_value(kafka: Kafka) -> None:
    with pytest.raises(BrokerError, match="a setting under kafka.client is wrong.*no.such"):
        make_producer(msgspec.structs.replace(kafka, client={"no_such": "secret-word"}))


def test_settings_are_passed_with_dots() -> None:
    said = client_settings(Kafka(brokers="b:1", client={"sasl_mechanism": "PLAIN", "ssl.ca.location": "f"}))
    assert (said["bootstrap.servers"], said["sasl.mechanism"], said["ssl.ca.location"]) == ("b:1", "PLAIN", "f")


def test_the_client_is_imported_only_when_needed_and_its_absence_names_the_extra() -> None:
    program = """
import sys
from thalweg.streams.cli import main
main(["--version"])
assert not any(name.split(".")[0] in ("confluent_kafka", "faust", "aiokafka") for name in sys.modules)
sys.modules["confluent_kafka"] = None
sys.exit(main(["topics", "create", "--brokers", "127.0.0.1:9"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 1, done
    assert done.stderr.strip() == "thalweg: confluent_kafka is not installed; run: pip install 'thalweg[kafka]'"


def test_what_is_set_under_client_goes_before_what_is_preset() -> None:
    """Also where the one makes the other invalid: a least backoff above the most that is preset."""
    kafka = Kafka(client={"reconnect_backoff_ms": "5000", "fetch_wait_max_ms": "7"})
    assert "reconnect.backoff.max.ms" not in client_settings(kafka)
    make_consumer(kafka, "g").close()
    make_producer(kafka)
    assert client_settings(Kafka())["reconnect.backoff.max.ms"] == 1000


def test_told_to_stop_a_flush_waits_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a broker that is away, whenever the stop comes."""
    monkeypatch.setattr(outbox_module, "FAREWELL", 0.2)
    outbox = Outbox(Kafka(brokers=NOBODY))
    outbox.send("a", 0, b"x")
    asked: list[int] = []
    with pytest.raises(BrokerError, match="1 messages are not acknowledged after"):
        outbox.flush(lambda: len(asked) > 1 or bool(asked.append(1)))
    assert len(asked) == 2
