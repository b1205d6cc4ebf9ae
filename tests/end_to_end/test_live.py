"""Live equals replay: the same events through a real broker, ingest and Faust workers end in the state of a replay.

300 thousand funnel events with returns, at least 3 refreshes and readings of two levels and more, as in test_parity;
under faults: kill -9 of the worker and of the ingester at named sites, a second worker that joins and leaves, resends,
disorder, raw partitions read at unequal speed, late rows, a backtest that goes on live.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.brokers import ApacheKafka, new_kafka
from tests.live import Live
from thalweg.graph_store import fault
from thalweg.streams.configuration import RAW_TOPICS, Configuration, load
from thalweg.streams.funnel import simulate
from thalweg.streams.replay import replay
from thalweg.streams.state_directory import StateDirectory
from thalweg.streams.verify import Comparison, verify

pytestmark = [pytest.mark.slow, pytest.mark.broker]

EVENTS, LATENESS = 300_000, 10_000
SETTINGS = {"THALWEG_CONVERSION__POLICY": "vanilla", "THALWEG_CONVERSION__NEGATIVE_SAMPLING": "10"}


def configured(log: Path, partitions: int = 1) -> Configuration:
    """The funnel's configuration, with a learner under which uncertainty levels go into service."""
    return load(log.with_name("funnel.toml"), SETTINGS, partitions=partitions)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The funnel, with returns."""
    path = tmp_path_factory.mktemp("live") / "funnel.parquet"
    simulate(path, EVENTS, seed=5, returns=0.1, days=60)
    return path


@pytest.fixture(scope="module")
def replayed(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a replay of the log."""
    state = tmp_path_factory.mktemp("replayed") / "state"
    replay([log], state, configured(log), block_rows=50_000)
    with StateDirectory(state, read_only=True) as opened:
        assert len(opened.copurchase.manifests()) >= 3
        readings = [opened.calibration.reading_at(epoch) for epoch in opened.calibration.shelf.epochs()]
        assert sum(reading is not None and reading.levels >= 2 for reading in readings) >= 2
        assert opened.attribution[0].books()["return"]["reversal"] > 100
    return state


