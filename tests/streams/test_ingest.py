"""Ingest: whatever the reads, cuts, restarts and twins, the shards get each raw row once, rightly stamped."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.streams.test_host import Chain
from tests.streams.test_host import settings as funnel_settings
from thalweg.graph_store.hash import hash_text
from thalweg.graph_store.state_store import StateStore
from thalweg.streams import ingest as module
from thalweg.streams.attribution import AttributionStage
from thalweg.streams.block import NO_CLOCK
from thalweg.streams.configuration import Configuration, Kafka, from_builtins
from thalweg.streams.dead_letter import DeadLetter
from thalweg.streams.event import TYPE_NAMES
from thalweg.streams.funnel import simulate
from thalweg.streams.host import Host
from thalweg.streams.ingest import Ingest, IngestError
from thalweg.streams.kafka import MAX_MESSAGE
from thalweg.streams.log import open_log
from thalweg.streams.publish import _records
from thalweg.streams.reader import shards_of
from thalweg.streams.replay import replay
from thalweg.streams.row import EVENT_ROW
from thalweg.streams.state_directory import StateDirectory, make_stage
from thalweg.streams.wire import Message, Source, decode, encode

START, LATENESS = 1_774_785_600_000, 10_000
TOPICS = {"clicks": "click", "impressions": "impression", "mixed": ""}
WALL = START + 10_000_000

Raw = list[tuple[int, bytes | None]]
"""A raw partition: (offset, value), offsets rising, with holes."""


def configured(partitions: int = 1, **kafka: object) -> Configuration:
    """Three raw topics, lateness 10 s; a block has at most 20 rows unless told."""
    raw = {"partitions": partitions, "time": {"lateness": f"{LATENESS}ms"}}
    return msgspec.structs.replace(from_builtins(raw), kafka=Kafka(**{"topics": TOPICS, "block_rows": 20, **kafka}))


def sources(*more: str) -> list[Source]:
    """One partition of each raw topic."""
    return [Source(topic, f"id of {topic}", 0) for topic in sorted([*TOPICS, *more])]


def event(ts: int, number: int, **more: object) -> bytes:
    """A click at START + ts."""
    row = {"type": "click", "ts": START + ts, "event_id": f"e{number}", "user_id": f"u{number % 5}", "item_id": "A"}
    return json.dumps({**row, **more}).encode()


def raw_partitions(draw: random.Random, rows: int = 60, broken: float = 0.0, beats: float = 0.0) -> list[Raw]:
    """Three partitions within the lateness of order, with holes; some rows broken, some heartbeats."""
    parts: list[Raw] = []
    for p in range(3):
        ts, offset, part = draw.randrange(20_000), draw.randrange(3), []
        for i in range(draw.randrange(1, rows)):
            ts += draw.choice((0, 0, 500, 3_000, 3_000, 60_000 if draw.random() < 0.1 else 0))
            offset += draw.choice((1, 1, 1, 4))
            value: bytes | None = event(ts - draw.randrange(LATENESS), p * 1_000 + i, item_id=f"i{draw.randrange(9)}")
            if draw.random() < broken:
                value = draw.choice((None, b"", b"{", b"[]", b'{"type": "click"}', b'{"type": "forget", "ts": 1}'))
            elif draw.random() < beats:
                value = event(ts, i, type="progress", event_id=f"beat{ts}")
            part.append((offset, value))
        parts.append(part)
    return parts


@dataclass
class Shop:
    """Raw partitions, the shards' topics, and whoever ingests. Every block goes through the wire's bytes."""

    configuration: Configuration
    raw: list[Raw]
    topics: list[list[bytes]] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.topics = self.topics or [[] for _ in range(self.configuration.partitions)]

    def blocks(self, shard: int) -> list[Message]:
        """Everything on a shard's topic."""
        return [self.read(value) for value in self.topics[shard]]

    def read(self, value: bytes) -> Message:
        """One message."""
        return decode(value, EVENT_ROW, len(self.configuration.features))

    def open(self) -> Ingest:
        """An ingester that goes on behind the last blocks, and says its clock."""
        last = [self.read(topic[-1]) if topic else None for topic in self.topics]
        ingest = Ingest(self.configuration, sources(), last, lambda: WALL)
        self.emit(ingest, everything=False)
        return ingest

    def emit(self, ingest: Ingest, everything: bool, live: int | None = None, rounds: int = 1_000_000) -> bool:
        """Send what is ready, at most `rounds` times; it dies once `live` messages are sent: False then."""
        for _ in range(rounds):
            blocks, letters = ingest.take(everything)
            self.letters += letters
            for shard, message in blocks:
                if live == 0:
                    return False
                live = None if live is None else live - 1
                self.topics[shard].append(encode(message))
            if not blocks:
                break
        return True

    def offer(self, ingest: Ingest, source: int, count: int) -> bool:
        """The next `count` messages of a partition from where the ingester stands; whether there were any."""
        position = ingest.positions[source]
        batch = [each for each in self.raw[source] if each[0] >= position][:count]
        ingest.offer(source, np.array([offset for offset, _ in batch], np.int64), [value for _, value in batch])
        return bool(batch)

    def finish(self, ingest: Ingest) -> None:
        """Everything that is left, and every partition idle."""
        for source in range(len(self.raw)):
            self.offer(ingest, source, 10**6)
            ingest.caught_up(source, True)
        self.emit(ingest, everything=True)

    def run(self, draw: random.Random, crashes: bool = False, twins: bool = False) -> None:
        """Read in any order, in any portions, with deaths between and inside emissions, by one or by two at once."""
        alive = [self.open() for _ in range(1 + twins)]
        for _ in range(60):
            k = draw.randrange(len(alive))
            self.offer(alive[k], draw.randrange(3), draw.randrange(1, 12))
            live = draw.randrange(3) if crashes and draw.random() < 0.2 else None
            if not self.emit(alive[k], draw.random() < 0.2, live, rounds=draw.randrange(3)):
                alive[k] = self.open()
        for ingest in alive:
            self.finish(ingest)


