"""One seed: the world, its processes, the faults, the end, and what the end is compared with."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec

from ...graph_store import fault
from ...graph_store.state_store import StateStore
from ..build import Builds
from ..configuration import Configuration
from ..host import Host
from ..replay import Replay
from ..stage import Stage
from ..state_directory import StateDirectory, keep_configuration, make_stage
from ..topology import FLOWS
from ..wire import Source
from .checks import CheckFailed, State, check_books, differences, late_rows_of, state_of
from .loss import strike
from .plan import Plan, draw_plan
from .process import SOURCES, IngestProcess, StageProcess, alive
from .shop import Raw, draw_shop, settings
from .world import RAW, Crash, Stopped, World

STEPS = 60_000
"""Steps after which a seed is said not to converge."""


@dataclass(frozen=True)
class Failure:
    """Why a seed failed.

    Attributes
    ----------
    kind : "differs", "stops" (an error of the product) or "check" (a checker)
    text : the first differing stage and day, or the message
    """

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True)
class Verdict:
    """What became of a seed.

    Attributes
    ----------
    sites : how often each site was reached
    failure : None where there is none
    stopped : what the product said when it stopped, rightly, because something was lost for good; None: it did not
    """

    seed: int
    plan: Plan
    sites: Counter[str]
    failure: Failure | None
    stopped: str | None


def simulate_seed(seed: int, plan: Plan | None = None) -> Verdict:
    """Run one seed, of its own plan unless one is given.

    A product error of any kind is a failure, and so is a difference to the fault-free replay: of the raw log, with one
    shard, by the replay driver; where rows come late, of the topics that the seed itself recorded. Where something was
    lost for good, which somebody had not read, the error is what must come, and a silent end differs.

    >>> from .shop import Traits
    >>> verdict = simulate_seed(1, Plan(Traits(rows=30), shards=2, rates={"crash": 0.1}))
    >>> print(verdict.failure, verdict.sites["audit"] > 0)
    None True
    """
    draw = Random(seed)
    drawn = draw_plan(draw)
    plan = plan or drawn
    shop = draw_shop(draw, plan.shop)
    folder = Path(tempfile.mkdtemp(prefix="thalweg-simulation-", dir=_memory()))
    world = World(plan, draw, settings(plan.shards, plan.block_rows), folder, shop)
    try:
        failure = _compare(world, shop)
    except (Crash, KeyboardInterrupt):
        raise
    except CheckFailed as error:
        failure = Failure("check", str(error))
    except Exception as error:  # whatever stops the product is what is looked for
        failure = Failure("stops", f"{type(error).__name__}: {error}")
    finally:
        fault.watch = None
        shutil.rmtree(folder, ignore_errors=True)
    return Verdict(seed, plan, world.sites, failure, world.stopped)


def _memory() -> str | None:
    """A folder in memory, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _compare(world: World, shop: list[list[Raw]]) -> Failure | None:
    builds = Builds(world.folder / "state" / "builds", inline=True)
    expected = None if world.plan.late else _replay_raw(world, shop)
    if world.plan.handover:
        _hand_over(world, shop, builds)
    elif world.plan.rocks:
        world.sites["RocksDB"] += 1
        (world.folder / "state").mkdir()
        keep_configuration(world.folder / "state", world.configuration)
    live = _Live(world, builds)
    try:
        live.run()
        stages = live.stages()
        _count_events(world, stages)
        check_books(stages, "at the end")
        late = late_rows_of(stages)
        if expected is None:
            world.sites["late rows"] += late
            expected = _replay_recorded(world)
        parted = differences(state_of(stages), expected)
    except Stopped as stop:
        live.stays_stopped(stop)
        return None
    finally:
        live.close()
    if parted:
        return Failure("differs", "; ".join(map(str, parted)))
    if late and not world.plan.late and not world.plan.handover:  # what overlaps a replay comes late, as a duplicate
        raise CheckFailed(f"{late} rows came below their clock, and none may")
    return None


