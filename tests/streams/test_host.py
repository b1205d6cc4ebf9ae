"""Hosts: the chain of four stages over messages ends where the replay of the same log ends."""

from __future__ import annotations

import random
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from thalweg.graph_store.state_store import StateError, StateStore
from thalweg.streams.block import Block
from thalweg.streams.configuration import Configuration, from_builtins
from thalweg.streams.funnel import configuration as funnel_configuration
from thalweg.streams.funnel import simulate
from thalweg.streams.host import PARTS, Host, parts
from thalweg.streams.ingest import Ingest
from thalweg.streams.log import open_log
from thalweg.streams.reader import Reader, shards_of
from thalweg.streams.replay import replay
from thalweg.streams.row import LABEL_ROW
from thalweg.streams.stage import Gap
from thalweg.streams.state_directory import StateDirectory, make_stage
from thalweg.streams.topology import FLOWS
from thalweg.streams.wire import Message, Source, encode

TOPIC_OF = {flow.stage: flow.reads for flow in FLOWS}


def settings(partitions: int = 1) -> Configuration:
    """The funnel's configuration with small tables."""
    raw = funnel_configuration({"features": 2})
    raw["graph"] |= {"refresh": "2w", "refresh_delay": "1d", "dimensions": 4, "epochs": 1}
    raw["conversion"] = {"bits": 10}
    raw["calibration"] = {"score_bins": 32, "uncertainty_bins": 4, "epochs_kept": 60}
    raw["partitions"] = partitions
    return from_builtins(raw)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A funnel of 6,000 events."""
    path = tmp_path_factory.mktemp("host") / "funnel.parquet"
    simulate(path, 6_000, seed=3, days=20, features=2, users=80, items=100, returns=0.2)
    return path


class Chain:
    """Every stage on its host, and the topics between them in lists."""

    def __init__(self, configuration: Configuration, stages: dict[tuple[str, int], object] | None = None) -> None:
        self.topics: dict[str, list[bytes]] = {"labels": [], "copurchases": [], "outcomes": []}
        self.hosts = {}
        for flow in FLOWS:
            for q in range(configuration.partitions if flow.sharded else 1):
                if stages is None:
                    stage = make_stage(flow.stage, q, configuration, StateStore.memory(), sources=8)
                else:
                    stage = stages[flow.stage, q]
                self.hosts[flow.stage, q] = Host(stage, Source(flow.reads, f"id of {flow.reads}", q))

    def events(self, q: int, offset: int, value: bytes) -> None:
        """One message of thalweg.events; what is emitted goes to the ends of the topics."""
        for topic, sent in self.hosts["attribution", q].take(offset, value):
            self.topics[topic].append(sent)

    def drain(self) -> None:
        """Everything on the internal topics through the stages."""
        for stage in ("feedback", "copurchase", "calibration"):
            host = self.hosts[stage, 0]
            for offset in range(host.position, len(self.topics[TOPIC_OF[stage]])):
                for topic, sent in host.take(offset, self.topics[TOPIC_OF[stage]][offset]):
                    self.topics[topic].append(sent)

    def digests(self) -> dict[str, int]:
        """Digest of each stage, shards summed."""
        totals: dict[str, int] = {}
        for (stage, _), host in self.hosts.items():
            totals[stage] = (totals.get(stage, 0) + host.stage.digest()) % 2**128
        return totals


def messages(log: Path, configuration: Configuration, rows: int) -> deque[list[bytes]]:
    """The log as events messages: for each piece, one a shard."""
    reader = Reader(list(enumerate(open_log([log], configuration).files)), configuration)
    source = (Source("raw", "id of raw", 0),)
    out: deque[list[bytes]] = deque()
    for piece in reader.pieces(rows):
        shards = shards_of(piece.block.rows["key"], configuration.partitions)
        sent = []
        for q in range(configuration.partitions):
            block = piece.block
            mine = Block(
                block.rows[shards == q], block.features[shards == q], block.ranges, block.clock, block.names, {},
                block.tops,
            )  # fmt: skip
            sent.append(encode(Message(mine, configuration.fingerprint(), sources=source)))
        out.append(sent)
    return out


@pytest.mark.parametrize(("partitions", "rows"), [(1, 500), (3, 170)])
def test_the_chain_ends_where_replay_ends(log: Path, tmp_path: Path, partitions: int, rows: int) -> None:
    configuration = settings(partitions)
    replay([log], tmp_path / "state", configuration)
    chain = Chain(configuration)
    for offset, sent in enumerate(messages(log, configuration, rows)):
        for q, value in enumerate(sent):
            chain.events(q, offset, value)
        chain.drain()
    with StateDirectory(tmp_path / "state", read_only=True) as state:
        assert chain.digests() == state.digests()


def test_resends_and_rubbish_change_nothing(log: Path, tmp_path: Path) -> None:
    """Each derived message may come twice, and what is no block is set aside; offsets may have holes."""
    configuration = settings(2)
    replay([log], tmp_path / "state", configuration)
    draw, chain = random.Random(1), Chain(configuration)
    offsets = [0, 0]
    for sent in messages(log, configuration, 300):
        for q, value in enumerate(sent):
            for rubbish in (None, b"", value[: len(value) // 2]):
                if draw.random() < 0.2:
                    chain.events(q, offsets[q], rubbish)  # type: ignore[arg-type]
                    offsets[q] += 1
            offsets[q] += draw.randrange(2)
            chain.events(q, offsets[q], value)
            chain.events(q, offsets[q], value)  # delivered again
            offsets[q] += 1
        for topic in ("labels", "copurchases"):
            if draw.random() < 0.3:
                chain.topics[topic].append(chain.topics[topic][-1])
        chain.drain()
    with StateDirectory(tmp_path / "state", read_only=True) as state:
        assert chain.digests() == state.digests()
    letters = [letter for q in range(2) for letter in chain.hosts["attribution", q].take_letters()[0]]
    assert len(letters) == sum(host.stage.store.counters.get("bad_blocks", 0) for host in chain.hosts.values()) > 10
    assert {letter.reason for letter in letters} == {"bad_block"}


def test_a_lost_block_stops_the_stage(log: Path) -> None:
    configuration = settings()
    chain = Chain(configuration)
    sent = [each[0] for each in messages(log, configuration, 1_000)]
    chain.events(0, 0, sent[0])
    with pytest.raises(Gap, match="begins at 2000, the mark is 1000"):
        chain.events(0, 1, sent[2])


@pytest.mark.parametrize(("begin", "missed"), [(0, 0), (60, 0), (100, 0), (101, 1), (400, 300)])
def test_what_was_deleted_while_ingest_was_away_for_long_is_missed(begin: int, missed: int) -> None:
    """The blocks are gone too, so ingest finds nothing to go on from; the state knows how far it read."""
    configuration, source = from_builtins({"kafka": {"topics": {"views": "impression"}}}), Source("views", "id", 0)
    values = [
        b'{"event_id":"e%d","ts":%d,"user_id":"u","item_id":"tea"}' % (i, 1_767_225_600_000 + 1_000 * i)
        for i in range(500)
    ]

    def blocks(begin: int, end: int) -> list[bytes]:
        ingest = Ingest(configuration, [source], [None], lambda: 2**50)
        ingest.begins(0, begin)
        ingest.offer(0, np.arange(begin, end), values[begin:end])
        return [encode(message) for _, message in ingest.take(everything=True)[0]]

    stage = make_stage("attribution", 0, configuration, StateStore.memory(), sources=8)
    host = Host(stage, Source("events", "id of events", 0))
    for value in blocks(3, 100):  # a log that begins late, read by nobody before: nothing is missed
        host.take(host.position, value)
    assert stage.books()["impression"]["read"] == 97
    for value in blocks(begin, 500):
        if missed:
            with pytest.raises(Gap, match=f"views/0: read up to offset 100, its log began at {begin}.* {missed} mess"):
                host.take(host.position, value)
        else:
            host.take(host.position, value)
    assert stage.books()["impression"]["read"] == (97 if missed else 497)


def test_backtest_then_live_is_one_replay(log: Path, tmp_path: Path) -> None:
    """A replay of a part, then the topic, which overlaps it: the state of a replay of all, and the overlap counted."""
    import pyarrow.parquet as pq

    configuration = settings(2)
    replay([log], tmp_path / "whole", configuration)
    table = pq.read_table(log)
    (tmp_path / "early").mkdir()
    pq.write_table(table.slice(0, 2_500), tmp_path / "early" / "log.parquet")
    pq.write_table(table.slice(1_500), tmp_path / "late.parquet")
    replay([tmp_path / "early" / "log.parquet"], tmp_path / "state", configuration)
    with StateDirectory(tmp_path / "state") as state:
        stages = {("attribution", q): stage for q, stage in enumerate(state.attribution)}
        stages |= {(stage.name, 0): stage for stage in (state.feedback, state.copurchase, state.calibration)}
        chain = Chain(configuration, stages)  # type: ignore[arg-type]
        for offset, each in enumerate(messages(tmp_path / "late.parquet", configuration, 200)):
            for q, value in enumerate(each):
                chain.events(q, offset, value)
            chain.drain()
        replayed = sum(stage.store.counters.get("already_replayed", 0) for stage in state.attribution)
        assert 900 < replayed < 1_000
        state.checkpoint()
    with (
        StateDirectory(tmp_path / "state", read_only=True) as ended,
        StateDirectory(tmp_path / "whole", read_only=True) as whole,
    ):
        assert ended.digests() == whole.digests()
        assert ended.trails() == whole.trails()
    with pytest.raises(StateError, match="a live worker has gone on"):
        replay([log], tmp_path / "state", configuration)


def test_another_topic_configuration_or_state_is_refused(log: Path) -> None:
    configuration = settings()
    chain, other = Chain(configuration), Chain(settings(2))
    value = messages(log, configuration, 1_000)[0][0]
    with pytest.raises(StateError, match="made under another configuration"):
        other.events(0, 0, value)
    chain.events(0, 0, value)
    stage = chain.hosts["attribution", 0].stage
    with pytest.raises(StateError, match="another topic of that name, id new"):
        Host(stage, Source("events", "new", 0))
    chain.drain()
    stranger = Chain(configuration)
    stranger.hosts["attribution", 0] = Host(
        make_stage("attribution", 0, configuration, StateStore.memory(), 8), Source("events", "elsewhere", 0)
    )
    stranger.events(0, 0, value)
    feedback = chain.hosts["feedback", 0]
    with pytest.raises(StateError, match="two --state folders"):
        feedback.take(feedback.position, stranger.topics["labels"][0])


def test_parts_cover_the_span_once() -> None:
    whole = Block(np.zeros(10, LABEL_ROW), np.zeros((10, 1), np.uint32), {2: (3, 7)}, clock=1)
    cut = parts(whole, limit=4)
    spans = [part.ranges[2] for part in cut]
    assert spans[0][0] == 3 * PARTS and spans[-1][1] == 7 * PARTS
    assert all(a[1] == b[0] for a, b in zip(spans, spans[1:], strict=False))
    assert sum(len(part) for part in cut) == 10
