"""Commands that run a log through the stages, and compare what came of it: replay, verify."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from .output import Flag, Json, say, table, to_json, write, write_json
from .progress import Progress, announce_compilation, span
from .settings import configuration_for

INTERRUPTED = 130


def replay(
    logs: list[Path],
    /,
    *,
    state: Path,
    config: Path | None = None,
    partitions: int | None = None,
    close: Flag = False,
    strict: Flag = False,
    report: Path | None = None,
    json: Annotated[Path | None, Parameter(name="--json")] = None,
    dead_letters: Path | None = None,
    allow_dead_letters: Flag = False,
    examples: Path | None = None,
    block_rows: int = 10_000,
) -> int:
    """Run logs through every stage: attribution, conversion model, co-purchase graph, calibration.

    Ctrl-C checkpoints; the same command goes on from there, and so does one
    after a kill. Late rows are applied and counted.

    Parameters
    ----------
    logs
        Files or folders: .parquet, .jsonl, .csv, the last two also with .gz; or a folder that `thalweg record` wrote.
    state
        Folder that keeps the state; made where it is missing.
    config
        TOML file. Without one, LOG.toml beside the first file, if it is there, or the one the state was made with.
    partitions
        Number of user shards; overrides the configuration.
    close
        At the end, let rows through that are still held because later ones could come before them.
    strict
        Refuse a log with late rows.
    report
        HTML file for the report, complete in itself.
    json
        File for the same as JSON; - for stdout.
    dead_letters
        File for rejected rows, JSON lines; else STATE/dead_letters.jsonl.
    examples
        Folder for every emission of the learner, as Parquet, for another trainer; else none are written.
    allow_dead_letters
        Exit with 0 although some rows were dead-lettered (else with 3).
    block_rows
        Rows that go through the stages together; changes the speed, never the result.
    """
    from ..item_names import keep
    from ..record import is_recording
    from ..replay import Replay
    from ..report import write_report
    from ..summing_up import sum_up

    if len(logs) == 1 and is_recording(logs[0]):
        return _recorded(logs[0], state, allow_dead_letters)
    configuration = _configuration(logs, state, config, partitions)
    with ExitStack() as stack:
        with interruptible() as asked:  # from before the state is there: whoever sees one may stop it
            run = Replay(
                logs, state, configuration, block_rows=block_rows, dead_letters=dead_letters, examples=examples
            )
            stack.enter_context(closing(run))
            if strict:
                run.refuse_late_rows(asked)
            keep(logs, state)
            announce_compilation()
            with Progress("events") as progress:
                summary = run.go(close=close, progress=progress.rows, stop=asked)
        account = sum_up(run.state, summary)
    if report is not None:
        write_report(account, report)
        say(f"report: {report}")
    if json is not None and str(json) != "-":
        json.write_bytes(to_json(account))
    if json is not None and str(json) == "-":
        write_json(account)
    else:
        write(outcome(account))
    return _status(summary, state, allow_dead_letters)


def _recorded(folder: Path, state: Path, allow_dead_letters: bool) -> int:
    """Replay what `thalweg record` wrote."""
    from ..record import RecordedReplay

    with interruptible() as asked, closing(RecordedReplay(folder, state)) as run:
        announce_compilation()
        with Progress("messages") as progress:
            summary = run.go(progress=progress.rows, stop=asked)
    say(f"replayed the recording {folder}: {summary.rows:,} events in {summary.seconds:.1f} s, {summary.late:,} late")
    return _status(summary, state, allow_dead_letters)


def _configuration(logs: list[Path], state: Path, config: Path | None, partitions: int | None) -> Any:
    """As asked for; of an old state and with nothing said, the one it was made with."""
    from ..state_directory import stored_configuration

    known = state / "configuration.json"
    if config is None and partitions is None and known.is_file():
        return stored_configuration(state)
    return configuration_for(logs, config, partitions=partitions)


def _status(summary: Any, state: Path, allow_dead_letters: bool) -> int:
    if summary.interrupted:
        say(f"interrupted and checkpointed in {state}; the same command goes on from here")
        return INTERRUPTED
    rejected = sum(summary.dead_letters.values())
    if rejected:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in summary.dead_letters.items())
        say(f"{rejected:,} rows were dead-lettered ({reasons})")
        return 0 if allow_dead_letters else 3
    return 0


@contextmanager
def interruptible() -> Iterator[Any]:
    """While inside, the first SIGINT or SIGTERM only makes the yielded function say True; a second one interrupts.

    So does SIGHUP, the end of the terminal, unless it is ignored (nohup).

    >>> with interruptible() as asked:
    ...     asked()
    False
    """
    asked: list[int] = []

    def note(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        say("stopping at the next checkpoint; once more to stop at once")

    hangup = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL else []
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, *hangup)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def outcome(account: Any) -> str:
    """A replay in a few lines: events and rate, the books, the scores beside their baselines."""
    run = account["run"]
    lines = [
        f"{run['events']:,} events in {span(run['seconds'])}, {run['rate']:,.0f}/s; state in {run['state']}",
        f"late {run['late']:,}; dead-lettered {sum(account['dead_letters'].values()):,}; {verdict(account['books'])}",
    ]
    totals = account["prequential"]["total"]
    if totals:
        head = ("conversion", "scored", "log-loss", "AUC", "PR-AUC", "predicted/actual")
        rows = [(t["name"], t["trials"], t["log_loss"], t["auc"], t["pr_auc"], t["ratio"]) for t in totals]
        lines += ["", table(head, rows)]
    lines += [
        f"{i['name']}: {i['difference']:+.3g} in log-loss, 95 % interval {i['low']:+.3g} to {i['high']:+.3g}, "
        f"{i['weeks']} weeks"
        for i in account["prequential"]["intervals"]
        if i["low"] is not None
    ]
    ranked = account["related"]["total"]
    if ranked:
        lines += ["", table(("related", "pairs", "HR@10", "MRR@10"), [tuple(r.values()) for r in ranked])]
    return "\n".join(lines)


def verdict(books: Any) -> str:
    """Whether the books balance, and where not.

    >>> verdict({"balanced": True, "gaps": []})
    'the books balance'
    """
    return "the books balance" if books["balanced"] else f"THE BOOKS DO NOT BALANCE: {'; '.join(books['gaps'])}"


def verify(first: Path, second: Path, /, *, json: Json = False) -> int:
    """Compare two states by audit trail and digest; name the first stage and day that differ. Exit with 1 if any does.

    Parameters
    ----------
    first
        A state directory.
    second
        Another one.
    json
        Report as JSON.
    """
    from ..verify import verify as compare

    result = compare(first, second)
    if json:
        write_json(result)
    else:
        write("equal" if result.equal else "different")
        for difference in result.differences:
            write(f"  {difference}")
        write(table(("stage", "first", "second"), [(stage, *each) for stage, each in result.digests.items()]))
        write(f"late rows: {result.late[0]:,} and {result.late[1]:,}; audits compared: {result.boundaries:,}")
    return 0 if result.equal else 1
