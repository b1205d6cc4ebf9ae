"""What a host sends: a producer of its own, whose acknowledgements a checkpoint waits for."""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from .broker_error import BrokerError
from .configuration import Kafka
from .kafka import make_producer

OUTAGE = 300.0
"""Seconds that a broker may be away: without an acknowledgement, while messages wait for one. Beyond, the process ends,
and the next one sends them again."""
FAREWELL = 60.0
"""Seconds that it has once the process is told to stop."""


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
        self._sent = self._answered = 0
        self._heard = time.monotonic()

    def send(self, topic: str, partition: int, value: bytes | None, key: bytes | None = None) -> None:
        """Hand one message over; waits where too much is on its way."""
        self._check()
        until = time.monotonic() + OUTAGE
        if not self.waiting:
            self._heard = time.monotonic()
        while True:
            try:
                self._producer.produce(topic, value, key, partition, on_delivery=self._delivered)
            except BufferError:
                if time.monotonic() > until:
                    raise BrokerError(f"{self._brokers}: the broker takes nothing more; is it running?") from None
                self._serve(0.1)
                self._check()
            except KafkaException as error:
                raise BrokerError(f"{topic}/{partition}: {error.args[0].str()}") from None
            else:
                self._sent += 1
                self._serve()
                return

    def poll(self) -> None:
        """Take acknowledgements that have come; BrokerError where one says that a message was not delivered, or, for
        who asks so again and again, none has come for `OUTAGE`."""
        self._serve()
        self._check()
        if self.waiting and time.monotonic() - self._heard > OUTAGE:
            raise BrokerError(f"{self._brokers}: nothing was acknowledged for {OUTAGE:.0f} s; is the broker running?")

    def flush(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Wait until everything sent is acknowledged; BrokerError where it is not within `OUTAGE`, or, from when `stop`
        says so, `FAREWELL`."""
        began, stopping = time.monotonic(), False
        until = began + OUTAGE
        while self.waiting and self._failed is None:
            now = time.monotonic()
            if not stopping and stop():
                stopping, until = True, min(until, now + FAREWELL)
            left = until - now
            if left <= 0:
                raise BrokerError(
                    f"{self._brokers}: {self.waiting:,} messages are not acknowledged after {now - began:.0f} s; "
                    "nothing of them is checkpointed, the next start sends them again"
                )
            self._serve(min(left, 0.5), self._producer.flush)  # one that failed can wait on for what never comes
        self._check()

    @property
    def waiting(self) -> int:
        """Messages that are not acknowledged yet."""
        return self._sent - self._answered

    def _serve(self, seconds: float = 0.0, by: Callable[[float], int] | None = None) -> None:
        """Let the client call back. A fatal error it raises here, or inside `_delivered`: then it is a SystemError."""
        before = self._answered
        try:
            (by or self._producer.poll)(seconds)
        except (KafkaException, SystemError) as error:
            fatal = error if isinstance(error, KafkaException) else error.__cause__ or error
            self._failed = self._failed or f"{self._brokers}: {fatal}"
        if self._answered != before:
            self._heard = time.monotonic()

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        self._answered += 1
        if error is not None and self._failed is None:
            self._failed = f"{message.topic()}/{message.partition()}: a message was not delivered: {error.str()}"

    def _check(self) -> None:
        if self._failed is not None:
            raise BrokerError(self._failed)
