"""The ingester on a real broker: each raw message once in the shards, through stops, kills, stand-by and rubbish."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka import OFFSET_END, KafkaError, KafkaException, TopicPartition

from tests.brokers import delete_topic
from tests.live import Live
from tests.streams.test_ingest import Seen, event
from thalweg.streams.broker_error import BrokerError
from thalweg.streams.configuration import Configuration, Kafka, from_builtins
from thalweg.streams.ingest import Ingest, IngestError
from thalweg.streams.ingest_process import IngestProcess
from thalweg.streams.ingester import IN_FLIGHT, Ingester, _Election, _Look, _Session, raw_partitions
from thalweg.streams.kafka import create_topics, internal, read_on, tail
from thalweg.streams.outbox import Outbox
from thalweg.streams.row import EVENT_ROW
from thalweg.streams.wire import Message, Source, decode

pytestmark = pytest.mark.broker
BROKEN = (b"{", b"[]", b'{"type": "forget", "ts": 1}')


def configured(kafka: Kafka, partitions: int = 2) -> Configuration:
    """Two raw topics, which become idle after .3 s."""
    raw = {"partitions": partitions, "time": {"idle_timeout": "300ms"}}
    topics = {f"{kafka.application}.clicks": "click", f"{kafka.application}.mixed": ""}
    return msgspec.structs.replace(from_builtins(raw), kafka=msgspec.structs.replace(kafka, topics=topics))


def send(configuration: Configuration, number: int, values: list[bytes]) -> None:
    """Messages onto partition 0 of a raw topic."""
    outbox = Outbox(configuration.kafka)
    for value in values:
        outbox.send(list(configuration.kafka.topics)[number], 0, value)
    outbox.flush()


def clicks(first: int, count: int, broken: int = 0) -> list[bytes]:
    """Clicks in the order of their time, and what is none among them."""
    values = [event(i * 1_000, i, item_id=f"i{i % 7}") for i in range(first, first + count)]
    return values + [BROKEN[i % 3] for i in range(broken)]


def values_on(configuration: Configuration, topic: str, partition: int = 0) -> list[bytes | None]:
    """Every message of an internal topic's partition."""
    name = internal(configuration.kafka, topic)
    last = tail(configuration.kafka, name, partition)
    return [] if last is None else [v for _, v in read_on(configuration.kafka, name, partition, 0, last[0] + 1)]


def blocks(configuration: Configuration, shard: int) -> list[Message]:
    """What stands on a shard of thalweg.events, rubbish left out."""
    return [decode(v, EVENT_ROW, 0) for v in values_on(configuration, "events", shard) if v and len(v) > 20]


def offsets(configuration: Configuration) -> list[tuple[int, int]]:
    """(source, offset) of the rows and rejects that the shards' stages take, with marks and gap check."""
    out: list[tuple[int, int]] = []
    for q in range(configuration.partitions):
        seen = Seen.of(blocks(configuration, q), sources=2)
        out += seen.places + seen.rejects
    return sorted(out)


def rejected(configuration: Configuration) -> list[tuple[str, int]]:
    """Places of the dead letters."""
    letters = [json.loads(value or b"") for value in values_on(configuration, "dead_letters")]
    return [(letter["source"], letter["row"]) for letter in letters]


def expected(first: int, second: int) -> list[tuple[int, int]]:
    """Every offset of both raw partitions."""
    return [(0, i) for i in range(first)] + [(1, i) for i in range(second)]


@contextmanager
def working(configuration: Configuration, reports: list[dict[str, Any]] | None = None) -> Iterator[Ingester]:
    """An ingester in a thread; what it raised is raised here."""
    stopped, failed = threading.Event(), []
    ingester = Ingester(configuration, reports.append if reports is not None else None)

    def work() -> None:
        try:
            ingester.run(stopped.is_set)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)  # one that hangs fails its test, not the whole run
    thread.start()
    try:
        yield ingester
    finally:
        stopped.set()
        thread.join(30)
    assert not thread.is_alive()
    if failed:
        raise failed[0]


