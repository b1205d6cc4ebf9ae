"""Live: a backlog of JSON events with 2 features through ingest and one worker; beside it, on the same topic, the join
alone in Faust and in Quix Streams; and how old an answer is at 5 thousand events a second.

    .venv/bin/python benchmarks/live.py [--events 2000000] [--brokers HOST:PORT | --kafka ../shared/kafka]

One topic holds events of all types, keyed by shopper; the broker runs on the same machine (the embedded one, unless
another is named here or by the tests' variables). Ours: `thalweg worker`, learning on, policy vanilla, run once with
the backlog and twice with nothing to do (start, group join, idle time, stop): the difference is the work. CPU seconds
are those of the worker and its ingest; the broker is a process of its own and in no figure. Embedding builds, a process
each, are left out as in replay.py, for the log packs 60 days into seconds; `--refresh 2w` has one for each two weeks.

The others keep an impression under (shopper, item) and look it up for each click, cart and purchase; labels go to a
topic. They read the first messages of the same topic, fewer than ours: their rates are steady, and time and CPU run
from the first message. What they join is checked against a plain loop over the same messages. Prints as it goes, and at
the end one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from live_parts import brokers, freshness, peers

from thalweg.streams.funnel import simulate

PARTS = ("ours", "peers", "freshness")
IDLE_RUNS = 2
WARM_EVENTS = 20_000


class Thalweg:
    """Our commands, against one broker, one raw topic and one state."""

    def __init__(self, address: str, folder: Path, name: str, session: str, refresh: str) -> None:
        self.address, self.folder, self.name = address, folder, name
        self.log, self.state = folder / "log.parquet", folder / f"state-{name}"
        self._settings = {
            "THALWEG_KAFKA__TOPICS": f'{{"{name}" = ""}}',
            "THALWEG_KAFKA__APPLICATION": f"{name}-thalweg",
            "THALWEG_KAFKA__SESSION_TIMEOUT": session,
            "THALWEG_CONVERSION__POLICY": "vanilla",
            "THALWEG_GRAPH__REFRESH": refresh,
            "THALWEG_TIME__IDLE_TIMEOUT": "2s",
        }

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[bytes]:
        """A command on its way."""
        command = [sys.executable, "-m", "thalweg.streams.cli", *arguments]
        return subprocess.Popen(command, env={**os.environ, **self._settings}, **more)

    def run(self, *arguments: str) -> tuple[float, float]:
        """A command with broker and configuration, to its end: wall seconds, CPU seconds with its children."""
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        process = self.start(*arguments, *self.where(), stderr=subprocess.PIPE)
        said = process.communicate()[1]
        if process.returncode:
            raise RuntimeError(f"{arguments[0]} ended with {process.returncode}: {said.decode()}")
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def where(self) -> Sequence[str]:
        """The options that say where the broker and the configuration are."""
        return ("--brokers", self.address, "--config", str(self.folder / "log.toml"))

    def topics(self) -> None:
        """The raw topic, which the others read too, and ours."""
        brokers.create(self.address, [self.name, *(f"{self.name}-{which}" for which in ("faust", "dict", "quix"))])
        self.run("topics", "create")

    def books(self) -> dict[str, dict[str, int]]:
        """What attribution counted, by type of event."""
        process = self.start("state", "inspect", "--state", str(self.state), "--json", stdout=subprocess.PIPE)
        found: dict[str, dict[str, int]] = json.loads(process.communicate()[0])["books"]["events"]
        return found


def warm(system: Thalweg) -> None:
    """A small backlog through a worker: every kernel that was not compiled is compiled now."""
    simulate(system.log, WARM_EVENTS, seed=3, features=2)
    system.topics()
    system.run("publish", str(system.log), "--flat-out")
    system.run("worker", "--state", str(system.state), "--until-idle", "1")


def backlog(system: Thalweg, events: int) -> dict[str, Any]:
    """The backlog through one worker, less what a worker costs that has nothing to do."""
    worker = ("worker", "--state", str(system.state), "--until-idle", "1")
    busy = system.run(*worker)
    idle = [system.run(*worker) for _ in range(IDLE_RUNS)]
    nothing = tuple(sum(run[k] for run in idle) / len(idle) for k in (0, 1))
    books = system.books()
    return {
        "events": events,
        "events_per_second": events / (busy[0] - nothing[0]),
        "cpu_seconds_per_million": 1e6 * (busy[1] - nothing[1]) / events,
        "seconds": {"with_backlog": busy[0], "with_nothing": [run[0] for run in idle]},
        "cpu_seconds": {"with_backlog": busy[1], "with_nothing": [run[1] for run in idle]},
        "joined": {kind: books[kind]["attributed"] for kind in peers.EFFECTS},
    }


def baselines(system: Thalweg, faust: int, quix: int, dictionary: int) -> dict[str, Any]:
    """The join alone in Faust and in Quix, checked."""
    jobs: list[tuple[str, str, int, tuple[str, ...]]] = [
        ("faust", "faust_join.py", faust, ()),
        ("faust_dict", "faust_join.py", dictionary, ("--dict",)),
        ("quix", "quix_join.py", quix, ()),
    ]
    found: dict[str, Any] = {}
    for name, program, messages, more in jobs:
        if messages:
            output = f"{system.name}-{'dict' if more else name}"
            found[name] = peers.run(program, system.address, system.name, output, messages, *more)
            show(name, found[name])
    plain = peers.PlainJoin(system.address, system.name)
    for name, said in sorted(found.items(), key=lambda one: one[1]["messages"]):
        wanted = plain.read(said["messages"])
        if said["joined"] != wanted:
            raise RuntimeError(f"{name} joined {said['joined']} of {said['messages']:,} messages, the loop {wanted}")
    plain.close()
    return found


def fresh(system: Thalweg, rate: float, seconds: float) -> dict[str, Any]:
    """Freshness with a worker of its own, on a new topic and a new state."""
    simulate(system.log, int(rate * (seconds + 60)), seed=2, features=2)
    system.topics()
    worker = system.start("worker", "--state", str(system.state), *system.where())
    try:
        time.sleep(3.0)
        found = freshness.measure(
            system.address, system.name, system.log, system.state, rate=rate, seconds=seconds, lateness=10.0,
            alive=lambda: worker.poll() is None,
        )  # fmt: skip
    finally:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found | {"worker_cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def show(name: str, said: dict[str, Any]) -> None:
    """One line for a reader."""
    read = said.get("events") or said["messages"]
    joined = said.get("joined", {})
    counts = ", ".join(f"{joined[kind]:,} {kind}" for kind in peers.EFFECTS if joined)
    tail = f"; joined {counts}: {sum(joined.values()) / read:.1%} of them" if joined else ""
    print(
        f"{name:10} {said['events_per_second']:10,.0f} events/s {said['cpu_seconds_per_million']:8.1f} CPU s a million"
        f"   {read:,} of the topic{tail}",
        flush=True,
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    address, folder = brokers.given()
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--faust", type=int, default=100_000, help="messages that Faust reads")
    parser.add_argument("--faust-dict", type=int, default=100_000, help="and with a dict for its state; 0: leave out")
    parser.add_argument("--quix", type=int, default=400_000, help="messages that Quix Streams reads")
    parser.add_argument("--refresh", default="52w", help="event time between embedding builds; the log spans 60 days")
    parser.add_argument("--rate", type=float, default=5_000, help="events a second for the freshness")
    parser.add_argument("--seconds", type=float, default=60, help="of events whose freshness is measured")
    parser.add_argument("--brokers", default=address, help="a broker that runs; its topics are deleted at the end")
    parser.add_argument("--kafka", type=Path, default=folder, help="folder with Apache Kafka's script `broker`")
    parser.add_argument("--only", choices=PARTS, action="append", help="leave the other parts out; may be repeated")
    return parser.parse_args()


def measure(options: argparse.Namespace, address: str, folder: Path, name: str) -> dict[str, Any]:
    """All parts on one broker."""
    parts = options.only or PARTS
    session = "2s" if not options.brokers and not options.kafka else "6s"  # Apache Kafka takes no shorter one
    shared = (session, options.refresh)
    system = Thalweg(address, folder, name, *shared)
    if {"ours", "freshness"} & set(parts):
        warm(Thalweg(address, folder, f"{name}-warm", *shared))
    result: dict[str, Any] = {}
    if {"ours", "peers"} & set(parts):
        rows = sum(simulate(system.log, options.events, seed=1, features=2).rows.values())
        system.topics()
        wall, cpu = system.run("publish", str(system.log), "--flat-out")
        result["publish"] = {"events_per_second": rows / wall, "cpu_seconds_per_million": 1e6 * cpu / rows}
        show("publish", result["publish"] | {"events": rows})
    if "ours" in parts:
        result["ours"] = backlog(system, rows)
        show("ours", result["ours"])
    if "peers" in parts:
        result |= baselines(system, options.faust, options.quix, options.faust_dict)
        result["ratio"] = ratios(result) if "ours" in result else {}
        print("ours over theirs:", json.dumps(result["ratio"]))
    if "freshness" in parts:
        result["freshness"] = fresh(Thalweg(address, folder, f"{name}-now", *shared), options.rate, options.seconds)
        print("freshness  ", json.dumps(result["freshness"]))
    return result


def ratios(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Ours against each of the others: events a second, and CPU seconds a million."""
    ours = result["ours"]
    return {
        peer: {
            "events_per_second": round(ours["events_per_second"] / result[peer]["events_per_second"], 1),
            "cpu": round(result[peer]["cpu_seconds_per_million"] / ours["cpu_seconds_per_million"], 1),
        }
        for peer in ("faust", "faust_dict", "quix")
        if peer in result
    }


def main() -> None:
    """Start the broker, measure, print."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that broker and worker are stopped
    name = f"bench{uuid.uuid4().hex[:8]}"
    with brokers.running(options.brokers, options.kafka) as (address, broker), tempfile.TemporaryDirectory() as folder:
        try:
            result = measure(options, address, Path(folder), name)
        finally:
            if options.brokers:
                brokers.delete(address, name)
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    print(json.dumps({"broker": broker, "machine": machine, "peers": peers.PACKAGES, **result}))


if __name__ == "__main__":
    main()
