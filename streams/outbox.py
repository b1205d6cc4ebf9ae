"""What a host sends: a producer of its own, whose acknowledgements a checkpoint waits for."""

from __future__ import annotations

import time

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from .broker_error import BrokerError
from .configuration import Kafka
from .kafka import make_producer

FLUSH_TIMEOUT = 60.0
"""Seconds that the broker has to acknowledge what was sent; beyond, the process ends, and the next sends it again."""


class Outbox:
    """Messages on their way. `send` and `flush` raise BrokerError once any delivery has failed; nothing is dropped.

    Parameters
    ----------
    kafka : the broker
    transactional settings are not used: idempotence, and marks at the reader, give each effect once

    >>> Outbox(Kafka()).poll()  # nothing was sent, nothing failed
    """

    def __init__(self, kafka: Kafka, producer: Producer | None = None) -> None:
        self._brokers = kafka.brokers
        self._producer = producer if producer is not None else make_producer(kafka)
        self._failed: str | None = None

    def send(self, topic: str, partition: int, value: bytes | None, key: bytes | None = None) -> None:
        """Hand one message over; waits where too much is on its way."""
        self._check()
        until = time.monotonic() + FLUSH_TIMEOUT
        while True:
            try:
                self._producer.produce(topic, value, key, partition, on_delivery=self._delivered)
                self._producer.poll(0)
                return
            except BufferError:
                if time.monotonic() > until:
                    raise BrokerError(f"{self._brokers}: the broker takes nothing more; is it running?") from None
                self._producer.poll(0.1)
            except KafkaException as error:
                raise BrokerError(f"{topic}/{partition}: {error.args[0].str()}") from None

    def poll(self) -> None:
        """Take acknowledgements that have come; BrokerError where one says that a message was not delivered."""
        self._producer.poll(0)
        self._check()

    def flush(self) -> None:
        """Wait until everything sent is acknowledged."""
        left = self._producer.flush(FLUSH_TIMEOUT)
        self._check()
        if left:
            raise BrokerError(
                f"{self._brokers}: {left:,} messages are not acknowledged after {FLUSH_TIMEOUT:.0f} s; nothing of them "
                "is checkpointed, the next start sends them again"
            )

    @property
    def waiting(self) -> int:
        """Messages that are not acknowledged yet."""
        return len(self._producer)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._failed is None:
            self._failed = f"{message.topic()}/{message.partition()}: a message was not delivered: {error.str()}"

    def _check(self) -> None:
        if self._failed is not None:
            raise BrokerError(self._failed)
