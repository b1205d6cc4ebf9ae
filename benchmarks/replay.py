"""How fast a replay is: a funnel through all stages, beside the same job an event at a time out of River's own pieces.

    .venv/bin/python benchmarks/replay.py [--events 2000000] [--river 500000] [--folder DIR]

The log: 85 % impressions with 20 declared features, 10 % clicks, 3 % carts, 2 % purchases, 60 days, Parquet. Ours reads
it, validates, attributes, learns, keeps graph and calibration, audits daily and checkpoints, on one core: nothing here
starts a second busy thread but the embedding builds, which a refresh longer than the log leaves out. River reads the
same file, joins effects to impressions in dicts, learns with FeatureHasher | LogisticRegression(AdaGrad) of the same
step size: negative at once, positive on conversion (the vanilla policy). It has no calibration, no duplicates, no
returns, no recovery. Log-loss is prequential on matured labels, of both on the same first events. Prints one JSON
line.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import tempfile
import time
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from river import linear_model, optim, preprocessing

from thalweg.streams.configuration import Configuration, load
from thalweg.streams.funnel import simulate
from thalweg.streams.replay import replay
from thalweg.streams.row import Type
from thalweg.streams.state_directory import StateDirectory

FEATURES = 20
WINDOW = 7 * 86_400_000


def ours(log: Path, configuration: Configuration, folder: Path) -> dict[str, float]:
    """Replay into a fresh state: events a second (wall and CPU of this thread) and the log-loss on matured labels."""
    with tempfile.TemporaryDirectory(dir=folder) as state:
        cpu = time.thread_time()
        summary = replay([log], state, configuration)
        cpu = time.thread_time() - cpu
        with StateDirectory(state, read_only=True) as kept:
            scores = kept.feedback.prequential
            loss, scored = scores.log_loss(), int(scores.total[0, 0])
    return {
        "events_per_second": summary.rate,
        "events_per_cpu_second": summary.rows / cpu,
        "seconds": summary.seconds,
        "log_loss": loss,
        "scored": scored,
    }


class PerEvent:
    """The job an event at a time: dicts for the join, River for the learning."""

    def __init__(self, learning_rate: float) -> None:
        self.hasher = preprocessing.FeatureHasher(n_features=2**20, seed=1)
        self.model = linear_model.LogisticRegression(optim.AdaGrad(learning_rate), l2=0.0, intercept_lr=learning_rate)
        self.open: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.latest: dict[tuple[str, str], str] = {}
        self.history: dict[str, dict[str, int]] = defaultdict(dict)
        self.pairs: dict[tuple[str, str], int] = defaultdict(int)
        self.loss, self.scored = 0.0, 0

    def event(self, row: dict[str, Any], names: list[str]) -> None:
        """One event, as a dict."""
        self.expire(row["ts"])
        if row["type"] == Type.IMPRESSION:
            self.impression(row, names)
        elif row["type"] == Type.PURCHASE:
            self.purchase(row)

    def impression(self, row: dict[str, Any], names: list[str]) -> None:
        """Predict, keep, learn a negative."""
        x = {name: row[name] for name in names if row[name] is not None}
        x["user_id"], x["item_id"] = str(row["user_id"]), row["item_id"]
        hashed = self.hasher.transform_one(x)
        p = self.model.predict_proba_one(hashed)[True]
        key = row["impression_id"] or row["event_id"]
        self.open[key] = {"x": hashed, "p": p, "ts": row["ts"], "y": False}
        self.latest[row["user_id"], row["item_id"]] = key
        self.model.learn_one(hashed, False)

    def purchase(self, row: dict[str, Any]) -> None:
        """Join, take the negative back, learn the positive; count co-purchases."""
        kept = self.open.get(row["impression_id"] or self.latest.get((row["user_id"], row["item_id"]), ""))
        if kept is not None and not kept["y"]:
            kept["y"] = True
            self.model.learn_one(kept["x"], True)
        if row["user_id"] is not None:
            mine = self.history[row["user_id"]]
            for item, ts in mine.items():
                if row["ts"] - ts <= 30 * 86_400_000 and item != row["item_id"]:
                    self.pairs[item, row["item_id"]] += 1
            mine[row["item_id"]] = row["ts"]

    def expire(self, ts: int) -> None:
        """Score what has matured."""
        while self.open:
            key, kept = next(iter(self.open.items()))
            if kept["ts"] + WINDOW >= ts:
                return
            del self.open[key]
            p = min(max(kept["p"], 1e-15), 1 - 1e-15)
            self.loss -= math.log(p if kept["y"] else 1 - p)
            self.scored += 1


def per_event(log: Path, learning_rate: float, names: list[str], most: int) -> dict[str, float]:
    """River on the first `most` events: events a second and the log-loss on matured labels."""
    job = PerEvent(learning_rate)
    began, done = time.perf_counter(), 0
    for batch in pq.ParquetFile(log).iter_batches(10_000):
        for row in batch.slice(0, most - done).to_pylist():
            job.event(row, names)
        done = min(most, done + len(batch))
        if done >= most:
            break
    seconds = time.perf_counter() - began
    return {"events_per_second": done / seconds, "log_loss": job.loss / max(1, job.scored), "scored": job.scored}


def head(log: Path, rows: int) -> Path:
    """The first rows of a log as a log."""
    path = log.with_name(f"head{rows}.parquet")
    if not path.exists():
        batches = []
        for batch in pq.ParquetFile(log).iter_batches(100_000):
            batches.append(batch.slice(0, rows - sum(map(len, batches))))
            if sum(map(len, batches)) >= rows:
                break
        with pq.ParquetWriter(path, batches[0].schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
    return path


def main() -> None:
    """Run all and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--river", type=int, default=500_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "thalweg-benchmark")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    log = options.folder / f"funnel{options.events}.parquet"
    if not log.exists():
        simulate(log, options.events, seed=1, features=FEATURES, catalogue=False, days=60)
    first = head(log, options.river)
    results: dict[str, Any] = {
        "events": options.events,
        "features": FEATURES,
        "machine": platform.processor() or platform.machine(),
    }
    for policy in ("vanilla", "retraction"):
        settings = {"THALWEG_CONVERSION__POLICY": policy, "THALWEG_GRAPH__REFRESH": "52w"}
        configuration = load(log.with_suffix(".toml"), settings)
        ours(first, configuration, options.folder)  # compiles the kernels
        results[policy] = ours(log, configuration, options.folder)
        results[f"{policy}_on_river_events"] = ours(first, configuration, options.folder)
    names = [feature.name for feature in configuration.features if feature.source == "context"]
    results["river"] = per_event(log, configuration.conversion.learning_rate, names, options.river)
    results["river_events"] = options.river
    results["ratio"] = results["vanilla"]["events_per_second"] / results["river"]["events_per_second"]
    print(json.dumps(results))


if __name__ == "__main__":
    main()
