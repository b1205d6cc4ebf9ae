"""Faust as Thalweg uses it: agents that carry blocks, and positions that are the stages' own.

Faust would go on where the group's commits say, which may lie ahead of the state or behind it. The one place to put
that right is `Consumer.perform_seek`, which Faust calls before messages flow, after each rebalance; a seek anywhere
else it overwrites. This overrides an internal: faust-streaming and aiokafka are pinned exactly.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import faust
import yarl
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from .configuration import ConfigurationError, Kafka

Positions = Callable[[Any, Iterable[TP]], Awaitable[dict[TP, int]]]
"""positions(consumer, assigned partitions) -> the offset that each is to be read from."""


def make_app(kafka: Kafka, positions: Positions, folder: Path) -> faust.App:
    """A Faust app on the running event loop, which reads each partition from where `positions` says.

    `folder` is for what Faust keeps beside it, which is nothing that matters.

    The agents, and what happens when partitions are revoked, are the caller's. Buffers count blocks, not events.
    """
    seconds = int(kafka.session_timeout) / 1000
    url = f"kafka://{';'.join(each.strip() for each in kafka.brokers.split(','))}"
    app = faust.App(
        kafka.application,
        broker=url,
        broker_credentials=credentials(kafka.client),
        store="memory://",
        datadir=str(folder),
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        broker_session_timeout=seconds,
        broker_heartbeat_interval=seconds / 5,
        broker_request_timeout=max(30.0, 3 * seconds),
        broker_rebalance_timeout=max(20.0, 3 * seconds),
        broker_commit_interval=1.0,
        broker_commit_every=10_000,
        broker_max_poll_records=200,
        stream_buffer_maxsize=64,
        stream_wait_empty=True,
        consumer_max_fetch_size=16 << 20,
        consumer_auto_offset_reset="earliest",
        loop=asyncio.get_running_loop(),
    )

    class OwnPositions(driver.Consumer):  # type: ignore[misc]
        async def perform_seek(self) -> None:
            await super().perform_seek()
            wanted = await positions(self, self.assignment())
            if wanted:
                await self.seek_wait(wanted)
                for partition, offset in wanted.items():
                    self._committed_offset[partition] = offset or None

    class Transport(driver.Transport):  # type: ignore[misc]
        Consumer = OwnPositions

    app.transport = Transport([yarl.URL(part) for part in url.split(";")], app, loop=app.loop)
    return app


def credentials(client: dict[str, str]) -> Any:
    """Faust's credentials for librdkafka's settings (dots or underscores); None for a broker without.

    ConfigurationError where the settings ask for something that only one of the two clients could do.

    >>> credentials({}) is None
    True
    >>> credentials({"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "GSSAPI"})
    Traceback (most recent call last):
    thalweg.streams.configuration.ConfigurationError: kafka.client: sasl.mechanism GSSAPI is not supported; take \
PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
    """
    said = {key.replace("_", "."): value for key, value in client.items()}
    protocol = said.get("security.protocol", "PLAINTEXT").upper()
    if protocol == "PLAINTEXT":
        return None
    if protocol not in ("SSL", "SASL_PLAINTEXT", "SASL_SSL"):
        raise ConfigurationError(f"kafka.client: security.protocol {protocol} is none of PLAINTEXT, SSL, SASL_*")
    context = _context(said) if protocol.endswith("SSL") else None
    if protocol == "SSL":
        return faust.SSLCredentials(context)
    mechanism = said.get("sasl.mechanism", said.get("sasl.mechanisms", "PLAIN")).upper()
    if mechanism not in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        raise ConfigurationError(
            f"kafka.client: sasl.mechanism {mechanism} is not supported; take PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
        )
    if "sasl.username" not in said or "sasl.password" not in said:
        raise ConfigurationError("kafka.client: sasl.username and sasl.password are wanted with SASL")
    return faust.SASLCredentials(
        username=said["sasl.username"], password=said["sasl.password"], mechanism=mechanism, ssl_context=context
    )


def _context(said: dict[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=said.get("ssl.ca.location"))
        if "ssl.certificate.location" in said:
            context.load_cert_chain(
                said["ssl.certificate.location"], said.get("ssl.key.location"), said.get("ssl.key.password")
            )
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"kafka.client: the certificates cannot be loaded: {error}") from None
    if said.get("ssl.endpoint.identification.algorithm", "https") == "none":
        context.check_hostname = False
    return context
