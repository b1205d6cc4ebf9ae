"""A recording holds what the topics hold, goes on where it ended, and its replay ends in the state of the live run."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from tests.live import Live
from tests.streams.test_post import block
from thalweg.streams import record as module
from thalweg.streams.broker_error import BrokerError
from thalweg.streams.configuration import Configuration, Kafka, load
from thalweg.streams.kafka import create_topics, internal, read_on, tail
from thalweg.streams.outbox import Outbox
from thalweg.streams.record import RecordedReplay, RecordingError, is_recording, record, recorded_configuration
from thalweg.streams.verify import verify

pytestmark = pytest.mark.broker


def recorded(folder: Path) -> list[tuple[int, bytes | None]]:
    """What one topic partition's folder of a recording holds."""
    tables = [pq.read_table(file) for file in sorted(folder.glob("*.parquet"))]
    return [pair for t in tables for pair in zip(t.column(0).to_pylist(), t.column(1).to_pylist(), strict=True)]


@pytest.fixture
def events(kafka: Kafka) -> tuple[Configuration, str]:
    """Topics with two partitions of events, and the name of events."""
    create_topics(kafka, 2)
    return Configuration(kafka=kafka, partitions=2), internal(kafka, "events")


def send(configuration: Configuration, topic: str, partition: int, values: list[bytes | None]) -> None:
    """Put messages on a topic."""
    outbox = Outbox(configuration.kafka)
    for value in values:
        outbox.send(topic, partition, value)
    outbox.flush()


