"""Runs the attribution join in Faust and in Quix Streams, and the same join as a plain loop to check what they say.

Both run in an environment of their own, made once under the cache folder: nothing of it is a dependency of Thalweg.
"""

from __future__ import annotations

import json
import os
import subprocess
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Consumer, TopicPartition

PACKAGES = (
    "quixstreams==3.28.0", "faust-streaming==0.15.3", "mode-streaming==0.7.1", "aiokafka==0.14.0", "uvloop==0.23.0",
    "msgspec==0.22.0",
)  # fmt: skip
WINDOW = 7 * 86_400_000
"""Ms within which an effect belongs to an impression, as in the two programs and in the configuration."""
EFFECTS = ("click", "add_to_cart", "purchase")
HERE = Path(__file__).parent


def environment() -> Path:
    """The Python of the peers' environment; made where it is missing."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("THALWEG_CACHE") or Path(cache, "thalweg")) / "benchmark-peers"
    python, made = folder / "bin" / "python", folder / "installed"
    if not made.exists() or made.read_text().split() != list(PACKAGES):
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--quiet", "--no-input", *PACKAGES], check=True)
        made.write_text("\n".join(PACKAGES))
    return python


def run(program: str, brokers: str, source: str, output: str, messages: int, *more: str) -> dict[str, Any]:
    """One of the two programs on the first messages of a topic: rate, CPU seconds a million, effects joined."""
    command = [str(environment()), "-W", "ignore", str(HERE / program), brokers, source, output, str(messages), *more]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=900)
    said = json.loads(done.stdout.splitlines()[-1])
    return {
        "messages": messages,
        "events_per_second": messages / said["seconds"],
        "cpu_seconds_per_million": 1e6 * said["cpu"] / messages,
        "joined": said["joined"],
    }


class Event(msgspec.Struct):
    """What the join reads of an event."""

    type: str
    ts: int
    item_id: str = ""


@dataclass
class PlainJoin:
    """The join as a loop over the topic: what the two must count after so many messages.

    Attributes
    ----------
    messages : read so far
    joined : effects that found their impression, by type
    events : messages by type
    """

    brokers: str
    topic: str
    messages: int = 0
    joined: dict[str, int] = field(default_factory=lambda: dict.fromkeys(EFFECTS, 0))
    events: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = {"bootstrap.servers": self.brokers, "group.id": f"{self.topic}-plain", "fetch.queue.backoff.ms": 2}
        self._consumer = Consumer(settings)
        self._consumer.assign([TopicPartition(self.topic, 0, 0)])
        self._shown: dict[tuple[bytes, str], int] = {}
        self._decode = msgspec.json.Decoder(Event).decode

    def read(self, until: int) -> dict[str, int]:
        """Go on to so many messages; the effects joined so far, by type."""
        while self.messages < until:
            for message in self._consumer.consume(min(10_000, until - self.messages), 10.0):
                self._take(message.key() or b"", self._decode(message.value() or b""))
        return dict(self.joined)

    def _take(self, key: bytes, event: Event) -> None:
        self.messages += 1
        self.events[event.type] = self.events.get(event.type, 0) + 1
        if event.type == "impression":
            self._shown[key, event.item_id] = event.ts
        elif event.type in EFFECTS:
            shown = self._shown.get((key, event.item_id))
            if shown is not None and 0 <= event.ts - shown <= WINDOW:
                self.joined[event.type] += 1

    def close(self) -> None:
        """Give the consumer back."""
        self._consumer.close()
