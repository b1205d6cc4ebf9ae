"""The broker of a benchmark: one that runs, Apache Kafka from a folder, else the embedded one."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from thalweg.streams.broker import EmbeddedBroker

START_TIMEOUT = 90.0
"""Seconds within which Apache Kafka answers."""


@contextlib.contextmanager
def running(address: str | None, folder: Path | None) -> Iterator[tuple[str, str]]:
    """(address, name) of the broker at `address`, or started by the script in `folder`, or the embedded one."""
    if address:
        yield address, address
    elif folder:
        with apache(folder) as address:
            yield address, "Apache Kafka"
    else:
        with EmbeddedBroker() as broker:
            yield broker.address, "embedded"


@contextlib.contextmanager
def apache(folder: Path) -> Iterator[str]:
    """Address of Apache Kafka, started on a new data folder and stopped again; its output is thrown away."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="thalweg-kafka-") as data:
        command = [str(folder.resolve() / "broker"), str(port), data]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + START_TIMEOUT
            while not _answers(f"127.0.0.1:{port}"):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{folder}: Apache Kafka did not start on port {port}")
                time.sleep(0.5)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def create(address: str, topics: list[str]) -> None:
    """Make topics of one partition that keep everything; Quix asks for the retention, which the embedded broker has
    only where it was given."""
    new = [NewTopic(topic, 1, 1, config={"retention.ms": "-1"}) for topic in topics]
    admin = AdminClient({"bootstrap.servers": address})
    for made in admin.create_topics(new).values():
        made.result(30)


def delete(address: str, prefix: str) -> None:
    """Delete what a run left on a broker that stays."""
    admin = AdminClient({"bootstrap.servers": address})
    names = [name for name in admin.list_topics(timeout=10).topics if prefix in name]
    for gone in admin.delete_topics(names).values() if names else ():
        gone.result(30)


def free_port() -> int:
    """A port that is free together with the next one, which Apache Kafka's controller takes."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            try:
                second.bind(("127.0.0.1", first.getsockname()[1] + 1))
            except OSError:
                continue
            return int(first.getsockname()[1])


def _answers(address: str) -> bool:
    try:
        client = AdminClient({"bootstrap.servers": address, "log_level": 0})
        return bool(client.list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def given() -> tuple[str | None, Path | None]:
    """What the tests' variables say: THALWEG_TEST_BROKERS, THALWEG_TEST_KAFKA."""
    folder = os.environ.get("THALWEG_TEST_KAFKA")
    return os.environ.get("THALWEG_TEST_BROKERS") or None, Path(folder) if folder else None
