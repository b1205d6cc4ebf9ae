"""Faust as Thalweg uses it: agents that carry blocks, and positions that are the stages' own.

Faust would go on where the group's commits say, which may lie ahead of the state or behind it. The one place to put
that right is `Consumer.perform_seek`, which Faust calls before messages flow, after each rebalance; a seek anywhere
else it overwrites. It does so from two tasks, its recovery and its fetcher, at any moment of a rebalance: both wait for
one another here, and for what is taken away to be closed. This overrides internals, and so does the bound on a fetch:
faust-streaming and aiokafka are pinned exactly.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import aiokafka.client
import faust
import yarl
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from .configuration import ConfigurationError, Kafka
from .kafka import FETCH_WAIT


class Owner(Protocol):
    """Who has the stages, and with them the positions.

    Attributes
    ----------
    rebalance_lock : held while partitions are opened and sought, and while they are closed
    """

    rebalance_lock: asyncio.Lock

    def assign(self, partitions: Iterable[TP] | None) -> None:
        """The group gives these partitions from now on; None: it shares out again, and they are about to be taken."""

    async def positions(self, consumer: Any) -> dict[TP, int]:
        """The offset from which each partition assigned is to be read; none while the group shares out."""
        ...


def make_app(kafka: Kafka, owner: Owner, folder: Path) -> faust.App:
    """A Faust app on the running event loop, which reads each partition from where its `owner` says.

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
        broker_max_poll_interval=86_400.0,  # a stage may wait long for a build; heartbeats say that the worker lives
        broker_max_poll_records=200,
        stream_buffer_maxsize=64,
        stream_wait_empty=True,
        consumer_max_fetch_size=16 << 20,
        consumer_auto_offset_reset="earliest",
        loop=asyncio.get_running_loop(),
    )

    class OwnPositions(driver.Consumer):  # type: ignore[misc]
        async def on_partitions_revoked(self, revoked: set[TP]) -> None:
            owner.assign(None)
            await super().on_partitions_revoked(revoked)

        async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
            owner.assign(assigned)
            await super().on_partitions_assigned(assigned, generation_id)

        async def perform_seek(self) -> None:
            async with owner.rebalance_lock:
                wanted = await owner.positions(self)
                if wanted:
                    await self.seek_wait(wanted)
                for partition, offset in wanted.items():
                    self._committed_offset[partition] = offset or None

        def _new_consumer_thread(self) -> Any:
            return _FetchSoon(self, loop=self.loop, beacon=self.beacon)

    class Transport(driver.Transport):  # type: ignore[misc]
        Consumer = OwnPositions

    app.transport = Transport([yarl.URL(part) for part in url.split(";")], app, loop=app.loop)
    return app


# Else a broker that may create topics brings one back that was deleted, with a number of partitions of its own.
aiokafka.client.MetadataRequest = partial(aiokafka.client.MetadataRequest, allow_auto_topic_creation=False)


class _FetchSoon(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust lets a broker hold a fetch back for 1.5 s, and aiokafka has but one at a time for each broker: a partition
    that was worked off meanwhile waits until the others have news. With a bound of `FETCH_WAIT` it hardly waits."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT
        return consumer


_UNDERSTOOD = {
    "security.protocol", "sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password", "ssl.ca.location",
    "ssl.ca.pem", "ssl.certificate.location", "ssl.key.location", "ssl.key.password",
    "ssl.endpoint.identification.algorithm", "enable.ssl.certificate.verification",
}  # fmt: skip
"""Of librdkafka's settings about TLS and login those that Faust's client has too."""
_ABOUT = ("ssl.", "sasl.", "enable.ssl.", "enable.sasl.")


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
    strange = [key for key in said if key.startswith(_ABOUT) and key not in _UNDERSTOOD]
    if strange:
        raise ConfigurationError(
            f"kafka.client: {', '.join(strange)} only one of the two Kafka clients understands, and the worker needs "
            f"both; they have in common {', '.join(sorted(_UNDERSTOOD))}"
        )
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
        context = ssl.create_default_context(cafile=said.get("ssl.ca.location"), cadata=said.get("ssl.ca.pem"))
        if "ssl.certificate.location" in said:
            context.load_cert_chain(
                said["ssl.certificate.location"], said.get("ssl.key.location"), said.get("ssl.key.password")
            )
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"kafka.client: the certificates cannot be loaded: {error}") from None
    checked = str(said.get("enable.ssl.certificate.verification", "true")).lower() == "true"
    if not checked or said.get("ssl.endpoint.identification.algorithm", "https") == "none":
        context.check_hostname = False
    if not checked:
        context.verify_mode = ssl.CERT_NONE
    return context
