"""A case by topic: its messages on raw topics of a real broker, through ingest and the stages."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tests.cases.log_files import Found, Row, line_of, look
from thalweg.streams.configuration import Configuration, Duration, Kafka
from thalweg.streams.dead_letter import DeadLetter, DeadLetterFile, Reason, dead_letter
from thalweg.streams.host import Host
from thalweg.streams.ingester import Ingester
from thalweg.streams.kafka import create_topics, internal, read_on, tail
from thalweg.streams.outbox import Outbox
from thalweg.streams.state_directory import StateDirectory
from thalweg.streams.wire import Source

Raw = Row | str | bytes | None


@dataclass
class Topics:
    """Raw topics of one application; `run` sends messages, ingests them, and runs the stages on what ingest made.

    Attributes
    ----------
    rubbish : messages on the events topic that the latest `stages` met and that were no blocks
    emitted : by state, what its stages have sent to one another so far
    """

    folder: Path
    configuration: Configuration
    kafka: Kafka
    rubbish: int = 0
    emitted: dict[str, dict[str, list[bytes]]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        short = msgspec.structs.replace(self.configuration.time, idle_timeout=Duration.parse("400ms"))
        self.configuration = msgspec.structs.replace(self.configuration, kafka=self.kafka, time=short)
        create_topics(self.kafka, self.configuration.partitions)

    def topic(self, name: str) -> str:
        """The raw topic `name` of this application."""
        return f"{self.kafka.application}.{name}"

    def send(self, **messages: Iterable[Raw]) -> None:
        """Messages to raw topics, by the topic's name; None is a null payload."""
        outbox = Outbox(self.kafka)
        for name, values in messages.items():
            for value in values:
                outbox.send(self.topic(name), 0, None if value is None else line_of(value))
        outbox.flush()

    def ingest(self) -> int:
        """Ingest until every raw partition is idle; messages read."""
        ingester = Ingester(self.configuration)
        until = time.monotonic() + 180  # kernels may have to be compiled first

        def done() -> bool:
            assert time.monotonic() < until, "ingest did not come to an end"
            since = ingester.idle_since
            return since is not None and time.monotonic() - since > 0.2

        ingester.run(done)
        return ingester.rows

    def stages(self, name: str = "state") -> Found:
        """Run every stage on the blocks that it has not seen, each on its host, and look at the state.

        A state that is there is opened and goes on behind its last checkpoint, as after a restart.
        """
        state = StateDirectory(self.folder / name, self.configuration)
        letters = DeadLetterFile(self.folder / name / "dead_letters.jsonl")
        topics = self.emitted.setdefault(name, {"labels": [], "copurchases": [], "outcomes": []})
        topic = internal(self.kafka, "events")
        last = tail(self.kafka, topic, 0)
        events = [] if last is None else read_on(self.kafka, topic, 0, 0, last[0] + 1)
        [attribution] = state.attribution
        try:
            letters.write(self._ingested())
            hosts = {"attribution": Host(attribution, Source("events", "id", 0))}
            for offset, value in events:
                for to, message in hosts["attribution"].take(offset, value):
                    topics[to].append(message)
            for stage, reads in (("feedback", "labels"), ("copurchase", "copurchases"), ("calibration", "outcomes")):
                hosts[stage] = Host(getattr(state, stage), Source(reads, "id", 0))
                for offset, value in enumerate(topics[reads]):
                    for to, message in hosts[stage].take(offset, value):
                        topics[to].append(message)
            rubbish, aside = hosts["attribution"].take_letters()
            self.rubbish = len(rubbish)
            for source, offset, reason, kind in aside:
                letters.write([dead_letter((str(source), offset, offset + 1), Reason(reason), None, kind=kind)])
            state.checkpoint()
            return look(self.folder / name, state)
        finally:
            letters.close()
            state.close()

    def _ingested(self) -> list[DeadLetter]:
        """The dead letters of ingest, as records."""
        return [
            DeadLetter(**{"raw": None, **{k: v for k, v in letter.items() if k not in ("raw", "raw_base64")}})
            for letter in self.letters()
        ]

    def run(self, **messages: Sequence[Raw]) -> Found:
        """`send`, `ingest`, `stages`."""
        self.send(**messages)
        self.ingest()
        return self.stages()

    def letters(self) -> list[dict[str, Any]]:
        """The dead letters of ingest, by place."""
        topic = internal(self.kafka, "dead_letters")
        last = tail(self.kafka, topic, 0)
        found = [] if last is None else [json.loads(v or b"") for _, v in read_on(self.kafka, topic, 0, 0, last[0] + 1)]
        return sorted(found, key=lambda letter: (letter["source"], letter["row"]))


def closing(rows: Mapping[str, Sequence[Raw]], ts: int) -> dict[str, Sequence[Raw]]:
    """The same with a heartbeat behind each topic's messages, so that nothing stays held."""
    beat = {"type": "progress", "ts": ts, "event_id": f"beat-{ts}"}
    return {name: [*values, beat] for name, values in rows.items()}
