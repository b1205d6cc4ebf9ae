"""Live equals replay: the same events through a real broker, ingest and Faust workers end in the state of a replay.

300 thousand funnel events with returns, at least 3 refreshes and readings of two levels and more, as in test_parity;
under faults: kill -9 of the worker and of the ingester at named sites, a second worker that joins and leaves, resends,
disorder, raw partitions read at unequal speed, late rows, a backtest that goes on live, a broker killed at work.

What happens when is decided by states that are waited for, never by the clock: a commit, a block taken, a range read.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.brokers import ApacheKafka, new_kafka
from tests.live import Live, ended
from thalweg.graph_store import fault
from thalweg.graph_store.state_store import StateError, StateStore
from thalweg.streams.block import NO_CLOCK
from thalweg.streams.configuration import Configuration, Kafka, load
from thalweg.streams.event import TYPE_NAMES
from thalweg.streams.funnel import simulate
from thalweg.streams.kafka import end_of, internal, tail
from thalweg.streams.outbox import Outbox
from thalweg.streams.publish import publish
from thalweg.streams.replay import replay
from thalweg.streams.row import DAY, EVENT_ROW
from thalweg.streams.state_directory import StateDirectory
from thalweg.streams.status import running
from thalweg.streams.summing_up import books_of
from thalweg.streams.topology import FLOWS
from thalweg.streams.verify import Comparison, verify
from thalweg.streams.wire import decode

pytestmark = [pytest.mark.slow, pytest.mark.broker]

EVENTS, LATENESS, MINUTE = 300_000, 10_000, 60_000
SETTINGS = {
    "THALWEG_CONVERSION__POLICY": "vanilla",
    "THALWEG_CONVERSION__NEGATIVE_SAMPLING": "10",
    "THALWEG_CALIBRATION__EVIDENCE": "50",  # more readings of several levels than asked for, whatever comes late
}
AWAKE = {"THALWEG_TIME__IDLE_TIMEOUT": "1h"}
"""No raw partition is idle, however long its rows are on their way: none is late because this machine is slow."""

Place = tuple[str, int]
"""A stage and the partition that it reads."""


def configured(log: Path, partitions: int = 1) -> Configuration:
    """The funnel's configuration, with a learner under which uncertainty levels go into service."""
    return load(log.with_name("funnel.toml"), SETTINGS, partitions=partitions)


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    """What a test that failed in the middle has started is killed."""
    before = len(Live.started)
    yield
    for process in Live.started[before:]:
        if process.poll() is None:
            process.kill()
            process.communicate()


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
    worth_the_trial(state)
    return state


