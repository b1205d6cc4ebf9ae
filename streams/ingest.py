"""Ingest: raw messages in, stamped blocks for every shard out. No Kafka here; `ingester` has it, the simulation has it.

It has no state of its own: where each raw partition stands, and the greatest time seen in it, lie in the last block of
each shard, and opening it says its clock at once. The clock of a row is the least, over raw partitions that are not
idle, of the greatest event time seen in them, minus the allowed lateness, taken before the row itself counts; it never
falls. A partition that was not heard from and is not known to be idle holds it; where all are idle it is the greatest
time seen, minus the lateness. Rows leave in the order of the least greatest time, as far as what is at hand says it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ..graph_store.kernel import kernel
from .block import NO_CLOCK, Block, Codes, Rows
from .configuration import Configuration, ConfigurationError
from .dead_letter import DeadLetter, Reason, dead_letter
from .event import TYPE_NAMES, TYPES
from .raw_decoder import RawDecoder
from .reader import shards_of
from .row import EVENT_ROW, Type, join, pick
from .wire import Message, Reject, Source, rows_per_message

AHEAD = 100_000
"""Rows of one raw partition that may wait; beyond, it is not read on until the others have caught up."""
CHUNK = 4_096
"""Rows at hand of one raw partition that are looked at together."""
NAMES_BYTES, NAME_BYTES, REJECTS = 120_000, 4_000, 500
"""Text of item ids at which a block is cut, bytes of one that are told, rejects at which it is cut (it may have 2x)."""


class IngestError(RuntimeError):
    """The raw topics are not those that the blocks were made from; the message has both facts and the mend."""


class _Slice(NamedTuple):
    rows: Rows
    codes: Codes
    keys: npt.NDArray[np.int64]


@dataclass
class _Chunk:
    rows: Rows
    codes: Codes
    keys: npt.NDArray[np.int64]  # running greatest event time in its partition, of each row
    rejects: list[DeadLetter]
    end: int  # raw offset behind it
    top: int  # greatest event time up to its end
    taken: int = 0  # rows that have left

    def next(self, count: int) -> _Slice:
        """The next `count` rows."""
        span = slice(self.taken, self.taken + count)
        return _Slice(self.rows[span], self.codes[span], self.keys[span])


@dataclass
class _Feed:
    """One raw partition: what has left, what is at hand."""

    source: Source
    done: list[int]  # for each shard the end of what its blocks cover
    left_end: int
    left_top: int
    loaded_end: int
    loaded_top: int
    begun: int = 0  # where its log began when its first block was made
    chunks: deque[_Chunk] = field(default_factory=deque)
    idle: bool = False

    @property
    def waiting(self) -> int:
        """Rows at hand."""
        return sum(len(chunk.rows) - chunk.taken for chunk in self.chunks)


@kernel
def _stamp(rows, tops, live, stamp, lateness):  # type: ignore[no-untyped-def]
    """Stamp each row with the clock before it counts; tops [S] and the clock move on: the clock behind the last row."""
    for i in range(rows.shape[0]):
        rows["clock"][i] = stamp
        source = rows["source"][i]
        ts = rows["ts"][i]
        if ts > tops[source]:
            tops[source] = ts
            stamp = max(stamp, _clock(tops, live, lateness))
    return stamp


@kernel
def _clock(tops, live, lateness):  # type: ignore[no-untyped-def]
    """The rule, see the module; a source that is not live (idle) counts only where all are."""
    least, greatest = np.int64(2**62), np.int64(-(2**62))
    some = False
    for s in range(tops.shape[0]):
        greatest = max(greatest, tops[s])
        if live[s]:
            some = True
            least = min(least, tops[s])
    found = least if some else greatest
    return found - lateness if found > -(2**62) else found


class Ingest:
    """Raw messages to blocks; see the module.

    Parameters
    ----------
    sources : the raw partitions that there are now
    last : for each shard of thalweg.events its last block, None where there is none
    now : wall clock, ms: what is ahead of it by more than `time.max_future` is dead-lettered, a heartbeat only where it
        is so by `time.lateness` more: the last of a log lets everything through

    Raises IngestError where a raw topic is another one than before, or is gone.

    >>> ingest = Ingest(Configuration(), [Source("clicks", "id", 0)], [None], now=lambda: 1774785700000)
    >>> ingest.offer(0, np.array([4, 6]), [b'{"ts": 1774785600, "item_id": "A"}', b"{"])
    >>> [(shard, message)], letters = ingest.take(everything=True)
    >>> len(message.block), message.block.ranges, [(letter.row, letter.reason) for letter in letters]
    (1, {0: (0, 7)}, [(6, 'bad_json')])
    """

    def __init__(
        self,
        configuration: Configuration,
        sources: Sequence[Source],
        last: Sequence[Message | None],
        now: Callable[[], int],
    ) -> None:
        self._configuration = configuration
        self._fingerprint = configuration.fingerprint()
        self._lateness = int(configuration.time.lateness)
        self._partitions = configuration.partitions
        self._now = now
        self._width = len(configuration.features)
        if len(last) != self._partitions:
            raise ConfigurationError(f"{self._partitions} partitions, and the last blocks of {len(last)}")
        table = _table(last, sources)
        self.sources: tuple[Source, ...] = tuple(table)
        self._feeds = [self._feed(source, last) for source in table]
        self._decoders = [self._decoder(i, source) for i, source in enumerate(table)]
        # The least: where one shard got a block and the next did not, its rows come again, stamped as they were.
        self._stamp_ = min((NO_CLOCK if m is None else m.block.clock for m in last), default=NO_CLOCK)
        self._tops = np.array([feed.left_top for feed in self._feeds], np.int64)
        self._said: tuple[int, bool] | None = None
        self._told: set[int] = set()
        self._untold: dict[int, str] = {}
        self._longest = 1
        self._limit = min(rows_per_message(EVENT_ROW, self._width), configuration.kafka.block_rows)
        self._letters: list[DeadLetter] = []

    def _feed(self, source: Source, last: Sequence[Message | None]) -> _Feed:
        """Where a source stands: at the least end over the shards, for what lies behind it may be lost to one."""
        known = [_stood(message, source) for message in last]
        end, top = min(known)
        done = [each[0] for each in known]
        told = [dict(m.begins).get(m.sources.index(source), 0) for m in last if m and source in m.sources]
        begun = max(told, default=0)
        return _Feed(source, done, end, top, end, top, begun)

    def _decoder(self, index: int, source: Source) -> RawDecoder:
        name = self._configuration.kafka.topics.get(source.topic, "")
        kind = int(TYPES[name]) if name else None
        return RawDecoder(self._configuration, str(source), kind, index)

    # ---- in

    @property
    def positions(self) -> dict[int, int]:
        """Raw offset that is wanted next of each source; 0: from the beginning, wherever the log begins."""
        return {i: feed.loaded_end for i, feed in enumerate(self._feeds)}

    def wants(self, source: int) -> bool:
        """Whether to read on; False while very many rows of the source wait for the others."""
        return self._feeds[source].waiting < AHEAD

    def begins(self, source: int, offset: int) -> None:
        """Say that the source's log begins at `offset`; IngestError where what was to be read next is gone.

        A source of which no shard has anything is new: its blocks begin with the log, and say so from then on.
        """
        feed = self._feeds[source]
        if feed.loaded_end == max(feed.done) == 0:
            feed.begun = offset
        if max(feed.loaded_end, feed.begun) < offset:
            raise IngestError(
                f"{feed.source}: begins at offset {offset:,}, the blocks end at {feed.loaded_end:,}: "
                f"{offset - feed.loaded_end:,} messages were deleted unread. Keep the topic longer; to go on without "
                "them, take a new kafka.application and a new --state folder"
            )

    def offer(self, source: int, offsets: npt.NDArray[np.int64], values: Sequence[bytes | None]) -> None:
        """Decode raw messages of a source, in the order of their offsets (holes are fine); those seen are dropped."""
        feed = self._feeds[source]
        skip = int(np.searchsorted(offsets, feed.loaded_end))
        offsets, values = offsets[skip:], values[skip:]
        if not len(offsets):
            return
        feed.idle = False
        for begin in range(0, len(offsets), CHUNK):
            self._load(source, offsets[begin : begin + CHUNK], values[begin : begin + CHUNK])

    def _load(self, source: int, offsets: npt.NDArray[np.int64], values: Sequence[bytes | None]) -> None:
        feed = self._feeds[source]
        rows, codes, names, rejects, _ = self._decoders[source].decode(values, offsets)
        time = self._configuration.time
        ahead = rows["ts"] > self._now() + int(time.max_future)
        ahead &= (rows["rank"] != Type.PROGRESS) | (rows["ts"] > self._now() + int(time.max_future + time.lateness) + 1)
        if ahead.any():
            rejects = sorted(
                [*rejects, *self._refused(feed, rows[ahead], offsets, values)], key=lambda letter: letter.row
            )
            rows, codes = pick(rows, ~ahead), codes[~ahead]
        for hashed, text in names:
            if hashed not in self._told:
                if _said_bytes(text) > NAME_BYTES:  # told for people alone; a few of these are more than a broker takes
                    text = text[: NAME_BYTES // 6]
                self._untold[hashed] = text
                self._longest = max(self._longest, _said_bytes(text))
                self._told.add(hashed)
        share = max(1, REJECTS // len(self._feeds))  # a block takes something of the first chunk of every feed
        for begin in range(0, max(1, len(rejects)), share):
            some = rejects[begin : begin + share]
            end = int(offsets[-1]) + 1 if begin + share >= len(rejects) else some[-1].row + 1
            inside = slice(*np.searchsorted(rows["offset"], [feed.loaded_end, end]))
            self._append(feed, rows[inside], codes[inside], some, end)

    def _append(self, feed: _Feed, rows: Rows, codes: Codes, rejects: list[DeadLetter], end: int) -> None:
        keys = np.maximum.accumulate(np.maximum(rows["ts"], feed.loaded_top)) if len(rows) else rows["ts"]
        feed.loaded_end = end
        feed.loaded_top = int(keys[-1]) if len(keys) else feed.loaded_top
        events = rows["rank"] != Type.PROGRESS  # they count for the clock: their time is that of the chunk
        if not events.all():
            rows, codes, keys = pick(rows, events), codes[events], keys[events]
        feed.chunks.append(_Chunk(rows, codes, keys, rejects, feed.loaded_end, feed.loaded_top))

    def _refused(
        self, feed: _Feed, rows: Rows, offsets: npt.NDArray[np.int64], values: Sequence[bytes | None]
    ) -> Iterator[DeadLetter]:
        span = self._configuration.time.max_future
        for row in rows:
            offset = int(row["offset"])
            yield dead_letter(
                (str(feed.source), offset, offset + 1), Reason.BAD_TIMESTAMP,
                values[int(np.searchsorted(offsets, offset))], detail=f"ahead of the wall clock by more than {span}",
                kind=TYPE_NAMES[int(row["rank"])],
            )  # fmt: skip

    def caught_up(self, source: int, idle: bool) -> None:
        """Say that everything of a source was read, and for `time.idle_timeout` nothing came; or that this is over."""
        self._feeds[source].idle = idle

    # ---- out

    @property
    def idle(self) -> bool:
        """Every source is idle, and nothing is at hand."""
        return all(feed.idle and not feed.chunks for feed in self._feeds)

    @property
    def clock(self) -> int:
        """The clock as last stamped, ms."""
        return self._stamp_

    @property
    def waiting(self) -> int:
        """Rows at hand."""
        return sum(feed.waiting for feed in self._feeds)

    def take(self, everything: bool) -> tuple[list[tuple[int, Message]], list[DeadLetter]]:
        """One block for each shard, and the dead letters that it covers; nothing where there is nothing to say.

        Parameters
        ----------
        everything : also rows that a source that is behind could still bring earlier ones than; to be said when they
            have waited long enough, for the stages hold them as well

        To be called again until it gives nothing.
        """
        rows, codes = self._pick(everything)
        stamp = self._stamped(rows)
        if not len(rows) and (stamp, self.idle) == self._said and not self._unsaid():
            return [], []
        self._said = (stamp, self.idle)
        letters, self._letters = self._letters, []
        blocks = list(self._blocks(rows, codes, letters))
        if not any(feed.chunks for feed in self._feeds):
            self._told.difference_update(self._untold)  # of rows that were refused: the next row tells it
            self._untold.clear()
        return blocks, letters

    def _unsaid(self) -> bool:
        return any(feed.left_end > end for feed in self._feeds for end in feed.done)

    def _pick(self, everything: bool) -> tuple[Rows, Codes]:
        """Rows that leave now, in order: whole heads of the sources, as far as they go together."""
        parts: list[tuple[Rows, Codes]] = []
        have = names = 0
        while have < self._limit and len(self._letters) < REJECTS and names < NAMES_BYTES:
            room = self._limit - have
            fit = max(1, (NAMES_BYTES - names) // self._longest)  # rows whose names fit, whatever they are
            part = self._merge_heads(everything, min(room, fit) if self._untold else room)
            if part is None:
                break
            parts.append(part)
            have += len(part[0])
            if self._untold:
                names += sum(_said_bytes(self._untold.get(item, "")) for item in np.unique(part[0]["item"]).tolist())
        if not parts:
            return np.zeros(0, EVENT_ROW), np.zeros((0, self._width), np.uint32)
        if len(parts) == 1:
            return parts[0]
        return join([rows for rows, _ in parts]), np.concatenate([codes for _, codes in parts])

    def _merge_heads(self, everything: bool, most: int) -> tuple[Rows, Codes] | None:
        """At most `most` rows of the first chunks, those that nothing at hand precedes; None where nothing moves."""
        heads = [(i, feed) for i, feed in enumerate(self._feeds) if feed.chunks]
        limits = [(feed.chunks[0].top, i) for i, feed in heads]
        if not everything:
            limits += [(feed.loaded_top, i) for i, feed in enumerate(self._feeds) if not feed.chunks and not feed.idle]
        if not heads:
            return None
        limit, index = min(limits)
        counts = []
        for i, feed in heads:
            chunk = feed.chunks[0]
            side: Literal["left", "right"] = "right" if i <= index else "left"
            counts.append(max(0, int(np.searchsorted(chunk.keys, limit, side)) - chunk.taken))
        heads_of = np.repeat(np.arange(len(heads)), counts)
        keys = np.concatenate([feed.chunks[0].next(n).keys for (_, feed), n in zip(heads, counts, strict=True)])
        order = np.argsort(keys, kind="stable")[:most]
        counts = np.bincount(heads_of[order], minlength=len(heads)).tolist()
        order = np.argsort(keys[np.sort(order)], kind="stable")
        parts = [feed.chunks[0].next(n) for (_, feed), n in zip(heads, counts, strict=True)]
        moved = [
            self._leave(feed, n, complete=(feed.chunks[0].top, i) <= (limit, index))
            for (i, feed), n in zip(heads, counts, strict=True)
        ]
        if not any(moved):
            return None
        rows, codes = join([part.rows for part in parts]), np.concatenate([part.codes for part in parts])
        return (rows, codes) if sum(n > 0 for n in counts) <= 1 else (pick(rows, order), codes[order])

    def _leave(self, feed: _Feed, count: int, complete: bool) -> bool:
        """The first chunk's next `count` rows leave, and the rejects among them; all of it where nothing may stay."""
        chunk = feed.chunks[0]
        moved = count > 0
        chunk.taken += count
        if moved:
            feed.left_end = int(chunk.rows["offset"][chunk.taken - 1]) + 1
            feed.left_top = int(chunk.keys[chunk.taken - 1])
        if chunk.taken == len(chunk.rows) and complete:
            feed.left_end, feed.left_top, moved = chunk.end, chunk.top, True
            feed.chunks.popleft()
        if chunk.rejects and moved:
            self._letters += [letter for letter in chunk.rejects if letter.row < feed.left_end]
            chunk.rejects = [letter for letter in chunk.rejects if letter.row >= feed.left_end]
        return moved

    def _stamped(self, rows: Rows) -> int:
        """Stamp the rows; the clock behind them, with what progress rows and idle sources say."""
        tops = np.array([feed.left_top for feed in self._feeds], np.int64)
        live = np.array([not (feed.idle and not feed.chunks) for feed in self._feeds], np.bool_)
        before, self._tops = self._tops.copy(), tops
        if len(rows):
            bringing = live.copy()
            bringing[rows["source"]] = True  # a source is idle only behind its last row
            self._stamp_ = int(_stamp(rows, before, bringing, self._stamp_, self._lateness))
        self._stamp_ = max(self._stamp_, int(_clock(tops, live, self._lateness)))
        return self._stamp_

    def _blocks(self, rows: Rows, codes: Codes, letters: list[DeadLetter]) -> Iterator[tuple[int, Message]]:
        tops = {i: feed.left_top for i, feed in enumerate(self._feeds) if feed.left_top > NO_CLOCK}
        index = {str(source): i for i, source in enumerate(self.sources)}
        rejects = tuple(Reject(index[letter.source], letter.row, letter.type, letter.reason) for letter in letters)
        shards = shards_of(rows["key"], self._partitions) if self._partitions > 1 else None
        for q in range(self._partitions):
            # what was read again for another shard's sake is not said again to one that has it
            mine = rows["offset"] >= np.array([feed.done[q] for feed in self._feeds], np.int64)[rows["source"]]
            if shards is not None:
                mine &= shards == q
            ranges = {i: (feed.done[q], max(feed.done[q], feed.left_end)) for i, feed in enumerate(self._feeds)}
            begins = tuple((i, feed.begun) for i, feed in enumerate(self._feeds) if feed.begun > 0)
            for feed in self._feeds:
                feed.done[q] = max(feed.done[q], feed.left_end)
            block = Block(
                pick(rows, mine), codes[mine], ranges, self._stamp_, self._names(rows["item"][mine]), {}, tops
            )
            yield (
                q,
                Message(
                    block,
                    self._fingerprint,
                    sources=self.sources,
                    rejects=rejects if q == 0 else (),
                    idle=self.idle,
                    begins=begins,
                ),
            )

    def _names(self, among: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.uint64], list[str]]:
        """Text of the item ids among these that was not told before."""
        if not self._untold or not len(among):
            return np.zeros(0, np.uint64), []
        items = [item for item in np.unique(among).tolist() if item in self._untold]
        return np.array(items, np.uint64), [self._untold.pop(item) for item in items]