class _Live:
    """The processes of one world."""

    def __init__(self, world: World, builds: Builds) -> None:
        self.world = world
        self.processes = [
            StageProcess(world, flow.stage, q, builds)
            for flow in FLOWS
            for q in range(world.plan.shards if flow.sharded else 1)
        ]
        self.ingesters: list[IngestProcess] = []

    def run(self) -> None:
        """With faults until everything was published and read, then without until nothing moves."""
        world = self.world
        fault.watch = world.reached
        for _ in range(STEPS):
            if not self._step() and world.all_published and not world.delayed:
                break
        else:
            raise CheckFailed("it does not come to an end with faults")
        world.calm = True
        if world.plan.loss:  # a sign of life: its opening is a block to every shard, and goes through every stage
            self.ingesters = [alive(lambda: IngestProcess(world))]
        self._calm_down()
        if world.plan.loss:  # and a restart
            for process in self.processes:
                process.close()
            self._calm_down()
        for process in self.processes:
            process.checkpoint()
        self.look()

    def _calm_down(self) -> None:
        """Until nothing moves."""
        for _ in range(STEPS):
            if not self._settle():
                return
        raise CheckFailed("it does not come to an end without faults")

    def _step(self) -> bool:
        world = self.world
        before = world.published.copy()
        woken = world.publish()
        moved = world.published != before
        if not world.plan.apart:
            for ingester in self.ingesters:
                for source in woken:
                    ingester.wakes(source)
        moved |= self._ingest()
        for process in self.processes:
            for _ in range(world.draw.randrange(5)):
                moved |= process.step()
        world.litter()
        strike(world, self.processes, self.ingesters)
        moved |= world.deliver()
        if world.hit("look", "stale reader"):
            self.look()
        return moved

    def _ingest(self) -> bool:
        world = self.world
        if not self.ingesters:
            self.ingesters.append(alive(lambda: IngestProcess(world)))
        elif len(self.ingesters) < 2 and world.hit("second ingester", "two ingesters"):
            self.ingesters.append(alive(lambda: IngestProcess(world)))
        elif len(self.ingesters) > 1 and world.draw.random() < 0.1:
            self.ingesters.pop(world.draw.randrange(2))
        moved = False
        for k, ingester in enumerate(self.ingesters):
            try:
                for _ in range(world.draw.randrange(4)):
                    moved |= ingester.step()
            except Crash:
                self.ingesters[k] = alive(lambda: IngestProcess(world))
                moved = True
        return moved

    def _settle(self) -> bool:
        """Everything that can move, moves."""
        moved = self.world.deliver(everything=True)
        for ingester in self.ingesters:
            moved |= ingester.finish()
        for process in self.processes:
            while process.step():
                moved = True
        return moved

    def stays_stopped(self, stop: Stopped) -> None:
        """It stopped: after a restart it stops again, and what is committed is whole."""
        world = self.world
        world.calm, world.stopped = True, str(stop)
        world.sites["loud stop"] += 1
        try:
            if isinstance(stop.who, StageProcess):
                stop.who.die()
                while stop.who.step():
                    pass
            else:
                alive(lambda: IngestProcess(world)).finish()
        except Stopped:
            self.look()
        else:
            raise CheckFailed(f"after a restart it goes on, and had stopped: {stop}")

    def stages(self) -> list[Stage]:
        """The stages, opened where they are not."""
        return [process.host.stage for process in self.processes]

    def look(self) -> None:
        """A reader opens what is committed: of each stage the whole of some commit, with books that balance."""
        for process in self.processes:
            if process.committed is None:
                continue
            store = process.view()
            try:
                stage = process.make_stage(store)
                if stage.digest() != process.committed:
                    raise CheckFailed(f"a reader sees another state of {process.name} than was committed")
                check_books([stage], f"a reader of {process.name}")
            finally:
                store.close()

    def close(self) -> None:
        """Give everything back."""
        for process in self.processes:
            process.close()


# ---- what the end is compared with


def _write_log(folder: Path, shop: list[list[Raw]]) -> list[Path]:
    """The raw rows as files, one a raw partition."""
    folder.mkdir()
    paths = []
    for p, part in enumerate(shop):
        path = folder / f"{RAW}-{p}.jsonl"
        path.write_bytes(b"".join(each.value + b"\n" for each in part))
        paths.append(path)
    return paths


def _replay(logs: list[Path], state: Path, configuration: Configuration, builds: Builds) -> None:
    run = Replay(logs, state, configuration)
    run.state.copurchase.builds = builds
    try:
        run.go()
    finally:
        run.close()


def _replay_raw(world: World, shop: list[list[Raw]]) -> State:
    """State of the replay driver on the whole log, with one shard."""
    logs = _write_log(world.folder / "log", shop)
    one = msgspec.structs.replace(world.configuration, partitions=1)
    _replay(logs, world.folder / "replayed", one, Builds(world.folder / "replayed" / "builds", inline=True))
    with StateDirectory(world.folder / "replayed", read_only=True) as state:
        return state_of(state.stages())


def _hand_over(world: World, shop: list[list[Raw]], builds: Builds) -> None:
    """Replay what had arrived by some moment, with the live shards; topics begin before it, at moments of their own."""
    world.sites["hand-over"] += 1
    arrivals = sorted(each.arrival for part in shop for each in part)
    cut = arrivals[int(world.plan.handover * len(arrivals))]
    logs = _write_log(world.folder / "early", [[each for each in part if each.arrival <= cut] for part in shop])
    _replay(logs, world.folder / "state", world.configuration, builds)
    for p, part in enumerate(world.raw):
        old = sum(each.arrival <= cut for each in part)
        world.raw[p] = part[world.draw.randrange(old + 1) :]


def _replay_recorded(world: World) -> State:
    """State of fresh stages on the topics of this world, as they stand there, one message after the other."""
    hosts = {
        (flow.stage, q): Host(
            make_stage(flow.stage, q, world.configuration, StateStore.memory(), SOURCES),
            Source(flow.reads, f"id of {flow.reads}", q),
        )
        for flow in FLOWS
        for q in range(world.plan.shards if flow.sharded else 1)
    }
    outcomes: list[bytes] = []
    for (name, q), host in hosts.items():
        if name == "calibration":
            continue
        for offset, value in enumerate(world.topics[host.input.topic, q]):
            outcomes += [sent for topic, sent in host.take(offset, value) if topic == "outcomes"]
    for offset, value in enumerate(outcomes):
        hosts["calibration", 0].take(offset, value)
    return state_of(host.stage for host in hosts.values())


def _count_events(world: World, stages: list[Stage]) -> None:
    """What happened in the shop counts as sites, too: a run in which nothing expires proves little."""
    for stage in stages:
        counters = stage.store.counters
        world.sites["reading"] += counters.get("readings", 0)
        world.sites["refresh"] += counters.get("refreshes", 0)
        world.sites["expiry"] += counters.get("expiries", 0)
        world.sites["reversal"] += counters.get("reversals", 0)
        world.sites["audit"] += len(stage.trail())
    for terms in check_books(stages, "at the end").values():
        world.sites["duplicate"] += terms.get("duplicate", 0)