@pytest.fixture(scope="module")
def raw(log: Path, brokers: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Raw topics with the log on them, two partitions each: a backlog for every test that reads it."""
    publisher = Live(tmp_path_factory.mktemp("raw"), configured(log), new_kafka(brokers))
    publisher.create(raw=2)
    publisher.publish(log)
    return publisher.configuration.kafka.topics


def worth_the_trial(state: Path) -> None:
    """Three refreshes, two readings of two levels or more, and returns."""
    with StateDirectory(state, read_only=True) as opened:
        assert len(opened.copurchase.manifests()) >= 3
        readings = [opened.calibration.reading_at(epoch) for epoch in opened.calibration.shelf.epochs()]
        assert sum(reading is not None and reading.levels >= 2 for reading in readings) >= 2
    assert books(state)["return"]["reversal"] > 100


def books(state: Path) -> dict[str, dict[str, int]]:
    """The books of the events, shards summed."""
    with StateDirectory(state, read_only=True) as opened:
        return books_of(opened)["events"]


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
    """It takes partitions over while the first is at work, works on them, and gives them back; the first goes on there.

    All the while events come, ten minutes of them; once the second is gone the rest comes at once. On Apache Kafka
    only: the embedded broker loses a group whose members leave while it shares out.
    """
    live = Live(tmp_path, configured(log, 4), new_kafka(apache.address))
    live.create()
    publisher = live.start("publish", str(log), "--speed", "8640")
    first = live.start("worker", "--state", str(live.state), THALWEG_KAFKA__BLOCK_ROWS="500", **AWAKE)
    wait_for(lambda: clocks(live)[0] > day_two(log), first, publisher)
    second = live.start("worker", "--state", str(live.state), "--only", "agents")
    wait_for(lambda: shared(handled(live, first), handled(live, second)), first, second, publisher)
    taken = handled(live, second)
    terminate(second)
    stood = committed(live)
    terminate(publisher, status=130)
    live.publish(log)  # the rest of it
    wait_for(lambda: all(committed(live)[place] > stood[place] for place in taken), first)
    wait_for(lambda: clocks(live) == ends_at(replayed), first)
    terminate(first)
    equal(replayed, live.state)


def shared(mine: set[Place], other: set[Place]) -> bool:
    """Whether two workers have taken blocks, each of its own stages, and the other one of attribution."""
    return bool(mine) and not mine & other and any(stage == "attribution" for stage, _ in other)


INGEST_KILLS = ("ingest between shards:7", "ingest block sent:4")
WORKER_KILLS = (
    "refresh snapshot:1",
    "refresh wait:1",  # for the version of that one
    "attribution block sent:9",
    "checkpoint batch ready:3",
    "feedback block sent:5",
    "calibration block sent:4",
)


def test_kills(log: Path, replayed: Path, brokers: str, tmp_path: Path) -> None:
    """kill -9 of the ingester at two sites and of the worker at six, inside a checkpoint and inside a refresh too.

    Before each kill of the worker a further part of the log is published: no stage has passed the site before.
    """
    live = Live(tmp_path, configured(log, 2), new_kafka(brokers))
    live.create()
    first, *others = parts(log, live.configuration, tmp_path)
    publish([first], live.configuration)
    for site in INGEST_KILLS:
        killed(live, site, "--only", "ingest")
    for site, part in zip(WORKER_KILLS, others, strict=True):
        killed(live, site, "--state", str(live.state))
        publish([part], live.configuration)
    live.worker()
    equal(replayed, live.state)


def killed(live: Live, site: str, *worker: str) -> None:
    """A worker that reaches the site, and dies there."""
    process = live.start("worker", *worker, THALWEG_FAULT=site, THALWEG_KAFKA__BLOCK_ROWS="1000")
    said = ended(process, 600)
    assert process.returncode == -signal.SIGKILL, (site, process.returncode, said[-2000:])


def parts(log: Path, configuration: Configuration, folder: Path) -> list[Path]:
    """The log in parts, one for each kill and one for the end. The first ends half way from the second refresh to its
    use, and has the first one in it, too: whoever is killed at that begins again before it."""
    table = pq.read_table(log)
    ts, graph = table.column("ts").to_numpy(), configuration.graph
    refresh = -(-int(ts[0]) // int(graph.refresh)) * int(graph.refresh)
    first = int(np.searchsorted(ts, refresh + int(graph.refresh) + int(graph.refresh_delay) // 2))
    cuts = [0, *np.linspace(first, len(ts), len(WORKER_KILLS) + 1).astype(int).tolist()]
    assert min(np.diff(cuts)) > 25_000, "a part has blocks for every site"
    paths = [folder / f"part-{i}.parquet" for i in range(len(cuts) - 1)]
    for path, start, end in zip(paths, cuts, cuts[1:], strict=False):
        pq.write_table(table.slice(start, end - start), path)
    return paths


def test_sites_are_known() -> None:
    assert {site.rpartition(":")[0] for site in (*WORKER_KILLS, *INGEST_KILLS)} <= set(fault.SITES)


def test_resends_disorder_and_unequal_partitions(log: Path, replayed: Path, brokers: str, tmp_path: Path) -> None:
    """Shuffled within L, every twentieth event again minutes later, on three raw partitions of 80, 15 and 5 %.

    Each row and each copy has its partition drawn for itself. From a backlog the first two are read to their ends while
    the third has but its first third: the clock waits for it. Then comes the rest of the third.
    """
    kafka = new_kafka(brokers)
    kafka = msgspec.structs.replace(kafka, topics={f"{kafka.application}.all": ""})
    live = Live(tmp_path, configured(log), kafka)
    live.create(raw=3)
    table = pq.read_table(log)
    ts = table.column("ts").to_numpy()
    sent, partition = resent(ts)
    counts = np.bincount(partition)
    third = np.flatnonzero(partition == 2)
    slow = third[counts[2] // 3 :]
    backlog = np.setdiff1d(np.arange(len(sent)), slow)
    produce(kafka, table.take(pa.array(sent[backlog])), partition[backlog])
    ingest = live.start("worker", "--only", "ingest", THALWEG_KAFKA__BLOCK_ROWS="1500", **AWAKE)
    wait_for(lambda: ingested(live)[0] == [counts[0], counts[1], counts[2] // 3], ingest)
    clock = ingested(live)[1]
    assert clock == ts[sent[third[: counts[2] // 3]]].max() - LATENESS
    assert clock < ts.max() - 30 * DAY
    produce(kafka, table.take(pa.array(sent[slow])), partition[slow])
    wait_for(lambda: ingested(live)[0] == counts.tolist(), ingest)
    terminate(ingest)
    live.worker()
    late = same(replayed, live.state).late
    assert late[0] == 0 and late[1] <= len(sent) - len(ts)  # a copy may be below the clock, no original is
    here, there = books(live.state), books(replayed)
    assert sum(terms["read"] for terms in here.values()) == len(sent)
    assert {kind: terms["applied"] for kind, terms in here.items()} == {k: t["applied"] for k, t in there.items()}


def resent(ts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order in which rows are sent, every twentieth twice, and the raw partition of each."""
    drawn = np.random.default_rng(1)
    copies = np.arange(0, len(ts), 20)
    delays = drawn.integers(0, LATENESS, len(ts)), drawn.integers(2 * MINUTE, 20 * MINUTE, len(copies))
    moments = np.concatenate([ts + delays[0], ts[copies] + delays[1]])
    sent = np.concatenate([np.arange(len(ts)), copies])[np.argsort(moments, kind="stable")]
    return sent, drawn.choice(3, len(sent), p=[0.8, 0.15, 0.05])


def test_late_rows_live_equals_the_replay_of_the_recording(log: Path, brokers: str, tmp_path: Path) -> None:
    """Rows far later than L: live may differ from the replay of the raw log, never from that of its recording."""
    table = pq.read_table(log)
    delay = np.zeros(len(table), np.int64)
    drawn = np.random.default_rng(2)
    late = drawn.choice(len(table), 3_000, replace=False)
    delay[late] = drawn.integers(2 * LATENESS, 200 * LATENESS, len(late))
    order = np.argsort(table.column("ts").to_numpy() + delay, kind="stable")
    pq.write_table(table.take(pa.array(order)), tmp_path / "log.parquet")
    live = Live(tmp_path, configured(log, 2), new_kafka(brokers))
    live.create(raw=2)
    live.publish(tmp_path / "log.parquet")
    live.worker()
    worth_the_trial(live.state)
    live.run("record", str(tmp_path / "recording"))
    assert "recorded 0 messages" in live.run("record", str(tmp_path / "recording"))
    live.run("replay", str(tmp_path / "recording"), "--state", str(tmp_path / "again"))
    comparison = same(live.state, tmp_path / "again")
    assert comparison.late[0] == comparison.late[1] > 0  # how many depends on the moment
    worth_the_trial(tmp_path / "again")


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
    """Apache Kafka: kill -9 while everything is at work, start again on its data; both go on, to their ends.

    Publishing takes more than 100 s, so that it is not done when the stages have all committed a day of events. What
    the worker then takes is more than the topics held when the broker was back. No second worker mends anything.
    """
    live = Live(tmp_path, configured(log, 2), new_kafka(apache.address))
    live.create()
    worker = live.start("worker", "--state", str(live.state), **AWAKE)
    wait_for(lambda: len(at_post(live, worker)) == len(places(live)), worker)
    publisher = live.start("publish", str(log), "--speed", "50000")
    wait_for(lambda: clocks(live)[0] > day_two(log), worker, publisher)
    apache.kill()
    apache.start()
    ends = {place: end_of(live.configuration.kafka, *partition) for place, partition in places(live).items()}
    wait_for(lambda: all(committed(live)[place] > end for place, end in ends.items()), worker, publisher)
    said = ended(publisher, 600)
    assert publisher.returncode == 0, said[-3000:]
    wait_for(lambda: clocks(live) == ends_at(replayed), worker)
    terminate(worker)
    equal(replayed, live.state)


def wait_for(happened: Callable[[], bool], *at_work: subprocess.Popen[str], seconds: float = 600) -> None:
    """Until `happened()`; fails where one of the processes ends before."""
    until = time.monotonic() + seconds
    while not happened():
        for process in at_work:
            assert process.poll() is None, ending(process)
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.2)