def test_a_recording_is_what_the_topics_hold_and_goes_on(
    events: tuple[Configuration, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nulls, empty messages and binary ones too; in files of a few bytes; recorded three times."""
    monkeypatch.setattr(module, "FILE_BYTES", 20)
    configuration, topic = events
    values: list[bytes | None] = [b"\x00\xff" * i for i in range(9)] + [None, b""]
    send(configuration, topic, 1, values)
    assert record(tmp_path / "r", configuration).messages["events/1"] == 11
    send(configuration, topic, 1, [b"more"])
    send(configuration, internal(configuration.kafka, "labels"), 0, [b"label"])
    result = record(tmp_path / "r", configuration)
    assert result.messages == {"events/0": 0, "events/1": 1, "labels/0": 1, "copurchases/0": 0}
    assert sum(record(tmp_path / "r", configuration).messages.values()) == 0
    assert recorded(tmp_path / "r" / "events-1") == list(enumerate([*values, b"more"]))
    assert recorded(tmp_path / "r" / "labels-0") == [(0, b"label")]
    assert len(list((tmp_path / "r" / "events-1").glob("*.parquet"))) > 3
    assert not list((tmp_path / "r").rglob("*.part"))


def test_an_interrupted_recording_goes_on(
    events: tuple[Configuration, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration, topic = events
    values: list[bytes | None] = [b"%d" % i for i in range(40)]
    send(configuration, topic, 0, values)
    looks = count()
    first = record(tmp_path / "r", configuration, stop=lambda: next(looks) > 10)
    assert first.interrupted and 0 < first.messages["events/0"] < 40
    second = record(tmp_path / "r", configuration)
    assert not second.interrupted and first.messages["events/0"] + second.messages["events/0"] == 40
    assert recorded(tmp_path / "r" / "events-0") == list(enumerate(values))


def test_a_folder_of_other_topics_is_refused(events: tuple[Configuration, str], tmp_path: Path) -> None:
    configuration, _ = events
    record(tmp_path / "r", configuration)
    other = msgspec.structs.replace(configuration.kafka, application=f"{configuration.kafka.application}-2")
    create_topics(other, 2)
    with pytest.raises(RecordingError, match="holds a recording of other topics.*name another folder"):
        record(tmp_path / "r", msgspec.structs.replace(configuration, kafka=other))


def test_what_the_broker_does_not_have_is_refused(events: tuple[Configuration, str], tmp_path: Path) -> None:
    """No topic of that name; or another number of partitions, which would leave some out."""
    configuration, topic = events
    with pytest.raises(RecordingError, match=f"{topic} has 2 partitions, the configuration says 1"):
        record(tmp_path / "r", msgspec.structs.replace(configuration, partitions=1))
    nobody = msgspec.structs.replace(configuration.kafka, application="nobody")
    with pytest.raises(RecordingError, match=r"there is no topic nobody\."):
        record(tmp_path / "r", msgspec.structs.replace(configuration, kafka=nobody))
    assert not (tmp_path / "r").exists()


def test_what_is_no_recording_is_named(tmp_path: Path) -> None:
    assert not is_recording(tmp_path)
    for text in (None, "{", "[]", "{}"):
        if text is not None:
            (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(RecordingError, match="is no recording; make one with `thalweg record`"):
            recorded_configuration(tmp_path)
    (tmp_path / "manifest.json").write_text('{"recording": 2}')
    with pytest.raises(RecordingError, match="version 2; upgrade"):
        RecordedReplay(tmp_path, tmp_path / "state")


def test_a_recording_under_another_configuration_is_refused(events: tuple[Configuration, str], tmp_path: Path) -> None:
    """It could not be replayed; also where the folder was begun under one."""
    configuration, topic = events
    send(configuration, topic, 1, [b"rubbish", block(configuration, 0, 5), b"rubbish"])
    for other in (
        load(None, {"THALWEG_TIME__LATENESS": "1m"}),
        load(None, features=[{"name": "f", "kind": "categorical", "source": "context"}]),
    ):
        other = msgspec.structs.replace(other, kafka=configuration.kafka, partitions=configuration.partitions)
        with pytest.raises(RecordingError, match="was made under another configuration"):
            record(tmp_path / "r", other)
        assert not (tmp_path / "r").exists()
    record(tmp_path / "r", configuration)
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text())
    manifest["configuration"]["time"]["lateness"] = "1m"
    (tmp_path / "r" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RecordingError, match="was begun under another configuration"):
        record(tmp_path / "r", configuration)


def test_a_damaged_recording_is_named(events: tuple[Configuration, str], tmp_path: Path) -> None:
    configuration, topic = events
    send(configuration, topic, 1, [block(configuration, 0, 5)])
    record(tmp_path / "r", configuration)
    file = next((tmp_path / "r").glob("events-*/*.parquet"))
    file.write_bytes(file.read_bytes()[:100])
    run = RecordedReplay(tmp_path / "r", tmp_path / "state")
    with pytest.raises(RecordingError, match=r"parquet: is damaged"):
        run.go()
    run.close()


def test_credentials_are_not_recorded(events: tuple[Configuration, str], tmp_path: Path) -> None:
    configuration, _ = events
    secret = msgspec.structs.replace(configuration.kafka, client={"sasl_password": "secret-word"})
    record(tmp_path / "r", msgspec.structs.replace(configuration, kafka=secret))
    assert b"secret-word" not in (tmp_path / "r" / "manifest.json").read_bytes()
    assert recorded_configuration(tmp_path / "r").fingerprint() == configuration.fingerprint()


def test_records_nothing_from_a_broker_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from thalweg.streams import kafka as broker

    monkeypatch.setattr(broker, "TIMEOUT", 1.0)
    with pytest.raises(BrokerError, match="does not answer"):
        record(tmp_path / "r", Configuration(kafka=Kafka(brokers="127.0.0.1:9")))


@pytest.mark.slow
def test_the_replay_of_a_recording_is_the_live_run(funnel_log: Path, kafka: Kafka, tmp_path: Path) -> None:
    """Two partitions; all at once, and interrupted again and again, the state opened anew: equal trails."""
    live = Live(tmp_path, load(funnel_log.with_suffix(".toml"), {}, partitions=2), kafka)
    live.create()
    live.publish(funnel_log, close=True)
    live.worker()
    assert "recorded" in live.run("record", str(tmp_path / "r"))
    for flow, partition in (("events", 1), ("labels", 0), ("copurchases", 0)):
        name = internal(kafka, flow)
        last = tail(kafka, name, partition)
        assert last is not None
        found = recorded(tmp_path / "r" / f"{flow}-{partition}")
        assert found == list(read_on(kafka, name, partition, 0, last[0] + 1))
    live.run("replay", str(tmp_path / "r"), "--state", str(tmp_path / "once"))
    assert verify(live.state, tmp_path / "once").equal
    interruptions = 0
    while interruptions < 100:
        looks, run = count(), RecordedReplay(tmp_path / "r", tmp_path / "often")
        try:
            summary = run.go(stop=lambda: next(looks) >= 15)  # noqa: B023
        finally:
            run.close()
        if not summary.interrupted:
            break
        interruptions += 1
    assert interruptions > 1
    comparison = verify(live.state, tmp_path / "often")
    assert comparison.equal, comparison.differences
