"""A real broker for tests: the address in THALWEG_TEST_BROKERS; else Apache Kafka started by the script in the folder
THALWEG_TEST_KAFKA; else the embedded broker.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from thalweg.streams.broker import EmbeddedBroker
from thalweg.streams.configuration import RAW_TOPICS, Duration, Kafka
from thalweg.streams.kafka import make_admin, partitions, topic_ids


class ApacheKafka:
    """Apache Kafka from a folder with its `broker` script, which can be killed and started again on its data.

    `guarded`: it has a second listener, at `guarded_address`, where the user t logs in with this word over TLS with the
    certificate and key in the file `identity`.
    """

    def __init__(self, home: Path, data: Path, guarded: str | None = None, identity: Path | None = None) -> None:
        self.home, self.data = home, data
        self.port = free_pair()
        self.guarded_address = f"127.0.0.1:{free_pair()}"
        self._properties = []
        if guarded is not None:
            plain, controller = f"127.0.0.1:{self.port}", f"127.0.0.1:{self.port + 1}"
            heard = f"PLAINTEXT://{plain},GUARDED://{self.guarded_address}"
            module = "org.apache.kafka.common.security.plain.PlainLoginModule"
            self._properties = [
                f"listeners={heard},CONTROLLER://{controller}",
                f"advertised.listeners={heard}",
                "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,GUARDED:SASL_SSL",
                "sasl.enabled.mechanisms=PLAIN",
                f'listener.name.guarded.plain.sasl.jaas.config={module} required user_t="{guarded}";',
                "listener.name.guarded.ssl.keystore.type=PEM",
                f"listener.name.guarded.ssl.keystore.location={identity}",
            ]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What clients take as their brokers."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [str(self.home / "broker"), str(self.port), str(self.data), *self._properties]
        with (self.data.parent / "kafka.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + 600
        while not _serves(self.address):
            assert self.process.poll() is None and time.monotonic() < until, "Apache Kafka did not start"
            time.sleep(0.5)

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def free_pair() -> int:
    """A port that is free together with the next one, which the controller takes.

    Not from the range that the system gives to those who connect: they may take it while the broker is being started.
    """
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def delete_topic(kafka: Kafka, topic: str) -> None:
    """Delete a topic and wait until the broker says so, too: it answers before it has heard of it itself."""
    admin = make_admin(kafka)  # gone, it would take its answers with it
    admin.delete_topics([topic])[topic].result(60)
    until = time.monotonic() + 60
    while topic_ids(kafka, [topic])[topic] is not None or partitions(kafka, [topic])[topic]:
        assert time.monotonic() < until, f"{topic} is still there"
        time.sleep(0.1)


def _serves(address: str) -> bool:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        return bool(AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=2).brokers)
    except KafkaException:
        return False


@pytest.fixture(scope="session")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """Apache Kafka, which a test may kill; skipped where THALWEG_TEST_KAFKA does not say where it is."""
    home = os.environ.get("THALWEG_TEST_KAFKA")
    if not home:
        pytest.skip("THALWEG_TEST_KAFKA names no folder with Apache Kafka")
    broker = ApacheKafka(Path(home).resolve(), tmp_path_factory.mktemp("kafka") / "data")
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture(scope="session")
def brokers(request: pytest.FixtureRequest) -> Iterator[str]:
    """Address of a broker that this process shares among its tests."""
    given = os.environ.get("THALWEG_TEST_BROKERS")
    if given:
        yield given
    elif os.environ.get("THALWEG_TEST_KAFKA"):
        yield request.getfixturevalue("apache").address
    else:
        with EmbeddedBroker() as broker:
            yield broker.address


@pytest.fixture
def kafka(brokers: str) -> Kafka:
    """Settings with an application and raw topics of the test's own."""
    return new_kafka(brokers)


def new_kafka(brokers: str, raw: dict[str, str] | None = None) -> Kafka:
    """Settings with an application of its own, and raw topics of its own or those given."""
    name = f"t{uuid.uuid4().hex[:10]}"
    embedded = not (os.environ.get("THALWEG_TEST_BROKERS") or os.environ.get("THALWEG_TEST_KAFKA"))
    return Kafka(
        brokers=brokers,
        application=name,
        topics=raw if raw is not None else {f"{name}.{topic}": kind for topic, kind in RAW_TOPICS.items()},
        session_timeout=Duration.parse("2s" if embedded else "6s"),  # the embedded one waits half of it to rebalance
    )
