"""Sums up a state after a replay: reads the stages, fills `thalweg.streams.summary.ReplaySummary`, changes nothing."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..graph_store.adjacency_kernel import DROPPED as PAIR_BOUNDS
from ..graph_store.embedding import Manifest
from ..models.calibration.grid import DROPPED as GRID_BOUNDS
from ..models.prequential import BASE_RATE, ITEM_RATE, LOG_LOSS, MODEL, POSITIVES, PROBABILITY, SCALE, TRIALS, WEEK
from .graph_summary import related_from, versions_from
from .reliability import points_of, thresholds_of
from .replay import Summary
from .state_directory import StateDirectory
from .summary import (
    Audit,
    Books,
    Calibration,
    EpochScores,
    Graph,
    PairedInterval,
    Prequential,
    ReplaySummary,
    Run,
    Table,
    Total,
    Week,
)  # fmt: skip

PREDICTORS = {MODEL: "model", BASE_RATE: "base rate so far", ITEM_RATE: "item's rate so far"}
"""Names of the predictors whose scores are kept."""
EFFECTS = ("click", "add_to_cart", "purchase", "return")
TRAIL_SHOWN = 5
"""Entries of an audit trail that the summary repeats; `thalweg state digest --trail` has all."""


def sum_up(state: StateDirectory, run: Summary) -> ReplaySummary:
    """The summary of a state that is open, after the replay `run`."""
    versions = state.copurchase.manifests()
    return ReplaySummary(
        run=_run(state, run),
        books=books_of(state),
        prequential=prequential_of(state),
        related=related_from(versions),
        calibration=calibration_of(state),
        graph=graph_of(state, versions),
        tables=sizes_of(state),
        dropped=dropped_of(state),
        dead_letters=dict(run.dead_letters),
        audit=audit_of(state),
    )


def number(value: float) -> float | None:
    """A float for JSON: None where it is NaN or infinite.

    >>> number(0.5), number(float("nan"))
    (0.5, None)
    """
    return float(value) if math.isfinite(value) else None


def _run(state: StateDirectory, run: Summary) -> Run:
    configuration = state.configuration
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(
        state=run.state,
        logs=list(run.logs),
        fingerprint=configuration.fingerprint(),
        partitions=configuration.partitions,
        policy=configuration.conversion.policy,
        events=run.rows,
        seconds=run.seconds,
        rate=run.rate,
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        checkpoints=run.checkpoints,
        checkpoint_bytes=run.checkpoint_bytes,
        first=None,
        clock=_clock(state),
        late=run.late,
        closed=run.closed,
        interrupted=run.interrupted,
    )


def _clock(state: StateDirectory) -> int | None:
    clock = min(stage.clock for stage in state.stages())
    return clock if abs(clock) < 2**62 else None


# ---- the books


def books_of(state: StateDirectory) -> Books:
    """The books of the events, shards summed, and those of the labels; `gaps` says where they do not balance."""
    events: dict[str, dict[str, int]] = {}
    for stage in state.attribution:
        for kind, terms in stage.books().items():
            add_up(events.setdefault(kind, {}), terms)
    labels = state.feedback.books()
    gaps = [*gaps_in_events(events), *gaps_in_labels(labels)]
    return Books(events=events, labels=labels, balanced=not gaps, gaps=gaps)


def add_up(total: dict[str, int], terms: Mapping[str, int]) -> None:
    """Add counts by name to `total`.

    >>> total = {"a": 1}
    >>> add_up(total, {"a": 1, "b": 2})
    >>> total
    {'a': 2, 'b': 2}
    """
    for name, count in terms.items():
        total[name] = total.get(name, 0) + count


def gaps_in_events(events: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The sums that do not hold, in words: what was read, and, of each effect, what was applied.

    >>> gaps_in_events({"click": {"read": 3, "applied": 2, "held": 0, "attributed": 2}})
    ['click: read 3, but applied + held + duplicate + set_aside + dead_lettered is 2']
    """
    gaps = []
    for kind, terms in events.items():
        sums: list[tuple[str, tuple[str, ...]]] = [
            ("read", ("applied", "held", "duplicate", "set_aside", "dead_lettered"))
        ]
        if kind in EFFECTS:
            sums.append(("applied", ("attributed", "unattributed", "orphan", "waiting")))
        gaps += [f"{kind}: {gap}" for left, right in sums if (gap := _gap(terms, left, right))]
    return gaps


def gaps_in_labels(labels: Mapping[str, int]) -> list[str]:
    """Likewise: each provisional negative emitted is open, retracted, confirmed or dropped by a bound.

    >>> gaps_in_labels({"negatives_emitted": 2, "negatives_open": 1, "negatives_confirmed": 1})
    []
    """
    right = ("negatives_open", "negatives_retracted", "negatives_confirmed", "negatives_dropped")
    gap = _gap(labels, "negatives_emitted", right)
    return [f"labels: {gap}"] if gap else []


def _gap(terms: Mapping[str, int], left: str, right: Iterable[str]) -> str | None:
    total = sum(terms.get(term, 0) for term in right)
    if terms.get(left, 0) == total:
        return None
    return f"{left} {terms.get(left, 0):,}, but {' + '.join(right)} is {total:,}"


# ---- what was learnt


