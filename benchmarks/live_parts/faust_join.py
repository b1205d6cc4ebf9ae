"""The attribution join alone as a plain Faust agent: one JSON message at a time, state in a Table.

    python benchmarks/live_parts/faust_join.py BROKERS TOPIC OUTPUT MESSAGES [--dict]

Reads the first MESSAGES messages of TOPIC, keyed by shopper. An impression is kept under (shopper, item); a click, cart
or purchase looks its impression up and, inside the window, a label is sent to OUTPUT. The topic is keyed already, so
there is no `group_by`. The Table is in memory with its changelog on the broker, as Faust has it; `--dict` takes a plain
dict instead, which no restart survives. Tuned: uvloop, raw serializers and msgspec, large fetches and buffers, batched
produces without waiting for each, no web server, no leader topic (a larger producer buffer and other fetch sizes
made no difference; `take` hung with the Table). Prints one JSON line; time and CPU run from the first message to the
last acknowledgement.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from typing import Any

import faust
import msgspec
import uvloop

WINDOW = 7 * 86_400_000
"""Ms within which an effect belongs to an impression."""
TIMEOUT = 600.0
"""Seconds after which it gives up."""
KINDS = {"click", "add_to_cart", "purchase"}


class Event(msgspec.Struct):
    """What the join reads of an event."""

    type: str
    ts: int
    event_id: str = ""
    item_id: str = ""
    impression_id: str = ""


class Shown(msgspec.Struct, array_like=True):
    """What is kept of an impression."""

    impression_id: str
    ts: int


class Label(msgspec.Struct):
    """What is said of an effect that found its impression."""

    impression_id: str
    type: str
    ts: int
    shown: int


def make_app(brokers: str, name: str, folder: str) -> faust.App:
    """A tuned app on the running event loop."""
    return faust.App(
        name,
        broker=f"kafka://{brokers}",
        store="memory://",
        datadir=folder,
        loop=asyncio.get_running_loop(),
        web_enabled=False,
        topic_disable_leader=True,
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.5,
        broker_commit_interval=5.0,
        broker_commit_every=100_000,
        broker_max_poll_records=5_000,
        stream_buffer_maxsize=20_000,
        stream_wait_empty=False,
        consumer_max_fetch_size=16 << 20,
        consumer_auto_offset_reset="earliest",
        producer_linger=0.02,
        producer_max_batch_size=1 << 20,
        producer_acks=1,
        table_cleanup_interval=3600.0,
    )


async def run(brokers: str, source: str, output: str, messages: int, in_dict: bool, folder: str) -> dict[str, Any]:
    """Join; the measure."""
    app = make_app(brokers, f"{source}-faust{'-dict' if in_dict else ''}", folder)
    raw: Any = faust.Schema(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    topic, labels = app.topic(source, schema=raw), app.topic(output, schema=raw)
    shown: Any = {} if in_dict else app.Table("shown", partitions=1, key_type=bytes, value_type=bytes)
    decode, encode = msgspec.json.Decoder(Event).decode, msgspec.json.Encoder().encode
    unpack, pack = msgspec.msgpack.Decoder(Shown).decode, msgspec.msgpack.Encoder().encode
    counts = dict.fromkeys(sorted(KINDS), 0)
    done = asyncio.Event()
    started: list[float] = []
    seen = 0

    async def join(stream: Any) -> None:
        nonlocal seen
        async for key, value in stream.items():
            if not seen:
                started.extend((time.perf_counter(), time.process_time()))
            event = decode(value)
            if event.type == "impression":
                shown[key + event.item_id.encode()] = pack(Shown(event.impression_id, event.ts))
            elif event.type in KINDS:
                found = shown.get(key + event.item_id.encode())
                if found is not None:
                    impression = unpack(found)
                    if 0 <= event.ts - impression.ts <= WINDOW:
                        counts[event.type] += 1
                        said = Label(impression.impression_id, event.type, event.ts, impression.ts)
                        labels.send_soon(key=key, value=encode(said))
            seen += 1
            if seen == messages:
                done.set()
                await asyncio.Event().wait()

    app.agent(topic)(join)
    starting = asyncio.ensure_future(app.start())  # it can wait for ever although messages flow
    await done.wait()
    await app.producer.flush()
    seconds, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    assert not starting.done() or starting.exception() is None
    return {"messages": messages, "seconds": seconds, "cpu": cpu, "joined": counts}


def main() -> None:
    """Read the arguments, join, print."""
    parser = argparse.ArgumentParser()
    for name in ("brokers", "source", "output"):
        parser.add_argument(name)
    parser.add_argument("messages", type=int)
    parser.add_argument("--dict", action="store_true")
    chosen = parser.parse_args()
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    with tempfile.TemporaryDirectory() as folder:
        job = run(chosen.brokers, chosen.source, chosen.output, chosen.messages, chosen.dict, folder)
        print(json.dumps(loop.run_until_complete(asyncio.wait_for(job, TIMEOUT))), flush=True)
    os._exit(0)  # no farewell to tasks that Faust may never finish


if __name__ == "__main__":
    main()
