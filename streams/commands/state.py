"""Commands about a state directory: its digests, what it holds, its tables as files. They open it read-only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from .output import Flag, Json, table, write, write_json
from .replay import verdict

State = Annotated[Path, Parameter(name="--state")]
_FOREVER = 253_402_300_799_000


def instant(ms: int) -> str | None:
    """Event time in ms as ISO 8601, UTC; None where there is none yet.

    >>> instant(0), instant(-(2**63))
    ('1970-01-01T00:00:00Z', None)
    """
    if abs(ms) > _FOREVER:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms / 1000))


def digest(*, state: State, trail: Flag = False, json: Json = False) -> None:
    """Print one line a stage, `STAGE HEX`: equal states have equal digests, whatever the blocks and shards were.

    Parameters
    ----------
    state
        The state directory.
    trail
        The audit trail instead, `STAGE TIME HEX`: the digest at each multiple of audit_interval of event time.
    json
        Report as JSON.
    """
    from ..state_directory import StateDirectory

    with StateDirectory(state, read_only=True) as directory:
        digests, trails = directory.digests(), directory.trails() if trail or json else {}
    entries = [(stage, instant(ts), f"{value:032x}") for stage, each in trails.items() for ts, value in each.items()]
    if json:
        hexes = {stage: f"{value:032x}" for stage, value in digests.items()}
        fields = ("stage", "time", "digest")
        write_json({"digests": hexes, "trail": [dict(zip(fields, entry, strict=True)) for entry in entries]})
    elif trail:
        for entry in entries:
            write(" ".join(str(part) for part in entry))
    else:
        for stage, value in digests.items():
            write(f"{stage} {value:032x}")


def inspect(*, state: State, json: Json = False) -> None:
    """Show each stage's clock, held rows and tables, what bounds dropped, and the books; and the workers at it now.

    The state is as of the last checkpoints; what workers say is a second old.

    Parameters
    ----------
    state
        The state directory.
    json
        Report as JSON.
    """
    from ..state_directory import StateDirectory
    from ..status import running
    from ..summing_up import books_of, sizes_of, stages_of

    with StateDirectory(state, read_only=True) as directory:
        found: dict[str, Any] = {
            "state": str(state),
            "fingerprint": directory.configuration.fingerprint(),
            "stages": stages_of(directory),
            "books": books_of(directory),
            "tables": sizes_of(directory),
            "workers": running(state),
        }
    if json:
        write_json(found)
        return
    rows = [(s["stage"], s["shard"], instant(s["clock"]), s["position"], s["held"]) for s in found["stages"]]
    write(table(("stage", "shard", "clock", "position", "held"), rows))
    for worker in found["workers"]:
        write()
        write(worker_tables(worker))
    write()
    write(table(("stage", "table", "bytes"), [tuple(entry.values()) for entry in found["tables"]]))
    counted = [(s["stage"], s["shard"], *entry) for s in found["stages"] for entry in s["counters"].items()]
    if counted:
        write()
        write(table(("stage", "shard", "counter", "count"), counted))
    write()
    write(books_table(found["books"]))


def worker_tables(worker: Any) -> str:
    """What a worker said: its stages, each with what waits on its topic; the raw partitions, where it runs ingest.

    >>> stage = {"stage": "feedback", "partition": 0, "clock": 0, "position": 5, "behind": 1, "held": 2,
    ...          "unacknowledged": 3}
    >>> clicks = {"source": "clicks/0", "position": 7, "behind": 9}
    >>> ingest = {"clock": 0, "waiting": 4, "unacknowledged": 0, "sources": [clicks]}
    >>> print(worker_tables({"pid": 8, "stages": [stage], "ingest": ingest}))
    worker 8  clock now             position  behind  held  unacknowledged
    feedback  1970-01-01T00:00:00Z  5         1       2     3
    ingest    1970-01-01T00:00:00Z                    4     0
    clicks/0                        7         9
    """
    rows: list[tuple[Any, ...]] = []
    for s in worker["stages"]:
        name = s["stage"] + (f"/{s['partition']}" if s["partition"] else "")
        rows.append((name, instant(s["clock"]), s["position"], s["behind"], s["held"], s["unacknowledged"]))
    ingest = worker.get("ingest") or {}
    if "clock" in ingest:
        rows.append(("ingest", instant(ingest["clock"]), "", "", ingest["waiting"], ingest["unacknowledged"]))
    elif ingest:
        rows.append(("ingest stands by", "", "", "", "", ""))
    rows += [(each["source"], "", each["position"], each["behind"], "", "") for each in ingest.get("sources", [])]
    title = f"{worker.get('process', 'worker')} {worker['pid']}"
    return table((title, "clock now", "position", "behind", "held", "unacknowledged"), rows)


def books_table(books: Any) -> str:
    """The books of the events, a type a line, and whether they balance.

    >>> events = {"click": {"read": 3, "applied": 3, "held": 0}}
    >>> print(books_table({"events": events, "labels": {}, "balanced": True, "gaps": []}).splitlines()[1])
    click     3        3
    """
    events = {kind: each for kind, each in books["events"].items() if any(each.values())}
    terms = [
        t for t in dict.fromkeys(t for each in events.values() for t in each) if any(e.get(t) for e in events.values())
    ]
    rows = [(kind, *(each.get(term, 0) for term in terms)) for kind, each in events.items()]
    labels = ", ".join(f"{term} {count:,}" for term, count in books["labels"].items())
    return f"{table(('type', *terms), rows)}\nlabels: {labels}\n{verdict(books)}"


def export(out: Path, /, *, state: State, stage: str | None = None) -> None:
    """Write what each stage holds as Parquet files: the logical entries that the digest covers.

    Parameters
    ----------
    out
        Folder to write to.
    state
        The state directory.
    stage
        One stage only: attribution, feedback, copurchase or calibration.
    """
    from ..export import export_stage
    from ..state_directory import StateDirectory

    with StateDirectory(state, read_only=True) as directory:
        for each in directory.stages():
            if stage in (None, each.name):
                for path, rows in export_stage(each, out):
                    write(f"{path} {rows}")
