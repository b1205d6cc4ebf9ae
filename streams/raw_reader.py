"""Reads raw messages again: the bytes of events that attribution set aside, for their dead letters."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from .broker_error import BrokerError
from .configuration import Kafka
from .kafka import make_consumer, topic_ids, watermarks
from .wire import Source

LOOKS = 100
"""So often it is asked in vain, `LOOK` seconds each, before what it does not give back counts as gone."""
LOOK = 0.05
STRIDE = 20_000
"""Messages that are read over to the next one wanted; a longer way is jumped."""

_OUT_OF_RANGE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)

GONE = "its bytes are no longer on the topic"
ELSEWHERE = "read by an earlier replay: its content stands in that file"


class Again(NamedTuple):
    """A message read again: its place, the name of its partition, its bytes, or a remark why there are none."""

    source: Source
    offset: int
    name: str
    raw: bytes | None
    detail: str


class RawReader:
    """Messages by their places; the consumer is made when the first is asked for.

    >>> [again.detail for again in RawReader(Kafka()).read([(Source("log.jsonl", "", None), 4)])]
    ['read by an earlier replay: its content stands in that file']
    """

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._consumer: Consumer | None = None
        self._ids: dict[str, str | None] = {}

    def read(self, places: Iterable[tuple[Source, int]]) -> Iterator[Again]:
        """Each place once, by partition and offset; what a broker does not give back within a bound counts as gone."""
        wanted: dict[Source, set[int]] = defaultdict(set)
        for source, offset in places:
            wanted[source].add(offset)
        for source, offsets in wanted.items():
            if not isinstance(source.partition, int):  # a log file, see AttributionStage.registry
                yield from (Again(source, offset, source.topic, None, ELSEWHERE) for offset in sorted(offsets))
                continue
            found: dict[int, bytes | None] = {}
            try:
                if self._id(source.topic) == source.id:  # else made again: its offsets are those of other messages
                    found.update(self._found(source, deque(sorted(offsets))))
            except (KafkaException, BrokerError):
                pass
            for offset in sorted(offsets):
                yield Again(source, offset, str(source), found.get(offset), "" if offset in found else GONE)

    def _found(self, source: Source, wanted: deque[int]) -> Iterator[tuple[int, bytes | None]]:
        """(offset, value) of those wanted, in order, that are there."""
        if self._consumer is None:
            # A fetch at the end of a partition is held back for half a second unless told, and a jump waits for it.
            self._consumer = make_consumer(
                self._kafka, f"{self._kafka.application}-reread", **{"fetch.wait.max.ms": 20}
            )
        at = -STRIDE - 1
        vain = 0
        while wanted and vain < LOOKS:
            if wanted[0] - at > STRIDE:
                at = wanted[0]
                self._consumer.assign([TopicPartition(source.topic, source.partition, at)])
            vain += 1
            for message in self._consumer.consume(500, timeout=LOOK):
                error, offset = message.error(), int(message.offset() or 0)
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        return
                    if error.code() in _OUT_OF_RANGE:
                        at = self._begin(source, wanted)
                        break
                    continue  # a connection lost, a leader elected: it comes again
                at, vain = offset + 1, 0
                while wanted and wanted[0] < offset:
                    wanted.popleft()
                if wanted and wanted[0] == offset:
                    yield wanted.popleft(), message.value()

    def _begin(self, source: Source, wanted: deque[int]) -> int:
        """Leave out what expired; where nothing is read yet."""
        assert self._consumer is not None
        low, _ = watermarks(self._kafka, self._consumer, source.topic, source.partition)
        first = wanted.popleft()
        while wanted and wanted[0] < max(low, first + 1):
            wanted.popleft()
        return -STRIDE - 1

    def _id(self, topic: str) -> str | None:
        """Id of the topic, asked for once."""
        if topic not in self._ids:
            self._ids |= topic_ids(self._kafka, [topic])
        return self._ids[topic]

    def close(self) -> None:
        """Close the consumer, if there is one."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