@dataclass
class Seen:
    """What a stage takes from a shard: rows at or above the marks, with the gap check."""

    rows: list[np.void] = field(default_factory=list)
    rejects: list[tuple[int, int]] = field(default_factory=list)
    marks: Counter[int] = field(default_factory=Counter)
    names: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, blocks: list[Message], sources: int = 3) -> Seen:
        """Through marks and gap check."""
        seen = cls()
        for message in blocks:
            block = message.block
            assert set(block.ranges) == set(range(sources))
            assert all(begin <= seen.marks[s] for s, (begin, _) in block.ranges.items()), "a gap"
            for row in block.rows:
                begin, end = block.ranges[int(row["source"])]
                assert begin <= row["offset"] < end
            seen.rows += [row for row in block.rows if row["offset"] >= seen.marks[int(row["source"])]]
            seen.rejects += [(r.source, r.offset) for r in message.rejects if r.offset >= seen.marks[r.source]]
            seen.names |= set(block.names[1])
            for source, (_, end) in block.ranges.items():
                seen.marks[source] = max(seen.marks[source], end)
        return seen

    @property
    def places(self) -> list[tuple[int, int]]:
        """Where each row came from, in its order of arrival."""
        return [(int(row["source"]), int(row["offset"])) for row in self.rows]


def is_good(value: bytes | None) -> bool:
    return value is not None and b"event_id" in value


def is_row(value: bytes | None) -> bool:
    return is_good(value) and b'"progress"' not in (value or b"")


SEEDS = given(seed=st.integers(0, 2**32), partitions=st.integers(1, 3))