def _said_bytes(name: str) -> int:
    """Bytes that a name takes in a block's header."""
    return len(msgspec.json.encode(name)) + 1


def _stood(message: Message | None, source: Source) -> tuple[int, int]:
    """The end of what a shard's last block covers of a source, and the greatest time it saw; (0, NO_CLOCK) without."""
    if message is None or source not in message.sources:
        return 0, NO_CLOCK
    index = message.sources.index(source)
    return message.block.ranges.get(index, (0, 0))[1], message.block.tops.get(index, NO_CLOCK)


def _table(last: Sequence[Message | None], sources: Sequence[Source]) -> list[Source]:
    """Sources that blocks know, in their order, then new ones; IngestError where a known one is gone or another."""
    table: list[Source] = []
    for message in last:
        table += [source for source in (message.sources if message is not None else ()) if source not in table]
    now = {(source.topic, source.partition): source for source in sources}
    for source in table:
        found = now.get((source.topic, source.partition))
        if found is None:
            raise IngestError(
                f"{source}: blocks were made from this partition, and it is not among the raw topics now; bring it "
                "back (kafka.topics, or the topic itself), or take a new kafka.application and a new --state folder"
            )
        if found != source:
            raise IngestError(
                f"{source}: is another topic than before: its id was {source.id}, the broker now says {found.id}; "
                "positions in the old one mean nothing here. Take a new kafka.application and a new --state folder, or "
                "give the new topic another name and add it to kafka.topics"
            )
    return table + sorted(source for source in sources if source not in table)
