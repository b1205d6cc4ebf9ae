"""Made-up summaries of replays, for tests of the report: the shapes are right, the numbers mean nothing."""

from __future__ import annotations

import math
import random

from thalweg.streams.summary import ReplaySummary

WEEK = 604_800_000
START = 1_735_689_600_000


def empty() -> ReplaySummary:
    """Of a replay in which nothing happened."""
    return ReplaySummary(
        run={
            "state": "state", "logs": [], "fingerprint": "0" * 32, "partitions": 1, "policy": "vanilla", "events": 0,
            "seconds": 0.0, "rate": 0.0, "memory": 0, "checkpoints": 1, "checkpoint_bytes": 0, "first": None,
            "clock": None, "late": 0, "closed": False, "interrupted": False,
        },
        books={"events": {}, "labels": {}, "balanced": True, "gaps": []},
        prequential={"total": [], "weeks": [], "intervals": []},
        related={"total": [], "refreshes": []},
        calibration={
            "readings": 0, "levels": [], "points": [], "epochs": [], "thresholds": [],
            "total": {"raw": None, "calibrated": None, "difference": None, "low": None, "high": None},
        },
        graph={"items": 0, "edges": 0, "versions": []},
        tables=[],
        dropped={},
        dead_letters={},
        audit=[],
    )  # fmt: skip


def full(weeks: int = 40, seed: int = 1) -> ReplaySummary:
    """Of a replay of `weeks` weeks in which everything happened."""
    draw = random.Random(seed)
    summary = empty()
    summary["run"].update(
        logs=["year.parquet"], events=1_234_567, seconds=41.7, rate=29_606.0, memory=1_900_000_000,
        checkpoint_bytes=412_000_000, first=START, clock=START + weeks * WEEK, late=12, closed=True,
    )  # fmt: skip
    summary["books"] = _books()
    losses = {"model": 0.052, "base rate so far": 0.061, "item's rate so far": 0.057}
    for name, loss in losses.items():
        for week in range(weeks):
            noise = draw.gauss(0, 0.002) + 0.004 * math.exp(-week / 6)
            summary["prequential"]["weeks"].append(
                {
                    "ts": START + week * WEEK, "name": name, "trials": 20_000, "positives": 240,
                    "log_loss": loss + noise, "ratio": 1 + draw.gauss(0, 0.05),
                }
            )  # fmt: skip
        summary["prequential"]["total"].append(
            {
                "name": name, "trials": 20_000 * weeks, "positives": 240 * weeks, "log_loss": loss, "auc": 0.71,
                "pr_auc": 0.063, "ratio": 1.013, "error": 0.0021,
            }
        )  # fmt: skip
        if name != "model":
            gap = 0.052 - loss
            summary["prequential"]["intervals"].append(
                {
                    "name": f"model minus {name}",
                    "difference": gap,
                    "low": gap - 0.001,
                    "high": gap + 0.001,
                    "weeks": weeks,
                }
            )
    for name, rate in (("related", 0.081), ("raw count", 0.056), ("popularity", 0.032), ("last bought", 0.021)):
        summary["related"]["total"].append(
            {"name": name, "pairs": 9_000, "hit_rate": rate, "reciprocal_rank": rate / 3}
        )
        for version in range(1, 4):
            summary["related"]["refreshes"].append(
                {
                    "ts": START + 13 * version * WEEK, "name": name, "pairs": 3_000,
                    "hit_rate": rate + draw.gauss(0, 0.004), "reciprocal_rank": rate / 3,
                }
            )  # fmt: skip
    _calibrate(summary, weeks, draw)
    _store(summary)
    return summary


def _books() -> dict[str, object]:
    return {
        "events": {
            "impression": {"read": 1_000_000, "applied": 990_000, "held": 0, "duplicate": 10_000},
            "purchase": {
                "read": 20_000, "applied": 19_700, "held": 0, "duplicate": 200, "dead_lettered": 100,
                "attributed": 12_000, "unattributed": 7_700,
            },
        },
        "labels": {"negatives_emitted": 990_000, "negatives_open": 9_000, "negatives_confirmed": 981_000},
        "balanced": True,
        "gaps": [],
    }  # fmt: skip


def _calibrate(summary: ReplaySummary, weeks: int, draw: random.Random) -> None:
    found = summary["calibration"]
    for level in range(3):
        found["levels"].append({"level": level, "bins": 10, "threshold": 0.06 + 0.02 * level})
        for group in range(12):
            rate = 0.002 + 0.012 * group
            came = max(0.0, rate + draw.gauss(0, 0.004))
            found["points"].append(
                {
                    "level": level, "trials": 5_000, "raw": rate * 1.4, "predicted": rate, "actual": came,
                    "low": max(0.0, came - 0.006), "high": came + 0.006,
                }
            )  # fmt: skip
        for week in range(weeks):
            found["thresholds"].append(
                {"ts": START + week * WEEK, "level": level, "threshold": 0.06 + 0.02 * level + draw.gauss(0, 0.002)}
            )
    for epoch in range(7 * weeks):
        raw = 0.055 + draw.gauss(0, 0.004)
        found["epochs"].append(
            {
                "ts": START + epoch * WEEK // 7, "trials": 3_000, "positives": 36, "levels": 3, "raw": raw,
                "calibrated": raw - 0.0012,
            }
        )  # fmt: skip
    found["readings"] = 7 * weeks
    found["total"] = {
        "raw": 0.055, "calibrated": 0.0538, "difference": -0.0012, "low": -0.0016, "high": -0.0008, "weeks": weeks,
        "epochs_with_levels": 7 * weeks - 20, "raw_error": 0.004, "calibrated_error": 0.0009,
    }  # fmt: skip


def _store(summary: ReplaySummary) -> None:
    summary["graph"] = {
        "items": 31_000,
        "edges": 812_345,
        "versions": [
            {
                "version": k, "ts": START + 13 * k * WEEK, "method": "propagation", "reason": "it found more",
                "items": 9_000 * k, "pairs": 200_000 * k, "svd": 0.07, "propagation": 0.09, "one_way": 0.11,
                "inputs": f"{k:032x}",
            }
            for k in range(1, 4)
        ],
    }  # fmt: skip
    for stage, tables in {
        "attribution": {"impressions": 120_000_000, "purchases": 30_000_000, "seen": 44_000_000},
        "feedback": {"weights": 16_777_216, "impressions": 90_000_000},
        "copurchase": {"edges": 61_000_000, "embeddings": 15_000_000},
        "calibration": {"trials": 13_000_000, "positives": 13_000_000},
    }.items():
        summary["tables"] += [{"stage": stage, "table": name, "bytes": size} for name, size in tables.items()]
        summary["audit"].append(
            {"stage": stage, "digest": "ab" * 16, "entries": 280, "last": [(START + WEEK, "cd" * 16)]}
        )
    summary["dead_letters"] = {"bad_quantity": 123, "missing_field:item_id": 4}
    summary["dropped"] = {"copurchase: edges dropped": 17}
