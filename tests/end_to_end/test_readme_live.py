"""README's six commands from topics of a shop's own to a recommendation, as they stand there, on a real broker."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.brokers import new_kafka
from tests.live import IDLE, THALWEG
from tests.test_documents import ROOT, blocks
from thalweg.streams.kafka import create_topics, make_producer
from thalweg.streams.row import DAY
from thalweg.streams.state_directory import StateDirectory

pytestmark = [pytest.mark.slow, pytest.mark.broker]


def their_configuration(brokers: str, application: str) -> str:
    """README's, on this broker: names of topics are this test's own, and there is no login."""
    offline, live = blocks(ROOT / "README.md", "toml")
    live = live[: live.index("[kafka.client]")].replace('"shop.', f'"{application}.shop.')
    live, count = re.subn(r'brokers = ".*"', f'brokers = "{brokers}"\napplication = "{application}"', live)
    assert count == 1
    return offline + live


def sales() -> list[dict[str, Any]]:
    """Five people buy a case soon after a phone; u1 has bought but a phone. A view stands behind it all."""
    bought = [(f"w{n}", item, f"2026-03-03T10:{n}{m}:00Z") for n in range(5) for m, item in ((0, "phone"), (8, "case"))]
    bought.append(("u1", "phone", "2026-03-10T10:00:00Z"))
    rows = [
        {"type": "purchase", "event_id": f"s{n}", "ts": ts, "user_id": user, "item_id": item, "order_id": f"s{n}"}
        for n, (user, item, ts) in enumerate(bought)
    ]
    last = {"type": "impression", "event_id": "v9", "ts": "2026-03-11T10:00:00Z", "user_id": "w9", "item_id": "case"}
    return [*rows, last]


def send(brokers: str, application: str) -> int:
    """The shop sends README's events, and sales, as its own producer would: no keys, views without a type; how many."""
    kafka = new_kafka(brokers, {f"{application}.shop.views": "impression", f"{application}.shop.events": ""})
    create_topics(kafka, 1, raw=3)
    producer = make_producer(kafka)
    events = [json.loads(line) for line in blocks(ROOT / "README.md", "json")[0].splitlines()]
    events = sorted([*events, *sales()], key=lambda event: str(event["ts"]))
    for event in events:
        view = event["type"] == "impression"
        if view:
            del event["type"]
        producer.produce(f"{application}.shop.{'views' if view else 'events'}", json.dumps(event).encode())
    assert producer.flush(20) == 0
    return len(events)


def worked_through(state: Path, count: int) -> bool:
    """Whether every stage stands behind all events but the last, which the merge holds: nothing comes after it."""
    try:
        with StateDirectory(state, read_only=True) as opened:
            books, clocks = opened.attribution[0].books(), {stage.clock for stage in opened.stages()}
    except Exception:  # not made yet
        return False
    return sum(terms["applied"] for terms in books.values()) == count - 1 and len(clocks) == 1


def test_from_a_topic_of_theirs_to_a_recommendation(brokers: str, tmp_path: Path) -> None:
    application = new_kafka(brokers).application
    (tmp_path / "shop.toml").write_text(their_configuration(brokers, application))
    count = send(brokers, application) + 10
    early = [
        {
            "event_id": f"{item}{n}",
            "type": "purchase",
            "ts": 1767225600000 + day * DAY,
            "user_id": f"v{n}",
            "item_id": item,
        }
        for n in range(5)
        for day, item in enumerate(("tent", "lamp"))
    ]
    pq.write_table(pa.Table.from_pylist(early), tmp_path / "history.parquet")
    (six,) = (block for block in blocks(ROOT / "README.md") if "thalweg worker" in block)
    install, *commands = six.strip().splitlines()
    assert install.startswith("pip install") and len(commands) == 5
    environment = {**os.environ, "THALWEG_TIME__IDLE_TIMEOUT": IDLE, "PYTHONPATH": str(ROOT)}
    said = ""
    for line in commands:
        program, *words = shlex.split(line.partition("#")[0])
        assert program == "thalweg"
        process = subprocess.Popen(
            [*THALWEG, *words], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if words[0] == "worker":  # until Ctrl-C
            until = time.monotonic() + 600
            while not worked_through(tmp_path / "state", count) and process.poll() is None and time.monotonic() < until:
                time.sleep(0.2)
            process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=600)
        assert process.returncode == 0, f"{line}: {errors}"
    assert worked_through(tmp_path / "state", count)
    assert re.search("case.*phone", said), f"of what was sold on the topic alone: {said}"
    assert "tent" in said or "lamp" in said, f"of what was sold before: {said}"


def test_the_readmes_path_is_that_of_a_configuration() -> None:
    """What this test leaves out of README's configuration is the login alone."""
    left_out = blocks(ROOT / "README.md", "toml")[1].partition("[kafka.client]")[2]
    assert all(line.startswith(("security_", "sasl_")) for line in left_out.strip().splitlines()[1:])
