"""Processes of the simulation: a stage with its host and its checkpoints, and an ingester; both die and are born again.

What they do between the sites where they may die is the product's: `Host`, `Ingest` and `StateStore`. Where what they
were to read is gone, and the product says so, they are `Stopped`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...graph_store.memory_pages import MemoryPages
from ...graph_store.state_store import StateError, StateStore
from ..build import Builds
from ..copurchase import CopurchaseStage
from ..host import Host
from ..ingest import Ingest, IngestError
from ..row import EVENT_ROW
from ..stage import Gap, Stage
from ..state_directory import make_stage, open_store
from ..topology import FLOWS
from ..wire import Message, Source, WireError, decode, encode
from .checks import CheckFailed, Forward
from .image import logged_bytes, take_image, tear
from .world import NOW, RAW, Crash, Stopped, World

SOURCES = 16
"""Raw partitions that a state in memory has room for."""
READS = {flow.stage: flow.reads for flow in FLOWS}


class StageProcess:
    """One stage on one partition: opened from its last checkpoint whenever it is wanted and not alive.

    Attributes
    ----------
    input : the topic that it reads, and the partition
    committed : digest that the stage had when it was last committed, None before
    saved : position that it was last committed at
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
        self.input = READS[name], partition
        self.committed: int | None = None
        self.saved = 0
        self.furthest = 0
        self._torn: int | None = None
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
            self._host = self._make_host(stage)
        return self._host

    def _make_host(self, stage: Stage) -> Host:
        topic, partition = self.input
        source = Source(topic, self.world.id_of(topic), partition)
        try:
            host = Host(stage, source)
        except StateError as error:
            if topic in self.world.made_again:
                raise Stopped(self, error) from error
            raise
        if stage.input != source.id:
            raise CheckFailed(f"{self.name}: goes on in {source.id} at its position in {stage.input}")
        return host

    @property
    def _folder(self) -> Path:
        return self.world.folder / "state" / self.name / str(self.partition)

    def open_store(self) -> StateStore:
        """The store, of the last commit."""
        configuration = self.world.configuration
        if self.world.plan.rocks:
            return open_store(self.world.folder / "state", self.name, self.partition, configuration)
        return StateStore.in_pages(self._pages, configuration.fingerprint())

    def view(self) -> StateStore:
        """What a reader opens now: the last commit, beside the writer."""
        if self.world.plan.rocks:
            return StateStore.view(self._folder)
        return StateStore.in_pages(self._pages.copy(), self.world.configuration.fingerprint())

    def make_stage(self, store: StateStore) -> Stage:
        """The stage on a store."""
        more = () if self.world.plan.rocks else (SOURCES,)
        stage = make_stage(self.name, self.partition, self.world.configuration, store, *more)
        if isinstance(stage, CopurchaseStage):
            stage.builds = self._builds
        return stage

    def close(self) -> None:
        """The process leaves in peace; what was not committed is lost."""
        if self._store is not None:
            self._store.close()
        self._store = self._host = None

    def die(self) -> None:
        """The process is killed: the next one opens what stands in the files now, before anything is closed."""
        if self._store is None or not self.world.plan.rocks:
            self.close()
            return
        image = take_image(self._folder)
        if self._torn is not None:
            tear(image, self._torn, self.world.draw)
            self._torn = None
        self.close()
        shutil.rmtree(self._folder)
        image.rename(self._folder)
        self.world.sites["RocksDB killed"] += 1

    # ---- work

    def step(self) -> bool:
        """One message, if there is one; the process may die of it. Stopped where what it was to read is gone."""
        try:
            return self._step()
        except Crash:
            self.die()
            return True

    def _step(self) -> bool:
        world, host = self.world, self.host
        topic, begin = world.topics[self.input], world.begins[self.input]
        if world.hit("rebalance", "rebalance"):
            if 0 < host.position < self.furthest:
                world.sites["rebalance during recovery"] += 1
            self.close()
            host = self.host
        offset = max(host.position, begin)
        if offset >= len(topic):
            return False
        world.missed |= offset > host.position
        if offset > begin and world.hit("again", "message delivered again"):
            assert host.take(offset - 1, topic[offset - 1]) == []
        sent = self._take(host, offset, topic[offset])
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

    def _take(self, host: Host, offset: int, value: bytes | None) -> list[tuple[str, int, bytes]]:
        """What the host gives for a message, each with topic and partition. Stopped, where something was lost, also if
        it was another stage's: what that one made of the rest does not fit what it had made before."""
        try:
            return [(name, 0, sent) for name, sent in host.take(offset, value)]
        except (Gap, StateError) as error:
            if self.world.missed or self.world.made_again:
                raise Stopped(self, error) from error
            raise

    def checkpoint(self) -> None:
        """Commit, perhaps die around it, or of RocksDB in the midst of the write."""
        self.world.crash("crash", "crash before checkpoint")
        stage = self.host.stage
        digest = stage.digest()
        if self.world.plan.rocks and self.world.hit("crash", "write torn"):
            self._torn = logged_bytes(self._folder)
        self.host.checkpoint()
        if self._torn is not None:
            raise Crash("write torn")
        self.committed, self.saved = digest, self.host.position
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
        found = [last_block(world, q) for q in range(world.plan.shards)]
        last = [block and block[1] for block in found]
        try:
            self.ingest = Ingest(world.configuration, world.sources(), last, lambda: NOW)
        except IngestError as error:
            if RAW in world.made_again:
                raise Stopped(self, error) from error
            raise
        for source in range(len(world.raw)):
            self._begins(source)
        self._emit(True)

    def _begins(self, source: int) -> int:
        """Where the source's log begins; Stopped where ingest misses something. Where others have sent what it
        misses, the next ingester does not."""
        world, begin = self.world, self.world.begins[RAW, source]
        try:
            self.ingest.begins(source, begin)
        except IngestError as error:
            if begin <= min(covered(world, source)):
                raise Crash from error
            raise Stopped(self, error) from error
        return begin

    def _next(self, source: int) -> tuple[int, int]:
        """Offsets of what there is to read: the shell is told where it is out of range, and asks."""
        start = self.ingest.positions[source]
        if start < self.world.begins[RAW, source]:
            start = self._begins(source)
        return start, self.world.published[source]

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
        if world.sources() != sorted(self.ingest.sources):
            raise Crash  # it opens again
        source = draw.randrange(len(world.raw))
        start, end = self._next(source)
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
            start, end = self._next(source)
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


def last_block(world: World, shard: int) -> tuple[int, Message] | None:
    """The last block of a shard, with its offset, None where there is none; what is no block is passed over.

    >>> last_block(World.example(), 0)
    """
    width, log = len(world.configuration.features), world.topics["events", shard]
    for offset in range(len(log) - 1, world.begins["events", shard] - 1, -1):
        try:
            return offset, decode(log[offset], EVENT_ROW, width)
        except WireError:
            continue
    return None


def covered(world: World, source: int) -> list[int]:
    """For each shard the raw offset up to which its blocks cover a source.

    >>> world = World.example()
    >>> covered(world, 0), IngestProcess(world).finish(), covered(world, 0)
    ([0], True, [1])
    """
    wanted, ends = world.sources()[source], []
    for shard in range(world.plan.shards):
        found = last_block(world, shard)
        if found is None or wanted not in found[1].sources:
            ends.append(0)
        else:
            ends.append(found[1].block.ranges[found[1].sources.index(wanted)][1])
    return ends


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