def ending(process: subprocess.Popen[str]) -> str:
    """How a process ended that should not have."""
    return f"{process.args} ended with {process.returncode}: {process.communicate()[1][-3000:]}"


def terminate(process: subprocess.Popen[str], status: int = 0) -> None:
    """SIGTERM, and its end with `status`."""
    assert process.poll() is None, ending(process)
    process.send_signal(signal.SIGTERM)
    said = ended(process, 600)
    assert process.returncode == status, (process.args, process.returncode, said[-3000:])


def places(live: Live) -> dict[Place, tuple[str, int]]:
    """Every stage of every partition, and the topic and partition that it reads."""
    configuration = live.configuration
    return {
        (flow.stage, partition): (internal(configuration.kafka, flow.reads), partition)
        for flow in FLOWS
        for partition in range(configuration.partitions if flow.sharded else 1)
    }


def kept(state: Path, place: Place) -> dict[str, Any]:
    """What a stage says of itself in its last commit; empty before the first, and while its folder is being made."""
    try:
        store = StateStore.view(state / place[0] / str(place[1]))
    except StateError:
        return {}
    store.close()
    return store.position


def committed(live: Live) -> dict[Place, int]:
    """The position of each stage by its last commit, 0 before the first."""
    return {place: kept(live.state, place).get("position", 0) for place in places(live)}


