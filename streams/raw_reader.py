"""Reads raw messages again: the bytes of events that attribution set aside, for their dead letters."""

from __future__ import annotations

import time

from confluent_kafka import Consumer, KafkaException, TopicPartition

from .configuration import Kafka
from .kafka import make_consumer
from .wire import Source

PATIENCE = 5.0
"""Seconds that the broker has to give a message back."""

GONE = "its bytes are no longer on the topic"
ELSEWHERE = "read by an earlier replay: its content stands in that file"


class RawReader:
    """One message at a time, by its place; the consumer is made when the first is asked for."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._consumer: Consumer | None = None

    def read(self, source: Source, offset: int) -> tuple[str, bytes | None, str]:
        """The place's name for a dead letter, its bytes, and a remark where they cannot be had (then None)."""
        if not isinstance(source.partition, int):  # a log file, see AttributionStage.registry
            return source.topic, None, ELSEWHERE
        if self._consumer is None:
            self._consumer = make_consumer(self._kafka, f"{self._kafka.application}-reread")
        try:
            self._consumer.assign([TopicPartition(source.topic, source.partition, offset)])
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until:
                message = self._consumer.poll(0.2)
                if message is not None:
                    if message.error() is None and message.offset() == offset:
                        return str(source), message.value(), ""
                    break
        except KafkaException:
            pass
        return str(source), None, GONE

    def close(self) -> None:
        """Close the consumer, if there is one."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
