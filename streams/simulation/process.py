"""Processes of the simulation: a stage with its host and its checkpoints, and an ingester; both die and are born again.

What they do between the sites where they may die is the product's: `Host`, `Ingest` and `StateStore`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...graph_store.memory_pages import MemoryPages
from ...graph_store.state_store import StateStore
from ..build import Builds
from ..copurchase import CopurchaseStage
from ..host import Host
from ..ingest import Ingest
from ..row import EVENT_ROW
from ..stage import Stage
from ..state_directory import make_stage, open_store
from ..topology import FLOWS
from ..wire import Message, Source, WireError, decode, encode
from .checks import Forward
from .world import NOW, Crash, World

SOURCES = 16
"""Raw partitions that a state in memory has room for."""
READS = {flow.stage: flow.reads for flow in FLOWS}


class StageProcess:
    """One stage on one partition: opened from its last checkpoint whenever it is wanted and not alive.

    Attributes
    ----------
    committed : digest that the stage had when it was last committed, None before
    furthest : greatest position that it ever had

    >>> world, builds = World.example(), Builds(None, inline=True)
    >>> process = StageProcess(world, "attribution", 0, builds)
    >>> IngestProcess(world).finish(), process.step(), process.furthest
    (True, True, 1)
    """

    def __init__(self, world: World, name: str, partition: int, builds: Builds) -> None:
        self.world = world
        self.name = name
        self.partition = partition
        self.committed: int | None = None
        self.furthest = 0
        self._builds = builds
        self._pages = MemoryPages()
        self._store: StateStore | None = None
        self._host: Host | None = None
        self._forward = Forward(f"{name}/{partition}")

    # ---- life

    @property
    def host(self) -> Host:
        """The host, opened where it is not."""
        if self._host is None:
            self._store = self.open_store()
            stage = self.make_stage(self._store)
            self._forward.opened(stage, self.committed)
            topic = READS[self.name]
            self._host = Host(stage, Source(topic, f"id of {topic}", self.partition))
        return self._host

    def open_store(self) -> StateStore:
        """The store, of the last commit."""
        configuration = self.world.configuration
        if self.world.plan.rocks:
            return open_store(self.world.folder / "state", self.name, self.partition, configuration)
        return StateStore.in_pages(self._pages, configuration.fingerprint())

    def view(self) -> StateStore:
        """What a reader opens now: the last commit, beside the writer."""
        if self.world.plan.rocks:
            return StateStore.view(self.world.folder / "state" / self.name / str(self.partition))
        return StateStore.in_pages(self._pages.copy(), self.world.configuration.fingerprint())

    def make_stage(self, store: StateStore) -> Stage:
        """The stage on a store."""
        more = () if self.world.plan.rocks else (SOURCES,)
        stage = make_stage(self.name, self.partition, self.world.configuration, store, *more)
        if isinstance(stage, CopurchaseStage):
            stage.builds = self._builds
        return stage

    def close(self) -> None:
        """The process is gone; what was not committed is lost."""
        if self._store is not None:
            self._store.close()
        self._store = self._host = None

    # ---- work

    def step(self) -> bool:
        """One message, if there is one; a crash closes the process."""
        try:
            return self._step()
        except Crash:
            self.close()
            return True

    def _step(self) -> bool:
        world, host = self.world, self.host
        topic = world.topics[READS[self.name], self.partition]
        if world.hit("rebalance", "rebalance"):
            if 0 < host.position < self.furthest:
                world.sites["rebalance during recovery"] += 1
            self.close()
            host = self.host
        if host.position >= len(topic):
            return False
        offset = host.position
        if offset and world.hit("again", "message delivered again"):
            assert host.take(offset - 1, topic[offset - 1]) == []
        sent = [(name, 0, value) for name, value in host.take(offset, topic[offset])]
        self.furthest = max(self.furthest, host.position)
        self._forward.moved(host.stage)
        host.take_letters()
        if world.hit("crash", "crash before outputs are sent"):
            world.orphan(sent)
            raise Crash
        for number, message in enumerate(sent):
            if number and world.hit("crash", "crash between outputs"):
                world.orphan(sent[number:])
                raise Crash
            world.send(*message)
        world.crash("crash", "crash after outputs are sent")
        if world.draw.random() < world.plan.checkpoint:
            self.checkpoint()
        return True

    def checkpoint(self) -> None:
        """Commit, perhaps crash around it."""
        self.world.crash("crash", "crash before checkpoint")
        stage = self.host.stage
        digest = stage.digest()
        self.host.checkpoint()
        self.committed = digest
        self._forward.committed(stage)
        self.world.crash("crash", "crash after checkpoint")


class IngestProcess:
    """One ingester, from its opening to its end: the shell's part, without Kafka.

    >>> ingester = IngestProcess(World.example())
    >>> ingester.finish(), ingester.finish()
    (True, False)
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._idle: set[int] = set()
        last = [self._last(q) for q in range(world.plan.shards)]
        self.ingest = Ingest(world.configuration, world.sources(), last, lambda: NOW)
        for source in range(len(world.raw)):
            self.ingest.begins(source, 0)
        self._emit(True)

    def _last(self, shard: int) -> Message | None:
        """The last block of a shard; what is no block is passed over."""
        width = len(self.world.configuration.features)
        for value in reversed(self.world.topics["events", shard]):
            try:
                return decode(value, EVENT_ROW, width)
            except WireError:
                continue
        return None

    def wakes(self, source: int) -> None:
        """A partition got messages: what was idle is so no more, before anything else is read."""
        self._heard(source)
        self.ingest.caught_up(source, False)

    def _heard(self, source: int) -> None:
        if source in self._idle:
            self._idle.discard(source)
            self.world.sites["idle partition wakes"] += 1

    def step(self) -> bool:
        """Read some messages of one partition, send what is ready. Crash where it dies."""
        world, draw = self.world, self.world.draw
        source = draw.randrange(len(world.raw))
        start, end = self.ingest.positions[source], world.published[source]
        until = min(end, start + draw.randrange(1, world.plan.reads + 1))
        moved = False
        if start < until and self.ingest.wants(source):
            values = [each.value or None for each in world.raw[source][start:until]]
            self.ingest.offer(source, np.arange(start, until), values)
            self._heard(source)
            moved = True
        if until >= end and draw.random() < 0.4:  # also while its last rows still wait for others
            self.ingest.caught_up(source, True)
            self._idle.add(source)
            world.sites["partition idle"] += 1
        return self._emit(world.calm or draw.random() < 0.3) or moved

    def finish(self) -> bool:
        """Everything that is there, with every partition idle then."""
        world = self.world
        moved = False
        for source in range(len(world.raw)):
            start, end = self.ingest.positions[source], world.published[source]
            if start < end:
                values = [each.value or None for each in world.raw[source][start:end]]
                self.ingest.offer(source, np.arange(start, end), values)
                moved = True
        self._emit(False)
        for source in range(len(world.raw)):
            self.ingest.caught_up(source, True)
        return self._emit(True) or moved

    def _emit(self, everything: bool) -> bool:
        world, moved = self.world, False
        while True:
            blocks, letters = self.ingest.take(everything)
            world.sites["dead letter"] += len(letters)
            if not blocks:
                return moved
            moved = True
            sent = [("events", q, encode(message)) for q, message in blocks]
            for number, message in enumerate(sent):
                if number and world.hit("ingest crash", "ingest crash between shards"):
                    world.orphan(sent[number:], "ingest block")
                    raise Crash
                world.send(*message, prefix="ingest block")
            world.crash("ingest crash", "ingest crash after blocks")


def alive(make: Callable[[], IngestProcess]) -> IngestProcess:
    """An ingester that lives through its opening, after as many attempts as that takes.

    >>> alive(lambda: IngestProcess(World.example())).ingest.waiting
    0
    """
    while True:
        try:
            return make()
        except Crash:
            continue