def clocks(live: Live) -> tuple[int, int]:
    """The least and the greatest of the committed clocks of all stages, ms."""
    found = [min(kept(live.state, place).get("clocks", [NO_CLOCK])) for place in places(live)]
    return min(found), max(found)


def ends_at(replayed: Path) -> tuple[int, int]:
    """What `clocks` says once all of the log has gone through every stage, as in the replay."""
    (clock,) = kept(replayed, ("calibration", 0))["clocks"]
    return clock, clock


def day_two(log: Path) -> int:
    """A day after the first event of the log, ms."""
    return int(pq.read_table(log, columns=["ts"]).column("ts")[0].as_py()) + DAY


def at_post(live: Live, worker: subprocess.Popen[str]) -> dict[Place, int]:
    """The stages that a worker has, by its status, and how many blocks each has taken since it has it."""
    said = [each["stages"] for each in running(live.state) if each["pid"] == worker.pid]
    return {(stage["stage"], stage["partition"]): stage["blocks"] for stages in said for stage in stages}


def handled(live: Live, worker: subprocess.Popen[str]) -> set[Place]:
    """Those of its stages that have taken a block."""
    return {place for place, blocks in at_post(live, worker).items() if blocks}


def ingested(live: Live) -> tuple[list[int], int]:
    """The offsets up to which the raw partitions are on the events topic, and the clock that stands there."""
    configuration = live.configuration
    last = tail(configuration.kafka, internal(configuration.kafka, "events"), 0)
    if last is None:
        return [], 0
    message = decode(last[1], EVENT_ROW, len(configuration.features))
    return [message.block.ranges[i][1] for i in range(len(message.sources))], message.block.clock


def produce(kafka: Kafka, table: pa.Table, partition: np.ndarray) -> None:
    """The rows of a table as raw messages on the one raw topic that there is, each to its partition."""
    outbox = Outbox(kafka)
    (topic,) = kafka.topics
    for begin in range(0, len(table), 20_000):
        records = table.slice(begin, 20_000).to_pylist()
        for record, to in zip(records, partition[begin : begin + 20_000].tolist(), strict=True):
            there = {name: value for name, value in record.items() if value is not None}
            outbox.send(topic, to, msgspec.json.encode({**there, "type": TYPE_NAMES[record["type"]]}))
    outbox.flush()
