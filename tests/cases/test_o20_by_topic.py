"""O20 by topic: a whole system, ingest and stages, is killed again and again, and ends as an undisturbed replay does.

The 30,000 events of O20 on raw topics; a worker with its ingester is killed at named sites (at a refresh, inside a
checkpoint, between the sending of a block and its checkpoint) and at moments drawn from a seed, and stopped once by
SIGTERM. Before each of them a further part of the log is published: no stage, however far it got before, has passed
the site that is armed. What is emitted again after a kill is what was emitted before. Four kills here; twenty seeds
with ten, and pauses of up to 2 s, by

    O20_SEEDS=20 .venv/bin/python -m pytest tests/cases/test_o20_by_topic.py
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.brokers import new_kafka
from tests.cases import test_o20
from tests.live import Live, ended
from tests.processes import positions
from thalweg.streams.configuration import Configuration
from thalweg.streams.kafka import internal, read_on, tail
from thalweg.streams.replay import replay
from thalweg.streams.row import LABEL_ROW
from thalweg.streams.state_directory import StateDirectory
from thalweg.streams.verify import verify
from thalweg.streams.wire import decode

pytestmark = [pytest.mark.slow, pytest.mark.broker]

SEEDS = int(os.environ.get("O20_SEEDS", "1"))
REFRESH = ["refresh snapshot:1"] if SEEDS == 1 else ["refresh snapshot:1", "refresh wait:1"]
"""Killed here first: the log has one refresh, in the first part, whose version is put into service in the second."""
REST = ["checkpoint batch ready:2", "attribution block sent:8", "kill", "terminate"]
if SEEDS > 1:
    REST += ["feedback block sent:3", *["kill"] * 5]
BLOCK_ROWS = 250
PAUSE = 0.0 if SEEDS == 1 else 2.0

log = test_o20.log
settings = test_o20.settings


@pytest.fixture(scope="module")
def parts(log: Path, settings: Configuration, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The log in parts, one before each kill and one for the end; the first ends half a day after the refresh."""
    folder = tmp_path_factory.mktemp("parts")
    table = pq.read_table(log / "funnel.parquet")
    ts = np.maximum.accumulate(table["ts"].to_numpy())
    refresh = int(settings.graph.refresh)
    first = int(np.searchsorted(ts, -(-int(ts[0]) // refresh) * refresh + int(settings.graph.refresh_delay) // 2))
    cuts = [0, *np.linspace(first, len(ts), len(REFRESH) + len(REST) + 1).astype(int)]
    assert first < len(ts) // 2 and min(np.diff(cuts)) > 10 * BLOCK_ROWS, "a part has blocks for every site"
    files = [folder / f"part-{i:02}.parquet" for i in range(len(cuts) - 1)]
    for file, start, end in zip(files, cuts, cuts[1:], strict=False):
        pq.write_table(table[start:end], file)
    return files


@pytest.fixture(scope="module")
def undisturbed(parts: list[Path], settings: Configuration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a replay."""
    state = tmp_path_factory.mktemp("clean") / "state"
    replay(parts, state, settings, close=True)
    return state


def at_work(live: Live, run: object) -> bool:
    """Wait until the worker has committed something more than was there; False where it ended before."""
    before = positions(live.state)
    until = time.monotonic() + 600
    while run.poll() is None:  # type: ignore[attr-defined]
        assert time.monotonic() < until
        if sum(positions(live.state)) > sum(before):
            return True
        time.sleep(0.05)
    return False


def disturb(live: Live, how: str, draw: random.Random) -> None:
    """One run, which a signal or an armed site ends."""
    site = {"THALWEG_FAULT": how} if ":" in how else {}
    if "block sent" in how:  # what it sends is sent again: nothing of it is checkpointed
        site["THALWEG_KAFKA__CHECKPOINT"] = "1h"
    run = live.start("worker", "--state", str(live.state), THALWEG_KAFKA__BLOCK_ROWS=str(BLOCK_ROWS), **site)
    if not site and at_work(live, run):
        time.sleep(draw.uniform(0, 0.5))
        run.send_signal(signal.SIGTERM if how == "terminate" else signal.SIGKILL)
    said = ended(run, 600)
    assert run.returncode == (0 if how == "terminate" else -signal.SIGKILL), (how, run.returncode, said[-2000:])


def labels(live: Live) -> tuple[dict[tuple[int, int, int], bytes], int]:
    """Every label operation on the topic by its key, each with one value only; how many came again."""
    kafka, found, again = live.configuration.kafka, {}, 0
    topic = internal(kafka, "labels")
    last = tail(kafka, topic, 0)
    assert last is not None
    for _, value in read_on(kafka, topic, 0, 0, last[0] + 1):
        for row in decode(value, LABEL_ROW, len(live.configuration.features)).block.rows:
            key = (int(row["rank"]), int(row["id"]), int(row["id2"]))
            again += key in found
            assert found.setdefault(key, row.tobytes()) == row.tobytes(), "emitted again with another value"
    return found, again


@pytest.mark.parametrize("seed", range(SEEDS))
def test_killed_it_ends_with_the_state_of_a_replay(
    seed: int, parts: list[Path], settings: Configuration, undisturbed: Path, brokers: str, tmp_path: Path
) -> None:
    draw = random.Random(seed)
    live = Live(tmp_path, settings, new_kafka(brokers))
    live.create()
    kinds = [*REFRESH, *draw.sample(REST, len(REST))]
    for part, how in zip(parts, kinds, strict=False):
        live.publish(part)
        before = positions(live.state)
        disturb(live, how, draw)
        after = positions(live.state)
        assert all(a >= b for a, b in zip(after, before, strict=False)), f"{how}: back from {before} to {after}"
        time.sleep(draw.uniform(0, PAUSE))
    live.publish(parts[-1], close=True)
    live.worker()
    comparison = verify(undisturbed, live.state)
    assert comparison.equal, f"seed {seed}, {kinds}: {'; '.join(str(each) for each in comparison.differences)}"
    assert comparison.late == (0, 0)
    with StateDirectory(live.state, read_only=True) as ended, StateDirectory(undisturbed, read_only=True) as clean:
        ours, theirs = ended.attribution[0].books(), clean.attribution[0].books()
        assert {k: v for k, v in ours.items() if k != "progress"} == {
            k: v for k, v in theirs.items() if k != "progress"
        }
    found, again = labels(live)
    assert len(found) > 10_000 and again > 0, "killed long after a checkpoint, it emits again, and the same"