@SEEDS
@settings(max_examples=60)
@pytest.mark.parametrize(("crashes", "twins"), [(False, False), (True, False), (True, True)])
def test_each_row_arrives_once_in_its_shard(crashes: bool, twins: bool, seed: int, partitions: int) -> None:
    """And each reject once; nothing is read twice, nothing missed; the names of all items are told."""
    draw = random.Random(seed)
    shop = Shop(configured(partitions), raw_partitions(draw, broken=0.15, beats=0.1))
    shop.run(draw, crashes, twins)
    good = {(s, offset) for s, part in enumerate(shop.raw) for offset, value in part if is_row(value)}
    bad = {(s, offset) for s, part in enumerate(shop.raw) for offset, value in part if not is_good(value)}
    seen = [Seen.of(shop.blocks(q)) for q in range(partitions)]
    places = [place for each in seen for place in each.places]
    assert len(places) == len(set(places)) and set(places) == good
    assert sorted(seen[0].rejects) == sorted(bad) and not any(each.rejects for each in seen[1:])
    names = [str(source) for source in sources()]
    assert {(names.index(letter.source), letter.row) for letter in shop.letters} == bad
    told = {hash_text(name) for each in seen for name in each.names}
    assert {int(row["item"]) for each in seen for row in each.rows} <= told
    for q, each in enumerate(seen):
        assert all(shards_of(np.array([row["key"]], np.uint64), partitions)[0] == q for row in each.rows)
        assert all(each.marks[s] == part[-1][0] + 1 for s, part in enumerate(shop.raw))


@SEEDS
@settings(max_examples=60)
def test_no_row_comes_below_its_stamp(seed: int, partitions: int) -> None:
    """Rows within the lateness of order, no partition idle before its end: none is late, through restarts and twins."""
    draw = random.Random(seed)
    shop = Shop(configured(partitions), raw_partitions(draw, beats=0.1))
    shop.run(draw, crashes=True, twins=draw.random() < 0.3)
    for q in range(partitions):
        rows = Seen.of(shop.blocks(q)).rows
        clock = NO_CLOCK
        for row in rows:
            clock = max(clock, int(row["clock"]))
            assert row["ts"] >= clock


@given(seed=st.integers(0, 2**32))
@settings(max_examples=80)
def test_stamps_are_those_of_the_rule(seed: int) -> None:
    """Against the rule written out: a row's clock is taken before the row counts, over partitions that are not idle."""
    draw = random.Random(seed)
    shop = Shop(configured(block_rows=draw.choice((1, 3, 20))), raw_partitions(draw))
    ingest = shop.open()
    for _ in range(40):
        shop.offer(ingest, draw.randrange(3), draw.randrange(1, 12))
        shop.emit(ingest, draw.random() < 0.3)
    for source in range(3):
        shop.offer(ingest, source, 10**6)
    shop.emit(ingest, everything=True)
    tops, clock = [NO_CLOCK] * 3, NO_CLOCK
    for message in shop.blocks(0):
        for row in message.block.rows:
            assert row["clock"] == clock
            tops[row["source"]] = max(tops[row["source"]], int(row["ts"]))
            clock = max(clock, min(tops) - LATENESS if min(tops) > NO_CLOCK else NO_CLOCK)
        assert message.block.clock == clock
        assert message.block.tops == {s: top for s, top in enumerate(tops) if top > NO_CLOCK}


@given(seed=st.integers(0, 2**32))
@settings(max_examples=40)
def test_clocks_of_one_ingester_never_fall(seed: int) -> None:
    """Whatever comes, idle or late, on every shard, in rows and at the ends of blocks."""
    draw = random.Random(seed)
    shop = Shop(configured(2), raw_partitions(draw, beats=0.2))
    for part in shop.raw:  # far out of order
        draw.shuffle(part)
        part[:] = zip(sorted(offset for offset, _ in part), [value for _, value in part], strict=True)
    ingest = shop.open()
    for _ in range(60):
        shop.offer(ingest, draw.randrange(3), draw.randrange(1, 8))
        ingest.caught_up(draw.randrange(3), draw.random() < 0.5)
        shop.emit(ingest, draw.random() < 0.5)
    for q in range(2):
        clock = NO_CLOCK
        for message in shop.blocks(q):
            for stamp in (*message.block.rows["clock"].tolist(), message.block.clock):
                assert stamp >= clock
                clock = stamp


