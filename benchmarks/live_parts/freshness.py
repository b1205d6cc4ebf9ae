"""How old an answer is: events are sent at a steady rate, stamped with the time at which they are sent, while a worker
runs.

An answer stands on the commits of the moment at which its question opens the state. So two things are measured: from
the sending of each event to the moment at which every stage has committed a clock beyond the event's time (read every
50 ms from the commit records, by a RocksDB follower that costs next to nothing); and, twice in three seconds, how long
a question takes, from opening the state to the answer with its clocks. The delay of an event is the first plus the
second, each event with each question: a question asked at the commit is answered with the event that much later.
Sending comes a few ms before the append, so delays are a little longer than from the append.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from confluent_kafka import Producer
from rocksdict import AccessType, Options, Rdict

import thalweg
from thalweg.streams.event import TYPE_NAMES

LOOK = 0.05
"""Seconds between two looks at the commits."""
ASK = 1.5
"""Seconds between two questions."""
TICK = 0.002
"""Seconds between two bursts of the sender."""
THIN = 20
"""Of so many events one is paired with every question."""
AHEAD = 5.0
"""Seconds of sending after the last event measured, beyond the lateness, or the clock would not pass it."""


def send(brokers: str, topic: str, log: str, rate: float, seconds: float, pipe: Any) -> None:
    """In a child: send the log's events at `rate` for `seconds`, each stamped now; then say all stamps (ms)."""
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 20, "acks": "all"})
    events = records(log)
    stamps: list[int] = []
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        for _ in range(int(passed * rate) - len(stamps)):
            record = next(events)
            record["ts"] = int(time.time() * 1000)
            stamps.append(record["ts"])
            producer.produce(topic, msgspec.json.encode(record), record.get("user_id", ""))
        producer.poll(0)
        time.sleep(TICK)
    producer.flush(10)
    pipe.send(np.array(stamps, np.int64))


def records(log: str) -> Iterator[dict[str, Any]]:
    """Events of a canonical Parquet log as plain dicts without what is absent."""
    for batch in pq.ParquetFile(log).iter_batches(8_192):
        for row in batch.to_pylist():
            record = {name: value for name, value in row.items() if value is not None}
            yield record | {"type": TYPE_NAMES[record["type"]]}


class Commits:
    """Follows the commits of all stages: when each look was made (ms), and the least clock committed then."""

    def __init__(self, state: Path, folder: str) -> None:
        self._stages = sorted(path for path in state.glob("*/*") if (path / "CURRENT").exists())
        options = Options(raw_mode=True)
        self._stores = [
            Rdict(str(path), options, access_type=AccessType.secondary(f"{folder}/{number}"))
            for number, path in enumerate(self._stages)
        ]
        self.at: list[float] = []
        self.clock: list[int] = []

    def look(self) -> None:
        """One look."""
        at, clocks = time.time() * 1000, []
        for store in self._stores:
            store.try_catch_up_with_primary()
            raw = store.get(b"m")
            clocks.append(-(2**62) if raw is None else min(msgspec.json.decode(raw, type=_Meta).position.clocks))
        self.at.append(at)
        self.clock.append(min(clocks))

    def delays(self, stamps: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Seconds from each stamp to the first look at which all clocks had passed it; infinite where none had."""
        passed = np.searchsorted(np.maximum.accumulate(self.clock), stamps, side="right")
        at = np.append(self.at, np.inf)
        return (at[passed] - stamps) / 1000

    def close(self) -> None:
        """Give the folders back."""
        for store in self._stores:
            store.close()


class _Position(msgspec.Struct):
    clocks: list[int]


class _Meta(msgspec.Struct):
    position: _Position


def ask(state: Path, user: str) -> float:
    """Seconds that a question takes: the state opened anew, and the answer with its clocks."""
    began = time.perf_counter()
    with thalweg.open(state) as view:
        assert view.recommend(user).clocks
    return time.perf_counter() - began


def ask_again(state: Path, user: str, pipe: Any) -> None:
    """In a child, for a question takes longer than a look may wait: ask until told to stop; then say all times."""
    took = []
    ask(state, user)  # loads what a process loads once
    while not pipe.poll(ASK):
        took.append(ask(state, user))
    pipe.send(took)


def measure(
    brokers: str, topic: str, log: Path, state: Path, *, rate: float, seconds: float, lateness: float,
    alive: Callable[[], bool],
) -> dict[str, Any]:  # fmt: skip
    """Send, follow and ask; the delays of the events sent in `seconds` in the middle.

    Left out are a first stretch as long as the lateness and what the first commits need, for nothing can be passed in
    it, and a last one whose events the clock does not pass.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    warm, whole = lateness + AHEAD, 2 * (lateness + AHEAD) + seconds
    sender = context.Process(target=send, args=(brokers, topic, str(log), rate, whole, there), daemon=True)
    user = next(record["user_id"] for record in records(str(log)) if "user_id" in record)
    question, answers = context.Pipe()
    asker = context.Process(target=ask_again, args=(state, user, answers), daemon=True)
    sender.start()
    time.sleep(warm)
    asker.start()
    with tempfile.TemporaryDirectory() as folder:
        commits = Commits(state, folder)
        while not here.poll(LOOK):
            if not alive():
                raise RuntimeError("the worker ended")
            commits.look()
        commits.close()
    stamps = here.recv()
    question.send("stop")
    took: list[float] = question.recv()
    for child in (sender, asker):
        child.join()
    wanted = stamps[(stamps >= stamps[0] + warm * 1000) & (stamps < stamps[0] + (warm + seconds) * 1000)]
    return summary(commits.delays(wanted) - lateness, np.array(took)) | {
        "lateness": lateness,
        "sent_per_second": len(stamps) / whole,
        "answer_seconds": _quantiles(np.array(took)) | {"answers": len(took)},
        "seconds_between_looks": float(np.quantile(np.diff(commits.at), 0.99)) / 1000,
    }


def summary(beyond: npt.NDArray[np.float64], took: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Delays beyond the lateness to the commit; the same with a question on top; shares within 2 s."""
    answered = (beyond[::THIN, None] + took).ravel()
    return {
        "events": len(beyond),
        "commit_beyond_lateness": _quantiles(beyond),
        "answer_beyond_lateness": _quantiles(answered),
        "committed_within_2_s": float(np.mean(beyond <= 2.0)),
        "within_2_s": float(np.mean(answered <= 2.0)),
    }


def _quantiles(values: npt.NDArray[np.float64]) -> dict[str, float]:
    p50, p99, worst = np.quantile(values, (0.5, 0.99, 1.0), method="higher").tolist()
    return {"p50": p50, "p99": p99, "max": worst}
