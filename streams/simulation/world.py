"""The world of one seed: topics in memory, raw partitions that fill, and the draws of what goes wrong."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random

from ..configuration import Configuration
from ..topology import FLOWS
from ..wire import Source
from .plan import Plan
from .shop import START, Raw, settings

RAW = "shop"
NOW = START + 10 * 86_400_000
"""The wall clock of ingest: long after."""


class Crash(BaseException):
    """A process dies here; no code of the product may catch it."""


class Stopped(BaseException):
    """The product stopped loudly, as it must: what `who` was to read is gone."""

    def __init__(self, who: object, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.who = who


class World:
    """What outlives every process.

    Parameters
    ----------
    plan, draw : what goes wrong, and when
    configuration : of the live system
    folder : empty; states and versions go there
    raw : for each raw partition its messages, in order of arrival, as they stand in the topic

    Attributes
    ----------
    topics : (name, partition) -> messages
    published : for each raw partition how many of its messages are there
    begins : (topic, partition) -> offset at which the log begins
    missed : whether a stage went on behind messages that it had not read
    made_again : topics that were deleted and made again
    stopped : what the product said when it stopped because something was lost for good; None: it did not
    calm : True: nothing goes wrong any more
    sites : how often each of `plan.SITES` was reached

    >>> world = World.example()
    >>> world.published, world.all_published
    ([1], True)
    """

    def __init__(
        self, plan: Plan, draw: Random, configuration: Configuration, folder: Path, raw: list[list[Raw]]
    ) -> None:
        self.plan = plan
        self.draw = draw
        self.configuration = configuration
        self.folder = folder
        self.raw = _with_extras(raw, draw, self)
        self.topics: dict[tuple[str, int], list[bytes | None]] = {
            (flow.reads, q): [] for flow in FLOWS for q in range(plan.shards if flow.sharded else 1)
        }
        self.topics["examples", 0] = []
        self.delayed: list[tuple[str, int, bytes]] = []
        self.published = [0] * len(raw)
        self.begins: Counter[tuple[str, int]] = Counter()
        self.missed = False
        self.made_again: set[str] = set()
        self.stopped: str | None = None
        self.calm = False
        self._left = plan.faults
        self._pointers = [min((part[0].arrival for part in self.raw if part), default=START)] * len(raw)

    sites: Counter[str]

    def __new__(cls, *arguments: object) -> World:
        """Sites are counted from the first extra message on."""
        world = super().__new__(cls)
        world.sites = Counter()
        return world

    @classmethod
    def example(cls) -> World:
        """A world with one raw row, published."""
        row = b'{"type": "click", "ts": 1700000000000, "item_id": "tea", "event_id": "c1"}'
        world = cls(Plan(backlog=True), Random(1), settings(1, 10), Path("."), [[Raw(START, row)]])
        world.publish()
        return world

    # ---- what goes wrong

    def hit(self, kind: str, site: str) -> bool:
        """Whether it goes wrong here; counted."""
        if self.calm or not self._left or self.draw.random() >= self.plan.rates.get(kind, 0):
            return False
        self.sites[site] += 1
        self._left -= 1
        return True

    def crash(self, kind: str, site: str) -> None:
        """Crash, perhaps."""
        if self.hit(kind, site):
            raise Crash(site)

    def reached(self, site: str) -> None:
        """A fault site of the product was reached."""
        if site in ("checkpoint batch ready", "refresh snapshot", "refresh wait"):
            self.crash("refresh crash" if site.startswith("refresh") else "crash", site)

    # ---- topics

    def send(self, topic: str, partition: int, value: bytes, prefix: str = "output") -> None:
        """Append a message; the acknowledgement may get lost, so that it is sent twice, at once or a while later."""
        self.topics[topic, partition].append(value)
        if self.hit("twice", f"{prefix} twice"):
            if self.draw.random() < 0.5:
                self.topics[topic, partition].append(value)
            else:
                self.delayed.append((topic, partition, value))

    def orphan(self, messages: list[tuple[str, int, bytes]], prefix: str = "output") -> None:
        """What a process that died had on its way arrives later, perhaps."""
        if messages and self.hit("late output", f"{prefix} late"):
            self.delayed += messages

    def deliver(self, everything: bool = False) -> bool:
        """What was on its way arrives."""
        moved = False
        while self.delayed and (everything or self.draw.random() < 0.3):
            topic, partition, value = self.delayed.pop(0)
            self.topics[topic, partition].append(value)
            moved = True
        return moved

    def litter(self) -> None:
        """Something that is no block lands on an internal topic, perhaps."""
        if self.hit("rubbish", "rubbish on an internal topic"):
            topic, partition = self.draw.choice([key for key in self.topics if key[0] != "examples"])
            there = self.topics[topic, partition]
            piece = there[-1][: len(there[-1]) // 2] if there and there[-1] else b"rubbish"
            there.append(self.draw.choice((None, b"", piece)))

    # ---- what is lost for good

    def trim(self, log: tuple[str, int], low: int, high: int, unread: bool) -> bool:
        """Delete the messages of a log below some offset of [low, high]; whether there was anything to delete."""
        low = max(low, self.begins[log] + 1)
        if low > high:
            return False
        self.begins[log] = self.draw.randint(low, high)
        self.sites["log trimmed unread" if unread else "log trimmed"] += 1
        return True

    def make_again(self, topic: str) -> None:
        """Delete a topic and make one of its name, which is empty and has an id of its own."""
        self.made_again.add(topic)
        self.sites["topic re-created"] += 1
        if topic == RAW:
            self.raw = [part[n:] for part, n in zip(self.raw, self.published, strict=True)]
            self.published = [0] * len(self.raw)
        for log in self.topics:
            if log[0] == topic:
                self.topics[log] = []

    def id_of(self, topic: str) -> str:
        """The id that the broker gave a topic."""
        return f"id of {topic}" + (", made again" if topic in self.made_again else "")

    # ---- raw partitions

    def sources(self) -> list[Source]:
        """The raw partitions as the broker knows them."""
        return [Source(RAW, self.id_of(RAW), p) for p in range(len(self.raw))]

    def publish(self, everything: bool = False) -> list[int]:
        """Time goes on and the raw partitions fill; those that got messages."""
        if everything or self.plan.backlog:
            found = [p for p, part in enumerate(self.raw) if self.published[p] < len(part)]
            self.published = [len(part) for part in self.raw]
            return found
        step = self.draw.randrange(1_000, 20_000)
        if self.plan.apart:
            self._pointers[self.draw.randrange(len(self.raw))] += 3 * step
        else:
            self._pointers = [pointer + step for pointer in self._pointers]
        found = []
        for p, part in enumerate(self.raw):
            before = self.published[p]
            while self.published[p] < len(part) and part[self.published[p]].arrival <= self._pointers[p]:
                self.published[p] += 1
            if self.published[p] > before:
                found.append(p)
        return found

    @property
    def all_published(self) -> bool:
        """Whether nothing more will come."""
        return self.published == [len(part) for part in self.raw]


def _with_extras(raw: list[list[Raw]], draw: Random, world: World) -> list[list[Raw]]:
    """The partitions as topics: with heartbeats between the messages, and messages without a value."""
    times = [[_ts(each.value) for each in part] for part in raw]
    greatest = max((ts for part in times for ts in part if ts is not None), default=START)
    out = []
    for part, ts in zip(raw, times, strict=True):
        mine: list[Raw] = []
        for i, each in enumerate(part):
            if draw.random() < 0.04:
                # as far as is known when it is sent: later rows of this partition are younger, and it is not later yet
                beyond = min([greatest, each.arrival, *(t for t in ts[i:] if t is not None)])
                mine.append(Raw(each.arrival, json.dumps({"type": "progress", "ts": beyond}).encode()))
                world.sites["heartbeat"] += 1
            if draw.random() < 0.01:
                mine.append(Raw(each.arrival, b""))
                world.sites["empty message"] += 1
            mine.append(each)
        out.append(mine)
    return out


def _ts(value: bytes) -> int | None:
    """Event time of a good row, None of another."""
    try:
        row = json.loads(value)
        ts = row["ts"]
    except (ValueError, TypeError, KeyError):
        return None
    return ts if isinstance(ts, int) and ts < NOW and row.get("type") != "order" else None
