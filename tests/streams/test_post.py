"""A post: what failed once is never committed; the next start reads on from the checkpoint before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from thalweg.streams.block import Block
from thalweg.streams.broker_error import BrokerError
from thalweg.streams.configuration import Configuration, Duration, Kafka
from thalweg.streams.post import Post
from thalweg.streams.raw_reader import GONE, Again
from thalweg.streams.row import EVENT_ROW
from thalweg.streams.state_directory import open_store
from thalweg.streams.wire import Message, Source, encode

INPUT = Source("thalweg.events", "id", 0)


def block(configuration: Configuration, start: int, end: int) -> bytes:
    """A block without rows that covers raw offsets [start, end)."""
    covers = Block(np.zeros(0, EVENT_ROW), np.zeros((0, 0), np.uint32), {0: (start, end)}, clock=end)
    return encode(Message(covers, configuration.fingerprint(), sources=(Source("clicks", "raw", 0),)))


@pytest.fixture
def post(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Post:
    """Attribution on a broker that is not there, and no patience."""
    monkeypatch.setattr("thalweg.streams.outbox.OUTAGE", 0.2)
    configuration = Configuration(kafka=Kafka(brokers="127.0.0.1:1", checkpoint=Duration.parse("1h")))
    return Post(configuration, tmp_path, "attribution", INPUT, examples=False)


def committed(post: Post, folder: Path) -> bool:
    """Whether anything was ever committed."""
    post.close()
    store = open_store(folder, "attribution", 0, post.configuration)
    fresh = store.fresh
    store.close()
    return not fresh


def test_without_acknowledgements_nothing_is_committed(post: Post, tmp_path: Path) -> None:
    post.take(0, block(post.configuration, 0, 5))
    with pytest.raises(BrokerError, match="not acknowledged"):
        post.checkpoint()
    assert post.broken
    post.checkpoint()  # nor later, although it is asked again
    assert not committed(post, tmp_path)


def test_half_a_block_is_never_committed(post: Post, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage fails behind its marks: a commit now would hide the rest of the block from the next start."""
    monkeypatch.setattr(post.host.stage, "_accept", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        post.take(0, block(post.configuration, 0, 5))
    assert int(post.host.stage.marks[0]) == 5, "the marks have passed it"
    monkeypatch.setattr("thalweg.streams.outbox.Outbox.flush", lambda *_: None)
    post.take(1, block(post.configuration, 5, 6))
    post.checkpoint()
    assert not committed(post, tmp_path)


def test_rows_set_aside_are_dead_letters_with_their_bytes_or_why_not(
    post: Post, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clicks, sent = Source("clicks", "raw", 3), []
    post.host.aside = [(clicks, 9, "id_conflict", "click"), (clicks, 7, "too_late", "click")]
    there = [Again(clicks, 7, "clicks/3", b"{}", ""), Again(clicks, 9, "clicks/3", None, GONE)]
    monkeypatch.setattr(post._raw, "read", lambda places: there if set(places) == {(clicks, 7), (clicks, 9)} else [])
    monkeypatch.setattr(post._outbox, "send", lambda topic, partition, value, key: sent.append((topic, value)))
    post._send_letters()
    letters = [json.loads(value) for _, value in sent]
    assert {topic for topic, _ in sent} == {"thalweg.dead_letters"}
    assert [(x["source"], x["row"], x["reason"], x["type"], x["raw"], x["detail"]) for x in letters] == [
        ("clicks/3", 7, "too_late", "click", "{}", ""), ("clicks/3", 9, "id_conflict", "click", None, GONE),
    ]  # fmt: skip
    post.close()