@pytest.fixture(scope="module")
def raw(log: Path, brokers: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Raw topics with the log on them, two partitions each: a backlog for every test that reads it."""
    publisher = Live(tmp_path_factory.mktemp("raw"), configured(log), new_kafka(brokers))
    publisher.create(raw=2)
    publisher.publish(log)
    return publisher.configuration.kafka.topics


def same(one: Path, other: Path) -> Comparison:
    """Trails and digests agree; the comparison."""
    comparison = verify(one, other)
    assert comparison.equal, "; ".join(str(difference) for difference in comparison.differences)
    return comparison


def equal(one: Path, other: Path) -> None:
    """Trails and digests agree, and no row was late."""
    assert same(one, other).late == (0, 0)


def test_one_partition(log: Path, replayed: Path, raw: dict[str, str], brokers: str, tmp_path: Path) -> None:
    live = Live(tmp_path, configured(log), new_kafka(brokers, raw))
    live.create()
    live.worker()
    equal(replayed, live.state)


def test_four_partitions(log: Path, replayed: Path, raw: dict[str, str], brokers: str, tmp_path: Path) -> None:
    live = Live(tmp_path, configured(log, 4), new_kafka(brokers, raw))
    live.create()
    live.worker()
    equal(replayed, live.state)


def test_a_second_worker_joins_and_leaves(log: Path, replayed: Path, apache: ApacheKafka, tmp_path: Path) -> None:
    """While the first is at work it takes partitions over, and gives them back; blocks are of 500 rows.

    On Apache Kafka only: the embedded broker loses a group whose members leave while it shares out.
    """
    live = Live(tmp_path, configured(log, 4), new_kafka(apache.address))
    live.create()
    live.publish(log)
    small = {"THALWEG_KAFKA__BLOCK_ROWS": "500"}
    first = live.start("worker", "--state", str(live.state), "--verbose", **small)
    wait_for(lambda: (live.state / "attribution" / "3").exists(), first)
    second = live.start("worker", "--state", str(live.state), "--only", "agents", "--verbose")
    time.sleep(15)
    for process in (second, first):
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said[-3000:]
        assert "assigned" in said, said[-3000:]
    live.worker()
    equal(replayed, live.state)


WORKER_KILLS = (
    "attribution block sent:9",
    "checkpoint batch ready:3",
    "refresh snapshot:1",
    "feedback block sent:5",
    "refresh wait:1",
    "calibration block sent:4",
)
INGEST_KILLS = ("ingest between shards:7", "ingest block sent:4")


def test_kills(log: Path, replayed: Path, raw: dict[str, str], brokers: str, tmp_path: Path) -> None:
    """kill -9 of the ingester at two sites and of the worker at six, inside a checkpoint and inside a refresh too."""
    live = Live(tmp_path, configured(log, 2), new_kafka(brokers, raw))
    live.create()
    blocks = {"THALWEG_KAFKA__BLOCK_ROWS": "4000"}
    for site in INGEST_KILLS:
        killed = live.start("worker", "--only", "ingest", THALWEG_FAULT=site, **blocks)
        _, said = killed.communicate(timeout=60)
        assert killed.returncode == -signal.SIGKILL, (site, killed.returncode, said[-2000:])
    live.run("worker", "--only", "ingest", "--until-idle", "1", **blocks)
    for site in WORKER_KILLS:
        killed = live.start("worker", "--state", str(live.state), "--only", "agents", THALWEG_FAULT=site)
        _, said = killed.communicate(timeout=90)
        assert killed.returncode == -signal.SIGKILL, (site, killed.returncode, said[-2000:])
    live.worker()
    equal(replayed, live.state)


def test_sites_are_known() -> None:
    assert {site.rpartition(":")[0] for site in (*WORKER_KILLS, *INGEST_KILLS)} <= set(fault.SITES)


def test_resends_disorder_and_unequal_partitions(log: Path, replayed: Path, brokers: str, tmp_path: Path) -> None:
    """Shuffled within L, every twentieth event twice, and all on one raw topic of three very unequal partitions."""
    table = pq.read_table(log)
    ts = table.column("ts").to_numpy()
    order = np.argsort(ts + np.random.default_rng(1).integers(0, LATENESS, len(ts)), kind="stable")
    twice = np.sort(np.concatenate([np.arange(len(ts)), np.arange(0, len(ts), 20)]))
    pq.write_table(table.take(pa.array(order)).take(pa.array(twice)), tmp_path / "log.parquet", row_group_size=100_000)
    kafka = new_kafka(brokers)
    topic = next(iter(kafka.topics))
    unequal = dict.fromkeys((topic, *list(kafka.topics)[1:2]), "")  # all types on the first; the second stays empty
    live = Live(tmp_path, configured(log), new_kafka(brokers, unequal))
    live.create(raw=3)
    live.publish(tmp_path / "log.parquet")
    live.worker(THALWEG_KAFKA__BLOCK_ROWS="1500")
    equal(replayed, live.state)


def test_late_rows_live_equals_the_replay_of_the_recording(log: Path, brokers: str, tmp_path: Path) -> None:
    """Rows far later than L: live may differ from the replay of the raw log, never from that of its recording."""
    table = pq.read_table(log).slice(0, 60_000)
    delay = np.zeros(len(table), np.int64)
    drawn = np.random.default_rng(2)
    late = drawn.choice(len(table), 600, replace=False)
    delay[late] = drawn.integers(2 * LATENESS, 200 * LATENESS, len(late))
    order = np.argsort(table.column("ts").to_numpy() + delay, kind="stable")
    pq.write_table(table.take(pa.array(order)), tmp_path / "log.parquet")
    live = Live(tmp_path, configured(log, 2), new_kafka(brokers))
    live.create(raw=2)
    live.publish(tmp_path / "log.parquet")
    live.worker()
    live.run("record", str(tmp_path / "recording"))
    live.run("record", str(tmp_path / "recording"))  # again: nothing is added
    live.run("replay", str(tmp_path / "recording"), "--state", str(tmp_path / "again"), status=None)
    comparison = same(live.state, tmp_path / "again")
    assert comparison.late[0] == comparison.late[1] > 0  # how many depends on the moment


def test_backtest_then_live(log: Path, replayed: Path, raw: dict[str, str], brokers: str, tmp_path: Path) -> None:
    """A replay of the first two thirds, then the worker on the topics, which hold all of it."""
    pq.write_table(pq.read_table(log).slice(0, 200_000), tmp_path / "early.parquet")
    live = Live(tmp_path, configured(log, 2), new_kafka(brokers, raw))
    live.create()
    live.run("replay", str(tmp_path / "early.parquet"), "--state", str(live.state))
    live.worker()
    with StateDirectory(live.state, read_only=True) as state:
        known = sum(stage.store.counters.get("already_replayed", 0) for stage in state.attribution)
        assert 190_000 < known <= 200_000
    equal(replayed, live.state)


def test_the_broker_is_killed_and_comes_back(log: Path, replayed: Path, apache: ApacheKafka, tmp_path: Path) -> None:
    """Apache Kafka: kill -9 while everything is at work, start again on its data; nothing is lost, nothing twice."""
    live = Live(tmp_path, configured(log, 2), new_kafka(apache.address))
    live.create()
    publisher = live.start("publish", str(log), "--flat-out")
    worker = live.start("worker", "--state", str(live.state))
    wait_for(lambda: (live.state / "calibration" / "0").exists(), worker)
    apache.kill()
    time.sleep(2)
    apache.start()
    publisher.communicate(timeout=180)
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=120)
    live.publish(log)
    live.worker()
    equal(replayed, live.state)


def wait_for(happened: object, process: subprocess.Popen[str], seconds: float = 90) -> None:
    """Until `happened()`; fails where the process ends before."""
    until = time.monotonic() + seconds
    while not happened():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def test_raw_topics_are_those_of_the_types() -> None:
    assert set(RAW_TOPICS.values()) == {"impression", "click", "add_to_cart", "purchase", "return", "item"}
    assert os.environ.get("THALWEG_FAULT") is None
