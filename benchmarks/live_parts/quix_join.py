"""The attribution join alone in Quix Streams: a StreamingDataFrame with keyed state on RocksDB.

    python benchmarks/live_parts/quix_join.py BROKERS TOPIC OUTPUT MESSAGES

Reads the first MESSAGES messages of TOPIC, keyed by shopper. An impression is kept under its item in the shopper's
state; a click, cart or purchase looks its impression up and, inside the window, a label is sent to OUTPUT. State has a
changelog topic, as Quix has it. Tuned: msgspec for messages and state, librdkafka's fetch queue never pauses, batched
produces, a commit each five seconds. Prints one JSON line; time and CPU run from the first message to the last commit.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from typing import Any

import msgspec
from quixstreams import Application
from quixstreams.models import BytesSerializer, Deserializer
from quixstreams.state.rocksdb import RocksDBOptions

WINDOW = 7 * 86_400_000
"""Ms within which an effect belongs to an impression."""
KINDS = {"click", "add_to_cart", "purchase"}


class Event(msgspec.Struct):
    """What the join reads of an event."""

    type: str
    ts: int
    event_id: str = ""
    item_id: str = ""
    impression_id: str = ""


class Label(msgspec.Struct):
    """What is said of an effect that found its impression."""

    impression_id: str
    type: str
    ts: int
    shown: int


class EventDeserializer(Deserializer):  # type: ignore[misc]
    """JSON to `Event`."""

    def __init__(self) -> None:
        super().__init__()
        self._decode = msgspec.json.Decoder(Event).decode

    def __call__(self, value: bytes, ctx: Any) -> Event:
        """One message."""
        return self._decode(value)


def main() -> None:
    """Read the arguments, join, print."""
    parser = argparse.ArgumentParser()
    for name in ("brokers", "source", "output"):
        parser.add_argument(name)
    parser.add_argument("messages", type=int)
    chosen = parser.parse_args()
    counts = dict.fromkeys(sorted(KINDS), 0)
    seen = 0
    started: list[float] = []
    encode = msgspec.json.Encoder().encode

    def join(event: Event, state: Any) -> tuple[bytes, ...]:
        nonlocal seen
        if not seen:
            started.extend((time.perf_counter(), time.process_time()))
        seen += 1
        if seen == chosen.messages:
            app.stop()
        if event.type == "impression":
            state.set(event.item_id, (event.impression_id, event.ts))
        elif event.type in KINDS:
            found = state.get(event.item_id)
            if found is not None and 0 <= event.ts - found[1] <= WINDOW:
                counts[event.type] += 1
                return (encode(Label(found[0], event.type, event.ts, found[1])),)
        return ()

    with tempfile.TemporaryDirectory() as folder:
        app = Application(
            chosen.brokers,
            consumer_group=f"{chosen.source}-quix",
            auto_offset_reset="earliest",
            commit_interval=5.0,
            state_dir=folder,
            rocksdb_options=RocksDBOptions(dumps=msgspec.json.encode, loads=msgspec.json.decode),
            consumer_extra_config={
                "fetch.queue.backoff.ms": 2,
                "queued.min.messages": 1_000_000,
                "fetch.max.bytes": 64 << 20,
                "max.partition.fetch.bytes": 16 << 20,
                "session.timeout.ms": 6_000,
            },
            producer_extra_config={"linger.ms": 50, "batch.size": 1 << 20, "queue.buffering.max.messages": 1_000_000},
            loglevel="WARNING",
            broker_availability_timeout=0,
        )
        source = app.topic(chosen.source, key_deserializer="bytes", value_deserializer=EventDeserializer())
        labels = app.topic(chosen.output, key_serializer="bytes", value_serializer=BytesSerializer())
        app.dataframe(source).apply(join, stateful=True, expand=True).to_topic(labels)
        app.run()
        seconds, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
        print(json.dumps({"messages": chosen.messages, "seconds": seconds, "cpu": cpu, "joined": counts}))


if __name__ == "__main__":
    main()
