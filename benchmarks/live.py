"""Live: a backlog of JSON events with 2 features through ingest and one worker, the broker on the same machine.

    .venv/bin/python benchmarks/live.py [EVENTS]

The same command is run twice: with the backlog, and again with nothing to do (start, group join, idle time, stop). The
difference is the work; wall clock, and CPU seconds of the worker and its ingest process (the broker is a process of its
own and is not in them). Learning is on, policy vanilla. What it prints goes into results.md.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from thalweg.streams.broker import EmbeddedBroker
from thalweg.streams.funnel import simulate

EVENTS = 1_000_000
SETTINGS = {
    "THALWEG_CONVERSION__POLICY": "vanilla",
    "THALWEG_KAFKA__SESSION_TIMEOUT": "2s",
    "THALWEG_TIME__IDLE_TIMEOUT": "2s",
}


def run(*arguments: str, folder: Path) -> tuple[float, float]:
    """One command to its end: wall seconds, CPU seconds with its children."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "thalweg.streams.cli", *arguments, "--config", str(folder / "log.toml")],
        env={**os.environ, **SETTINGS}, check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Publish, work, work again with nothing to do; print."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
    with tempfile.TemporaryDirectory() as name, EmbeddedBroker() as broker:
        folder = Path(name)
        simulate(folder / "log.parquet", events, seed=1, features=2)
        where = ("--brokers", broker.address)
        run("topics", "create", *where, folder=folder)
        wall, cpu = run("publish", str(folder / "log.parquet"), "--flat-out", *where, folder=folder)
        print(f"publish   {events / wall:10,.0f} events/s   {1e6 * cpu / events:6.1f} CPU s a million")
        worker = ("worker", "--state", str(folder / "state"), "--until-idle", "1", *where)
        busy = run(*worker, folder=folder)
        idle = run(*worker, folder=folder)
        wall, cpu = busy[0] - idle[0], busy[1] - idle[1]
        print(f"worker    {events / wall:10,.0f} events/s   {1e6 * cpu / events:6.1f} CPU s a million")
        print(f"          ({busy[0]:.1f} s with the backlog, {idle[0]:.1f} s with nothing to do)")


if __name__ == "__main__":
    main()