def wait_for(happened: Callable[[], object], seconds: float = 600) -> None:
    """Until it happened."""
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def ingest_all(configuration: Configuration) -> list[dict[str, Any]]:
    """Ingest until every partition is idle and everything acknowledged; what was reported."""
    reports: list[dict[str, Any]] = []
    with working(configuration, reports) as ingester:
        wait_for(lambda: ingester.idle_since is not None)
    return reports


@pytest.fixture
def configuration(kafka: Kafka) -> Configuration:
    """With its topics made."""
    configuration = configured(kafka)
    create_topics(configuration.kafka, configuration.partitions)
    return configuration


@pytest.mark.slow
def test_everything_once_through_stops(configuration: Configuration) -> None:
    """What comes while it works, and while it does not; each dead letter once; idle at the end."""
    send(configuration, 0, clicks(0, 300, broken=3))
    ingest_all(configuration)
    assert offsets(configuration) == expected(303, 0)
    send(configuration, 0, clicks(300, 100))
    with working(configuration) as ingester:
        wait_for(lambda: ingester.idle_since is not None)
        send(configuration, 1, clicks(400, 50, broken=2))
        wait_for(lambda: len(values_on(configuration, "dead_letters")) == 5)
        wait_for(lambda: ingester.idle_since is not None)
    assert offsets(configuration) == expected(403, 52)
    letters = rejected(configuration)
    assert len(set(letters)) == len(letters) == 5
    last = blocks(configuration, 0)[-1]
    assert last.idle and last.block.tops == blocks(configuration, 1)[-1].block.tops


def test_it_tells_where_it_stands(configuration: Configuration) -> None:
    send(configuration, 0, clicks(0, 40))
    reports: list[dict[str, Any]] = []
    with working(configuration, reports) as ingester:
        wait_for(lambda: reports[-1:] != [] and reports[-1].get("idle") and not reports[-1]["unacknowledged"])
    said = [each for each in reports if each.get("idle")][-1]
    assert ingester.rows >= 40
    first, second = map(str, raw_partitions(configuration))
    stands = {each["source"]: (each["position"], each["behind"]) for each in said["sources"]}
    assert stands == {first: (40, 0), second: (0, 0)}
    assert said["waiting"] == said["unacknowledged"] == 0


def test_rubbish_behind_the_last_block_is_passed_over(configuration: Configuration) -> None:
    send(configuration, 0, clicks(0, 30))
    ingest_all(configuration)
    outbox = Outbox(configuration.kafka)
    for q in (0, 1, 1):
        outbox.send(internal(configuration.kafka, "events"), q, b"no block")
    outbox.flush()
    send(configuration, 0, clicks(30, 20))
    ingest_all(configuration)
    assert offsets(configuration) == expected(50, 0)


@pytest.mark.slow
def test_one_works_and_the_other_takes_over(configuration: Configuration) -> None:
    send(configuration, 0, clicks(0, 100))
    mine: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    with working(configuration, others) as second:
        with working(configuration, mine) as first:
            wait_for(lambda: first.idle_since is not None or second.idle_since is not None)
            wait_for(lambda: mine and others and ("standby" in mine[-1]) != ("standby" in others[-1]))
            send(configuration, 0, clicks(100, 100))
            wait_for(lambda: len(offsets(configuration)) == 200)
        send(configuration, 1, clicks(200, 100))
        wait_for(lambda: "standby" not in others[-1])
        wait_for(lambda: len(offsets(configuration)) == 300)
    assert offsets(configuration) == expected(200, 100)