def test_a_silent_partition_holds_the_clock_and_an_idle_one_does_not() -> None:
    shop = Shop(configured(), [[(0, event(0, 1)), (1, event(30_000, 2))], [(5, event(40_000, 3))], []])
    ingest = shop.open()
    shop.offer(ingest, 0, 9), shop.offer(ingest, 1, 9)
    shop.emit(ingest, everything=True)
    assert ingest.clock == NO_CLOCK and not ingest.idle  # the third was never heard
    ingest.caught_up(2, True)
    shop.emit(ingest, everything=False)
    assert ingest.clock == START + 30_000 - LATENESS
    ingest.caught_up(0, True)
    shop.emit(ingest, everything=False)
    assert ingest.clock == START + 40_000 - LATENESS and not ingest.idle
    ingest.caught_up(1, True)
    shop.emit(ingest, everything=False)
    assert ingest.idle and shop.blocks(0)[-1].idle
    shop.raw[2].append((9, event(20_000, 4)))  # it wakes with an old row: late, and the clock stays
    shop.offer(ingest, 2, 9)
    assert not ingest.idle
    shop.emit(ingest, everything=True)
    last = shop.blocks(0)[-1]
    assert last.block.rows["clock"].tolist() == [START + 40_000 - LATENESS] == [last.block.clock] and not last.idle
    shop.raw[0].append((7, event(90_000, 5)))
    shop.offer(ingest, 0, 9)
    shop.emit(ingest, everything=True)
    assert ingest.clock == START + 40_000 - LATENESS  # held by the third, which is live


def test_a_heartbeat_moves_the_clock_without_a_row() -> None:
    beats: list[Raw] = [[(0, event(50_000, p, type="progress"))] for p in range(3)]
    shop = Shop(configured(2), beats)
    ingest = shop.open()
    for source in range(3):
        shop.offer(ingest, source, 1)
    shop.emit(ingest, everything=True)  # at one time: each waits for the one before it, unless told not to
    for q in range(2):
        last = shop.blocks(q)[-1].block
        assert len(last) == 0 and last.clock == START + 50_000 - LATENESS
        assert last.ranges == dict.fromkeys(range(3), (0, 1))


def test_it_speaks_when_it_opens_and_then_only_with_something_to_say() -> None:
    shop = Shop(configured(3), [[(0, event(0, 1))], [], []])
    shop.finish(shop.open())
    before = [len(topic) for topic in shop.topics]
    ingest = shop.open()
    assert [len(topic) for topic in shop.topics] == [n + 1 for n in before]
    assert {shop.blocks(q)[-1].block.clock for q in range(3)} == {START - LATENESS}
    assert ingest.take(True) == ingest.take(False) == ([], [])


def test_rows_leave_by_the_least_running_time_as_far_as_it_is_known() -> None:
    raw: list[Raw] = [[(i, event(i * 10_000 + p, 10 * p + i)) for i in range(4)] for p in range(3)]
    shop = Shop(configured(), raw)
    ingest = shop.open()
    shop.offer(ingest, 2, 4), shop.offer(ingest, 0, 4)
    shop.emit(ingest, everything=False)
    assert ingest.waiting == 8  # the second partition may bring an earlier one
    shop.offer(ingest, 1, 2)
    shop.emit(ingest, everything=False)
    assert Seen.of(shop.blocks(0)).places == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]
    shop.emit(ingest, everything=True)
    assert ingest.waiting == 0
    assert Seen.of(shop.blocks(0)).places[5:] == [(2, 1), (0, 2), (2, 2), (0, 3), (2, 3)]


