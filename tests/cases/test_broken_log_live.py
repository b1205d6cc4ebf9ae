"""A log with one broken line in a hundred, and rubbish on every internal topic, through a running system.

Published to raw topics of two partitions, read by a worker that runs twice; between its runs every internal topic gets
messages that are no blocks. The state is that of a replay of the log, and each dead letter is found again at its topic,
partition and offset, byte for byte: those of ingest, those of the stages, and those of rows that attribution set aside.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.brokers import new_kafka
from tests.cases.log_files import line_of, small
from tests.cases.test_broken_lines import draw_lines
from tests.live import Live
from thalweg.streams.configuration import Kafka
from thalweg.streams.dead_letter import RAW_LIMIT
from thalweg.streams.kafka import DEAD_LETTERS, internal, partitions, read_on, tail
from thalweg.streams.outbox import Outbox
from thalweg.streams.replay import replay
from thalweg.streams.state_directory import StateDirectory
from thalweg.streams.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.broker]

INTERNAL = ("events", "labels", "copurchases", "outcomes")
CONFLICTS = 20


def messages(kafka: Kafka, topic: str) -> dict[tuple[str, int], bytes | None]:
    """Everything on a topic, by (topic/partition, offset)."""
    found: dict[tuple[str, int], bytes | None] = {}
    for partition in range(partitions(kafka, [topic])[topic]):
        last = tail(kafka, topic, partition)
        for offset, value in [] if last is None else read_on(kafka, topic, partition, 0, last[0] + 1):
            found[f"{topic}/{partition}", offset] = value
    return found


def raw_of(letter: dict[str, Any]) -> bytes | None:
    """The bytes that a dead letter keeps."""
    if "raw_base64" in letter:
        return base64.b64decode(letter["raw_base64"])
    return None if letter["raw"] is None else letter["raw"].encode()


def conflicting(lines: Sequence[tuple[bytes, str | None]]) -> list[tuple[bytes, str | None]]:
    """The lines with, behind some of the good ones, the same event id with another item."""
    out: list[tuple[bytes, str | None]] = []
    for n, line in enumerate(lines):
        out.append(line)
        if line[1] is None and n % (len(lines) // CONFLICTS) == 7:
            out.append((line_of({**json.loads(line[0]), "item_id": "another"}), "id_conflict"))
    return out


@dataclass
class Ran:
    """The live run, the replay's state, the log's rejects, and the rubbish that was sent to each internal topic."""

    live: Live
    replayed: Path
    rejects: list[tuple[bytes, str]]
    rubbish: dict[str, list[bytes | None]]
    letters: list[dict[str, Any]]


@pytest.fixture(scope="module")
def ran(brokers: str, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("broken")
    lines = conflicting(draw_lines())
    middle = len(lines) // 2
    logs = [folder / "first.jsonl", folder / "second.jsonl"]
    for log, part in zip(logs, (lines[:middle], lines[middle:]), strict=True):
        log.write_bytes(b"".join(line + b"\n" for line, _ in part))
    replay(logs, folder / "replayed", small(), close=True)

    kafka = new_kafka(brokers)
    raw = {f"{kafka.application}.purchases": "purchase", f"{kafka.application}.rest": ""}
    live = Live(folder / "live", small(), msgspec.structs.replace(kafka, topics=raw))
    live.create(raw=2)
    live.publish(logs[0])
    live.worker()
    outbox, rubbish = Outbox(live.configuration.kafka), {}
    for topic in INTERNAL:
        name = internal(live.configuration.kafka, topic)
        whole = next(value for value in messages(live.configuration.kafka, name).values() if value)
        rubbish[topic] = [b"", None, b"no block", whole[: len(whole) // 2]]
        for value in rubbish[topic]:
            outbox.send(name, 0, value)
    outbox.flush()
    live.publish(logs[1], close=True)
    live.worker()
    rejects = [(line, reason) for line, reason in lines if reason is not None]
    topic = internal(live.configuration.kafka, DEAD_LETTERS)
    letters = [json.loads(value or b"") for value in messages(live.configuration.kafka, topic).values()]
    return Ran(live, folder / "replayed", rejects, rubbish, letters)


def test_the_state_and_the_books_are_those_of_the_replay(ran: Ran) -> None:
    comparison = verify(ran.replayed, ran.live.state)
    assert comparison.equal, "; ".join(str(difference) for difference in comparison.differences)
    assert comparison.late == (0, 0)
    assert books(ran.live.state) == books(ran.replayed)
    assert books(ran.replayed)["impression"]["dead_lettered"] > 0 and books(ran.replayed)["unknown"]["read"] > 50


def books(state: Path) -> dict[str, dict[str, int]]:
    """The books of a state, heartbeats left out."""
    with StateDirectory(state, read_only=True) as opened:
        return {name: terms for name, terms in opened.attribution[0].books().items() if name != "progress"}


def test_every_dead_letter_is_found_again_with_topic_partition_and_offset(ran: Ran) -> None:
    kafka = ran.live.configuration.kafka
    there: dict[tuple[str, int], bytes | None] = {}
    for topic in (*kafka.topics, *(internal(kafka, topic) for topic in INTERNAL)):
        there |= messages(kafka, topic)
    assert len({letter["source"] for letter in ran.letters}) >= 4 + 3, "both kinds of topics, several partitions"
    for letter in ran.letters:
        value = there[letter["source"], letter["row"]]
        assert raw_of(letter) == (value and value[:RAW_LIMIT]), letter
        assert letter["length"] == len(value or b"")


def test_they_are_the_rejects_of_the_log(ran: Ran) -> None:
    """Each with its reason, none twice; of two events with one id the one that is set aside is either of them."""
    kafka = ran.live.configuration.kafka
    of_log = [letter for letter in ran.letters if letter["reason"] != "bad_block"]
    assert all(letter["source"].rpartition("/")[0] in kafka.topics for letter in of_log)
    assert len({(letter["source"], letter["row"]) for letter in ran.letters}) == len(ran.letters)
    found = Counter((raw_of(letter), letter["reason"]) for letter in of_log if letter["reason"] != "id_conflict")
    assert found == Counter(each for each in ran.rejects if each[1] != "id_conflict")
    conflicts = [json.loads(letter["raw"])["event_id"] for letter in of_log if letter["reason"] == "id_conflict"]
    assert Counter(conflicts) == Counter(
        json.loads(raw)["event_id"] for raw, why in ran.rejects if why == "id_conflict"
    )
    assert len(conflicts) >= CONFLICTS


@pytest.mark.parametrize("topic", INTERNAL)
def test_what_is_no_block_stops_no_stage(topic: str, ran: Ran) -> None:
    """Empty, null, text, a block cut off: each a dead letter of its stage, and the stage has gone on behind it."""
    place = f"{internal(ran.live.configuration.kafka, topic)}/0"
    mine = sorted((letter for letter in ran.letters if letter["source"] == place), key=lambda letter: letter["row"])
    assert [letter["reason"] for letter in mine] == ["bad_block"] * 4
    assert [raw_of(letter) for letter in mine] == [value and value[:RAW_LIMIT] for value in ran.rubbish[topic]]