def test_two_at_work_do_no_harm(configuration: Configuration, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both believe to be elected, as a zombie does: rows come twice, marks drop one."""
    monkeypatch.setattr("thalweg.streams.ingester._Election.elected", lambda self: True)
    send(configuration, 0, clicks(0, 400, broken=3))
    with working(configuration) as first, working(configuration) as second:
        for batch in range(4):
            send(configuration, 1, clicks(400 + 50 * batch, 50))
        wait_for(lambda: first.idle_since is not None and second.idle_since is not None)
        send(configuration, 1, clicks(600, 50))
        wait_for(lambda: min(first.rows, second.rows) >= 50 and len(offsets(configuration)) == 653)
    assert offsets(configuration) == expected(403, 250)


@pytest.mark.slow
@pytest.mark.parametrize("site", ["ingest dead letters sent", "ingest between shards", "ingest block sent"])
def test_a_kill_loses_nothing(site: str, configuration: Configuration, tmp_path: Path) -> None:
    """kill -9 where a block's dead letters are out and it is not, between its shards, and behind it."""
    small = msgspec.structs.replace(configuration.kafka, block_rows=50)
    configuration = msgspec.structs.replace(configuration, kafka=small)
    send(configuration, 0, [each for i in range(6) for each in clicks(i * 100, 100, broken=1)])
    send(configuration, 1, clicks(0, 300))
    killed = Live(tmp_path, configuration, small).start("worker", "--only", "ingest", THALWEG_FAULT=f"{site}:3")
    _, said = killed.communicate(timeout=600)
    assert killed.returncode == -signal.SIGKILL, said[-2000:]
    ingest_all(configuration)
    assert offsets(configuration) == expected(606, 300)
    assert len(set(rejected(configuration))) == 6


def refused(configuration: Configuration) -> None:
    """An ingester that has to end by itself."""
    until = time.monotonic() + 600
    Ingester(configuration).run(lambda: time.monotonic() > until)


def test_what_is_missing_is_named(kafka: Kafka) -> None:
    configuration = configured(kafka)
    with pytest.raises(BrokerError, match=r"there is no raw topic .*\.clicks"):
        raw_partitions(configuration)
    create_topics(configuration.kafka, 3)
    with pytest.raises(BrokerError, match=r"\.events has 3 partitions, the configuration says 2"):
        refused(configuration)


class Told:
    """A message that is an error, and the consumer that brings it; its log begins at offset 9, `ends` at 20, or the
    broker does not say (None)."""

    ends: int | None = 20

    def __init__(self, code: int, place: tuple[str | None, int], fatal: bool = False) -> None:
        self._error, self._place = KafkaError(code, "so it is", fatal=fatal), place

    def error(self) -> KafkaError:
        return self._error

    def topic(self) -> str | None:
        return self._place[0]

    def partition(self) -> int:
        return self._place[1]

    def offset(self) -> int:
        return 20

    def consume(self, count: int, timeout: float) -> list[Told]:
        return [self]

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        return 9, 20

    def offsets_for_times(self, asked: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        if self.ends is None:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        assert {each.offset for each in asked} == {OFFSET_END}
        return [TopicPartition(each.topic, each.partition, self.ends) for each in asked]


@pytest.mark.parametrize(
    ("code", "fatal", "own", "said"),
    [
        (KafkaError._ALL_BROKERS_DOWN, False, True, None),  # librdkafka goes on by itself
        (KafkaError._PARTITION_EOF, False, False, None),
        (KafkaError._FATAL, True, True, "127.0.0.1:9092: so it is"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, False, False, "clicks/0: so it is"),
        (KafkaError.OFFSET_OUT_OF_RANGE, False, False, "clicks/0: begins at offset 9, the blocks end at 4: 5 messages"),
    ],
)
def test_errors_of_the_consumer(code: int, fatal: bool, own: bool, said: str | None) -> None:
    """What passes by itself is passed over; the rest ends it, and says where."""
    configuration = Configuration()
    ingest = Ingest(configuration, [Source("clicks", "id", 0)], [None], lambda: 0)
    ingest.offer(0, np.array([3]), [b"{"])
    told: Any = Told(code, (None, -1) if own else ("clicks", 0), fatal)
    session = _Session(Ingester(configuration), ingest, told, Outbox(configuration.kafka))
    if said is None:
        assert session._consume() == 1
    else:
        with pytest.raises((BrokerError, IngestError), match=said):
            session._consume()


def test_silence_counts_while_the_broker_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle: nothing came for the timeout, and the broker says that there is nothing, whatever it keeps for itself
    behind the last message. One that was away is given the timeout anew, and those that were idle with it."""
    moment = [0.0]
    monkeypatch.setattr("thalweg.streams.ingester.time.monotonic", lambda: moment[0])
    raw = {"time": {"idle_timeout": "100ms"}, "kafka": {"topics": {"clicks": ""}}}
    configuration = from_builtins(raw)
    ingest = Ingest(configuration, [Source("clicks", "id", 0)], [None], lambda: 0)
    ingest.offer(0, np.array([17]), [event(1_000, 1)])
    ingest.take(everything=True)
    told: Any = Told(KafkaError._PARTITION_EOF, ("clicks", 0))
    session = _Session(Ingester(configuration), ingest, told, Outbox(configuration.kafka))

    def idle(after: float) -> bool:
        moment[0] += after
        session._idle()
        return ingest.idle

    session._consume()
    assert not idle(0)
    told.ends = None
    assert not idle(0.12)
    told.ends = 20
    assert not idle(0) and idle(0.12)
    session.broker_said(KafkaError(KafkaError._TRANSPORT))
    assert not idle(0) and idle(0.12)
    session.broker_said(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert idle(0)
    told.ends = None  # it hangs: no connection breaks
    assert not idle(0.12)
    told.ends = 21
    assert not idle(0.12), "there is something, not fetched yet"
    told.ends = 20
    assert idle(0.12)
    ingest.offer(0, np.array([20]), [event(2_000, 2)])
    assert not ingest.idle


def test_what_is_behind_a_log_that_begins_late_or_ends_with_control_records() -> None:
    """Nothing waits where everything has expired, nor behind the end that a fetch told."""
    configuration = from_builtins({"kafka": {"topics": {"clicks": ""}}})
    ingest = Ingest(configuration, [Source("clicks", "id", 0)], [None], lambda: 0)

    class Expired(Told):
        def get_watermark_offsets(self, partition: TopicPartition, timeout: float = 0, cached: bool = False) -> Any:
            return 20, 20

        def assign(self, wanted: list[TopicPartition]) -> None:
            self.assigned = wanted

    told: Any = Expired(KafkaError._PARTITION_EOF, ("clicks", 0))
    session = _Session(Ingester(configuration), ingest, told, Outbox(configuration.kafka))
    assert session._said(0, ingest.sources[0])["behind"] == 20
    session._assign()
    assert session._said(0, ingest.sources[0])["behind"] == 0
    session = _Session(Ingester(configuration), ingest, told, Outbox(configuration.kafka))
    session._consume()
    assert session._said(0, ingest.sources[0])["behind"] == 0


def test_while_very_much_is_not_acknowledged_nothing_is_read_and_a_stop_is_obeyed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configuration = from_builtins({"kafka": {"brokers": "127.0.0.1:9", "topics": {"clicks": ""}}})
    ingest = Ingest(configuration, [Source("clicks", "id", 0)], [None], lambda: 0)
    outbox = Outbox(configuration.kafka)
    for _ in range(IN_FLIGHT + 1):
        outbox.send("a", 0, b"x")
    reports: list[dict[str, Any]] = []
    never: Any = None  # a consumer that is not asked
    session = _Session(Ingester(configuration, reports.append), ingest, never, outbox)
    monkeypatch.setattr(session, "_assign", lambda: None)
    monkeypatch.setattr(session, "_said", lambda *_: {})
    monkeypatch.setattr(session, "_balance", lambda: None)
    session.go(stop=lambda: len(reports) == 2)
    assert reports[-1]["unacknowledged"] == IN_FLIGHT + 1
    monkeypatch.setattr("thalweg.streams.outbox.OUTAGE", 0.2)
    with pytest.raises(BrokerError, match="nothing was acknowledged"):
        session.go(stop=lambda: False)


def test_a_group_that_refuses_it_is_an_error() -> None:
    """Else it would stand by for ever."""
    election = _Election(Kafka(brokers="127.0.0.1:9", application="shop"), "shop.events")
    election.close()
    for code, said in (
        (KafkaError._ALL_BROKERS_DOWN, None),
        (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, None),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "the group shop-ingest: so it is"),
    ):
        told: Any = Told(code, (None, -1))
        told.poll = lambda seconds: told  # noqa: B023
        election._consumer = told
        if said is None:
            assert not election.elected()
        else:
            with pytest.raises(BrokerError, match=said):
                election.elected()


def test_ctrl_c_is_not_for_the_process_of_ingest(tmp_path: Path) -> None:
    """From its beginning on: the parent is told too, and closes the pipe."""
    before = signal.getsignal(signal.SIGINT)
    child = IngestProcess(Configuration(kafka=Kafka(brokers="127.0.0.1:9")))
    try:
        status = Path(f"/proc/{child._process.pid}/status").read_text()
        ignored = int(next(line for line in status.splitlines() if line.startswith("SigIgn")).split()[1], 16)
        assert ignored & 1 << (signal.SIGINT - 1)
    finally:
        child._process.kill()
        child.stop()
    assert signal.getsignal(signal.SIGINT) == before


def test_a_partition_that_is_added_is_seen_under_traffic(
    configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thalweg.streams.ingester.REFRESH", 0.2)
    monkeypatch.setattr(_Session, "_consume", lambda self: 1)  # there is always something
    monkeypatch.setattr(_Session, "_idle", lambda self: None)
    looks = []
    monkeypatch.setattr(
        "thalweg.streams.ingester.raw_partitions", lambda c: looks.append(raw_partitions(c)) or looks[-1]
    )
    ingester = Ingester(configuration)
    ingester.run(stop=lambda: len(looks) >= 4)
    assert len(looks) >= 4, "at the start, and again and again"


def test_an_outage_is_no_reason_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for new raw partitions fails then, aside."""
    monkeypatch.setattr("thalweg.streams.ingester.REFRESH", 0.05)
    monkeypatch.setattr("thalweg.streams.kafka.TIMEOUT", 0.3)
    configuration = from_builtins({"kafka": {"brokers": "127.0.0.1:9", "topics": {"clicks": ""}}})
    ingest = Ingest(configuration, [Source("clicks", "id", 0)], [None], lambda: 0)
    never: Any = None
    session = _Session(Ingester(configuration), ingest, never, Outbox(configuration.kafka))
    for name in ("_assign", "_consume", "_idle", "_balance", "_tell"):
        monkeypatch.setattr(session, name, lambda: None)
    looks, finished = [], _Look.run

    def look(self: _Look) -> None:
        finished(self)
        looks.append(self.found)

    monkeypatch.setattr(_Look, "run", look)
    session.go(stop=lambda: len(looks) >= 3)
    assert looks == [None] * 3


def test_a_raw_topic_made_again_stops_it(configuration: Configuration) -> None:
    send(configuration, 0, clicks(0, 30))
    ingest_all(configuration)
    topic = next(iter(configuration.kafka.topics))
    delete_topic(configuration.kafka, topic)
    with pytest.raises(BrokerError, match=f"there is no raw topic {topic}"):
        refused(configuration)
    create_topics(configuration.kafka, 2)
    with pytest.raises(IngestError, match=f"{topic}/0: is another topic than before"):
        refused(configuration)