def test_what_runs_ahead_is_paused_until_the_others_have_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that asks `wants` never holds more than the bound and one portion of each partition."""
    monkeypatch.setattr(module, "AHEAD", 50)
    raw: list[Raw] = [[(i, event(i, 1_000 * p + i)) for i in range(400)] for p in range(3)]
    shop = Shop(configured(), raw)
    ingest = shop.open()
    while ingest.wants(0) and shop.offer(ingest, 0, 30):
        pass
    assert ingest.waiting == 60 and ingest.wants(1)
    draw = random.Random(3)
    while any(ingest.positions[source] < 400 for source in range(3)):
        source = draw.choice((0, 0, 0, 1, 2))
        if ingest.wants(source):
            shop.offer(ingest, source, 30)
        shop.emit(ingest, everything=False)
        assert ingest.waiting < 3 * 80
    shop.finish(ingest)
    assert len(set(Seen.of(shop.blocks(0)).places)) == 1_200


def test_killed_between_the_first_blocks_of_a_log_that_began_late_it_goes_on() -> None:
    """One shard has a block, the other none. Nothing was deleted, so nothing is missed; once something is, it is."""
    configuration = from_builtins({"partitions": 2, "kafka": {"topics": {"a": ""}}})
    source = Source("a", "id", 0)
    values = [event(i, i) for i in range(50)]

    def opened(*last: Message | None) -> Ingest:
        return Ingest(configuration, [source], last, lambda: WALL)

    first = opened(None, None)
    first.begins(0, 1_000)
    first.offer(0, np.arange(1_000, 1_050), values)
    blocks, _ = first.take(everything=True)
    known = dict(blocks)
    assert all(message.begins == ((0, 1_000),) and message.block.ranges[0][0] == 0 for message in known.values())
    for last in ((known[0], None), (None, known[1]), (known[0], known[1])):
        again = opened(*last)
        again.begins(0, 1_000)
        assert again.positions[0] == (1_050 if None not in last else 0)
    half = opened(known[0], None)
    with pytest.raises(IngestError, match="begins at offset 1,001"):
        half.begins(0, 1_001)
    whole = opened(known[0], known[1])
    whole.begins(0, 1_050)
    with pytest.raises(IngestError, match="begins at offset 1,051, the blocks end at 1,050: 1 messages"):
        whole.begins(0, 1_051)


def test_a_heartbeat_may_be_ahead_by_the_lateness_more() -> None:
    """`publish --close` ends a log of just now with one."""
    configuration = from_builtins({"time": {"lateness": "1h", "max_future": "5m"}, "kafka": {"topics": {"a": ""}}})
    ingest = Ingest(configuration, [Source("a", "id", 0)], [None], lambda: WALL)
    for ahead, refused in ((3_600_001, 0), (3_900_001, 0), (3_900_002, 1)):
        beat = json.dumps({"type": "progress", "event_id": "b", "ts": WALL + ahead}).encode()
        ingest.offer(0, np.array([ahead]), [beat])
        assert len(ingest.take(everything=True)[1]) == refused


def test_what_is_ahead_of_the_wall_clock_is_refused() -> None:
    future = event(WALL - START + 400 * 86_400_000, 2)
    shop = Shop(configured(), [[(3, event(0, 1)), (8, future), (9, b"{"), (10, event(5, 3))], [], []])
    shop.finish(shop.open())
    assert Seen.of(shop.blocks(0)).places == [(0, 3), (0, 10)]
    assert [(letter.row, letter.reason, letter.raw) for letter in shop.letters] == [
        (8, "bad_timestamp", future),
        (9, "bad_json", b"{"),
    ]
    assert shop.blocks(0)[-1].block.tops == {0: START + 5}


def test_what_was_offered_before_is_dropped() -> None:
    """A consumer that was sent back brings some messages again."""
    values = [b"{" if i % 5 == 3 else event(i, i) for i in range(20)]
    shop = Shop(configured(), [list(enumerate(values)), [], []])
    ingest = shop.open()
    for begin, end in ((0, 8), (5, 8), (3, 14), (0, 2), (10, 20)):
        ingest.offer(0, np.arange(begin, end), values[begin:end])
    shop.finish(ingest)
    assert [int(row["offset"]) for row in shop.blocks(0)[-1].block.rows] == [i for i in range(20) if i % 5 != 3]
    assert [letter.row for letter in shop.letters] == [3, 8, 13, 18]


def test_rows_without_an_id_are_named_after_their_place() -> None:
    bare = [(7, b'{"type": "click", "ts": %d, "item_id": "A"}' % START), (12, b'{"ts": %d, "item_id": "A"}' % START)]
    shop = Shop(configured(), [bare, [], []])
    shop.finish(shop.open())
    rows = Seen.of(shop.blocks(0)).rows
    assert [int(row["id"]) for row in rows] == [hash_text("clicks/0#7"), hash_text("clicks/0#12")]


@pytest.mark.parametrize("letter", ["a", "\u4e2d", "\x01"])
def test_ids_as_long_as_a_message_make_no_block_that_no_broker_takes(letter: str) -> None:
    """Each event is one that a broker takes; the names of a few together would stop ingest for good."""
    values = [event(i, i, item_id=f"{letter * 300_000}{i}") for i in range(4)]
    values += [event(i, i, item_id=f"{letter * 500}{i}") for i in range(4, 2_000)]
    shop = Shop(configured(block_rows=1_000_000), [list(enumerate(values)), [], []])
    shop.finish(shop.open())
    assert max(len(value) for value in shop.topics[0]) < MAX_MESSAGE
    seen = Seen.of(shop.blocks(0))
    assert len(seen.places) == len(values) and len({int(row["item"]) for row in seen.rows}) == len(values)


def test_topics_of_mostly_rejects_make_no_block_that_no_broker_takes() -> None:
    """Three partitions of which nine rows in ten are of a type that nobody knows, abreast in time."""
    known, other = b'{"type": "click", "ts": %d, "item_id": "A"}', b'{"type": "page_view", "ts": %d, "item_id": "A"}'
    values = [list(enumerate((other if i % 10 else known) % (START + i) for i in range(12_000))) for _ in range(3)]
    shop = Shop(configured(block_rows=1_000_000), values)
    shop.finish(shop.open())
    messages = shop.blocks(0)
    assert max(len(message.rejects) for message in messages) <= 2 * module.REJECTS
    assert max(len(value) for value in shop.topics[0]) < MAX_MESSAGE
    seen = Seen.of(messages)
    assert (len(seen.places), len(seen.rejects)) == (3 * 1_200, 3 * 10_800)


@pytest.mark.parametrize("limit", ["names", "rejects", "rows"])
def test_blocks_are_cut_below_what_a_broker_takes(limit: str) -> None:
    long = {"names": 480, "rejects": 1, "rows": 1}[limit]
    values = [event(i, i, item_id=f"{i:0{long}}") for i in range(9_000 if limit == "rows" else 3_000)]
    if limit == "rejects":
        values = [b"{" if i % 9 else value for i, value in enumerate(values)]
    shop = Shop(configured(block_rows=1_000_000), [list(enumerate(values)), [], []])
    shop.finish(shop.open())
    sizes = [len(value) for value in shop.topics[0]]
    assert max(sizes) < MAX_MESSAGE and len(sizes) > 2
    assert len(Seen.of(shop.blocks(0)).places) + len(shop.letters) == len(values)


def test_a_raw_topic_that_is_gone_or_another_one_is_refused() -> None:
    shop = Shop(configured(), [[(0, event(0, 1))], [], []])
    shop.finish(shop.open())
    last = [shop.blocks(0)[-1]]
    with pytest.raises(IngestError, match=r"clicks/0: blocks were made from this partition, and it is not among"):
        Ingest(shop.configuration, sources()[1:], last, lambda: WALL)
    other = [Source("clicks", "new", 0), *sources()[1:]]
    with pytest.raises(IngestError, match=r"its id was id of clicks, the broker now says new"):
        Ingest(shop.configuration, other, last, lambda: WALL)


def test_new_partitions_come_behind_the_known_ones() -> None:
    shop = Shop(configured(), [[(0, event(0, 1))], [], []])
    shop.finish(shop.open())
    more = [Source("clicks", "id of clicks", 1), Source("a", "id of a", 0)]
    ingest = Ingest(shop.configuration, [*more, *sources()], [shop.blocks(0)[-1]], lambda: WALL)
    assert list(ingest.sources) == [*sources(), more[1], more[0]]
    assert ingest.positions == {0: 1, 1: 0, 2: 0, 3: 0, 4: 0}


def test_messages_deleted_unread_stop_it() -> None:
    shop = Shop(configured(), [[(4, event(0, 1))], [], []])
    ingest = shop.open()
    ingest.begins(0, 4)  # nothing was read of it
    shop.finish(ingest)
    ingest.begins(0, 5)
    with pytest.raises(IngestError, match=r"clicks/0: begins at offset 9, the blocks end at 5: 4 messages"):
        ingest.begins(0, 9)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=15)
def test_attribution_ends_alike_whoever_ingests(seed: int) -> None:
    """Two ingesters at once, with deaths: the state of attribution is that of one which reads all in one go."""
    draw = random.Random(seed)
    raw = raw_partitions(draw, broken=0.1)
    digests, books = [], []
    for wild in (False, True):
        shop = Shop(configured(2), raw)
        shop.run(draw, crashes=True, twins=True) if wild else shop.finish(shop.open())
        stages = [make_stage("attribution", q, shop.configuration, StateStore.memory(), sources=8) for q in range(2)]
        for q, stage in enumerate(stages):
            host = Host(stage, Source("events", "id", q))
            for offset, value in enumerate(shop.topics[q]):
                host.take(offset, value)
        assert all(isinstance(stage, AttributionStage) for stage in stages)
        digests.append(sum(stage.digest() for stage in stages) % 2**128)
        books.append([stage.books() for stage in stages])
    assert digests[0] == digests[1]
    assert books[0] == books[1]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A funnel of 6,000 events."""
    path = tmp_path_factory.mktemp("ingest") / "funnel.parquet"
    simulate(path, 6_000, seed=4, days=20, features=2, users=80, items=100, returns=0.2)
    return path