def prequential_of(state: StateDirectory) -> Prequential:
    """Scores of the conversion model beside its baselines, in total and by week."""
    scores = state.feedback.prequential
    totals = [
        Total(
            name=name,
            trials=int(scores.total[k, TRIALS]),
            positives=int(scores.total[k, POSITIVES]),
            log_loss=number(scores.log_loss(k)),
            auc=number(scores.auc(k)),
            pr_auc=number(scores.pr_auc(k)),
            ratio=number(scores.calibration_ratio(k)),
            error=number(scores.ece(k)),
        )
        for k, name in PREDICTORS.items()
        if scores.total[k, TRIALS]
    ]
    numbers, sums = scores.by_week()
    weeks = [
        Week(
            ts=int(week) * WEEK,
            name=name,
            trials=int(row[k, TRIALS]),
            positives=int(row[k, POSITIVES]),
            log_loss=float(row[k, LOG_LOSS] / SCALE / row[k, TRIALS]),
            ratio=number(row[k, PROBABILITY] / SCALE / row[k, POSITIVES]) if row[k, POSITIVES] else None,
        )
        for week, row in zip(numbers, sums, strict=True)
        for k, name in PREDICTORS.items()
        if row[k, TRIALS]
    ]
    intervals = [_interval(state, second) for second in (BASE_RATE, ITEM_RATE)] if totals else []
    return Prequential(total=totals, weeks=weeks, intervals=intervals)


def _interval(state: StateDirectory, second: int) -> PairedInterval:
    found = state.feedback.prequential.paired(MODEL, second)
    return PairedInterval(
        name=f"model minus {PREDICTORS[second]}",
        difference=number(found.difference),
        low=number(found.low),
        high=number(found.high),
        weeks=found.weeks,
    )


def graph_of(state: StateDirectory, versions: Sequence[Manifest]) -> Graph:
    """The co-purchase graph now, and the versions of its embeddings."""
    graph = state.copurchase.graph
    return Graph(items=len(graph.hashes()), edges=len(graph.pairs), versions=versions_from(versions))


def calibration_of(state: StateDirectory) -> Calibration:
    """Reliability by level, log-loss by epoch and thresholds, of the epochs whose labels are all known."""
    stage = state.calibration
    scores = stage.scores()
    total = stage.summary()
    epochs = [
        EpochScores(
            ts=score.epoch * stage.epoch_length,
            trials=score.trials,
            positives=score.positives,
            levels=score.levels,
            raw=score.raw.log_loss,
            calibrated=score.calibrated.log_loss,
        )
        for score in scores
    ]
    levels, thresholds = thresholds_of(stage)
    return Calibration(
        readings=len(stage.shelf.epochs()),
        levels=levels,
        points=points_of(stage, [score.epoch for score in scores]),
        epochs=epochs,
        thresholds=thresholds,
        total={
            "raw": number(total["raw"].get("log_loss", math.nan)),
            "calibrated": number(total["calibrated"].get("log_loss", math.nan)),
            "difference": number(total["log_loss_difference"]),
            "low": number(total["low"]),
            "high": number(total["high"]),
            "weeks": float(len({score.epoch // 7 for score in scores})),
            "epochs": float(total["epochs"]),
            "epochs_with_levels": float(total["epochs_with_levels"]),
            "trials": float(total["trials"]),
            "raw_error": number(total["raw"].get("error", math.nan)),
            "calibrated_error": number(total["calibrated"].get("error", math.nan)),
        },
    )


# ---- what is kept


def stages_of(state: StateDirectory) -> list[dict[str, Any]]:
    """Where each stage stands: clock, position, rows held, counters."""
    return [
        {
            "stage": stage.name,
            "shard": stage.shard,
            "clock": stage.clock,
            "position": stage.position,
            "held": stage.merge.held,
            "counters": dict(sorted(stage.store.counters.items())),
        }
        for stage in reversed(list(state.stages()))
    ]


def sizes_of(state: StateDirectory) -> list[Table]:
    """Bytes of each table, the largest of a stage first."""
    return [
        Table(stage=stage, table=name, bytes=count)
        for stage, tables in state.sizes().items()
        for name, count in sorted(tables.items(), key=lambda entry: -entry[1])
    ]


BOUNDS = frozenset(
    (*PAIR_BOUNDS, *GRID_BOUNDS, "pairs pruned", "names: table full", "items_dropped", "negatives_dropped")
)
"""Counters of what the bounds of tables dropped."""


def dropped_of(state: StateDirectory) -> dict[str, int]:
    """What the bounds of tables dropped, by stage and counter; nothing where nothing was dropped."""
    found: dict[str, int] = {}
    for stage in state.stages():
        for name, count in stage.store.counters.items():
            if count and name in BOUNDS:
                found[f"{stage.name}: {name}"] = found.get(f"{stage.name}: {name}", 0) + count
    for shard in state.attribution:
        capped = sum(terms.get("history_capped", 0) for terms in shard.books().values())
        if capped:
            found["attribution: history_capped"] = found.get("attribution: history_capped", 0) + capped
    return found


def audit_of(state: StateDirectory) -> list[Audit]:
    """Digest of each stage and the end of its audit trail."""
    trails = state.trails()
    return [
        Audit(
            stage=stage,
            digest=f"{value:032x}",
            entries=len(trails[stage]),
            last=[(ts, f"{each:032x}") for ts, each in list(trails[stage].items())[-TRAIL_SHOWN:]],
        )
        for stage, value in state.digests().items()
    ]