@pytest.mark.parametrize("partitions", [1, 3])
def test_ingested_json_ends_where_a_replay_of_the_log_ends(log: Path, tmp_path: Path, partitions: int) -> None:
    """By type into three raw partitions, read in any portions, ingester killed: the digests are those of a replay."""
    configuration = msgspec.structs.replace(
        funnel_settings(partitions), kafka=Kafka(topics=TOPICS, block_rows=300)
    )  # a partition is read to its end before it is idle: what it brings is never late
    replay([log], tmp_path / "state", configuration)
    raw: list[Raw] = [[], [], []]
    for batch in open_log([log], configuration).files[0].batches(0, 10_000):
        for record in _records(batch):
            record["type"] = TYPE_NAMES[record["type"]]
            part = raw[{"click": 0, "impression": 1}.get(record["type"], 2)]
            part.append((2 * len(part), msgspec.json.encode(record)))
    shop, draw = Shop(configuration, raw), random.Random(partitions)
    ingest = shop.open()
    for _ in range(100):
        shop.offer(ingest, draw.randrange(3), draw.randrange(1, 300))
        if not shop.emit(ingest, False, draw.randrange(4) if draw.random() < 0.1 else None, rounds=draw.randrange(4)):
            ingest = shop.open()
    shop.finish(ingest)
    chain = Chain(configuration)
    for q, topic in enumerate(shop.topics):
        for offset, value in enumerate(topic):
            chain.events(q, offset, value)
    chain.drain()
    with StateDirectory(tmp_path / "state", read_only=True) as state:
        assert chain.digests() == state.digests()
