"""Does calibration by uncertainty level pay? Funnels with negatives thinned ten to one, paired by seed.

    python benchmarks/calibration.py [--events N] [--seeds K] [--thin T] [--precision P]

Two kinds of thinning, both reported:

* `learner`: the model learns from one negative in T (negative sampling, the common way to train on a stream), the
  calibration table sees every impression. The raw score is then too high, most so where the model is sure: the bias
  that depends on uncertainty.
* `log`: T - 1 of T negatives are missing from the log itself, so model and table see the same world. A well-specified
  model is calibrated there already; what is asked of the readings is that they do no harm.

Arms, all on the same integers: the raw score; the readings as the stage froze them (`served`); readings made once
more with several levels, with one, and with several on shuffled uncertainties: among all trials (the control: any
gain there is luck), and within each epoch (what is left then is that the model grows surer with time). Beside
log-loss: realised precision and recall at the cut for maximal F1, and at the cut for an asked precision. Prints one
JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thalweg.graph_store.hash import mix64
from thalweg.graph_store.state_store import StateStore
from thalweg.models.calibration.evaluation import summary
from thalweg.models.calibration.grid import Grid
from thalweg.models.calibration.reading import Rules, make_reading
from thalweg.models.calibration.shelf import Shelf
from thalweg.models.prequential import paired_interval
from thalweg.streams.attribution import AttributionStage
from thalweg.streams.block import NO_CLOCK, Block
from thalweg.streams.calibration import CalibrationStage
from thalweg.streams.configuration import Configuration, load
from thalweg.streams.feedback import FeedbackStage
from thalweg.streams.funnel import simulate
from thalweg.streams.log import open_log
from thalweg.streams.reader import Reader
from thalweg.streams.row import OUTCOME_ROW, Op

BLOCK = 2_000
"""Rows a block: in the `learner` kind a block's impressions are scored with the model as it is before the block."""


def label_blocks(log: Path, configuration: Configuration) -> list[Block]:
    """What attribution says of a log, block by block."""
    stage = AttributionStage(configuration, StateStore.memory(), 1)
    files = open_log([log], configuration).files
    reader = Reader([(0, files[0])], configuration, marks={}, tops={}, position=0, clock=NO_CLOCK)
    return [stage.process(piece.block, piece.end)["labels"] for piece in reader.pieces(BLOCK, set(), True)]


def replay_log(blocks: list[Block], configuration: Configuration) -> CalibrationStage:
    """Feedback and calibration over the labels, as the replay drives them."""
    feedback, calibration = (kind(configuration, StateStore.memory(), 1) for kind in (FeedbackStage, CalibrationStage))
    for end, block in enumerate(blocks, 1):
        outcomes = feedback.process(replace(block, ranges={0: (end - 1, end)}), end)["outcomes"]
        calibration.process(outcomes, end)
    return calibration


def replay_sampled(blocks: list[Block], configuration: Configuration, thin: float) -> CalibrationStage:
    """The same, but feedback learns from one in `thin` of the labels that never convert; calibration sees all."""
    feedback, calibration = (kind(configuration, StateStore.memory(), 1) for kind in (FeedbackStage, CalibrationStage))
    converted = np.unique(np.concatenate([b.rows["impression"][b.rows["op"] == Op.CONVERSION] for b in blocks]))
    outcomes = Outcomes(int(configuration.calibration.epoch))
    for end, block in enumerate(blocks, 1):
        rows = block.rows
        made = outcomes.of(block, feedback)
        calibration.process(
            replace(block, rows=made, features=np.zeros((len(made), 0), np.uint32), ranges={0: (end - 1, end)}), end
        )
        share = np.array([int(mix64(key)) for key in rows["impression"]], np.float64) / 2.0**64
        kept = (rows["op"] == Op.ITEM) | np.isin(rows["impression"], converted) | (share < 1.0 / thin)
        feedback.process(
            replace(block, rows=rows[kept], features=block.features[kept], ranges={0: (end - 1, end)}), end
        )
    return calibration


class Outcomes:
    """Rows of thalweg.outcomes for every impression, scored by a feedback stage that learns from a sample."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.cells: dict[int, tuple[int, int]] = {}
        self.positive: set[int] = set()

    def of(self, block: Block, feedback: FeedbackStage) -> npt.NDArray[Any]:
        """Outcome rows of one block of labels."""
        rows = block.rows
        shown = np.flatnonzero(rows["op"] == Op.IMPRESSION)
        scores = feedback.score(rows["user"][shown], rows["item"][shown], block.features[shown])
        place = dict(zip(shown.tolist(), scores.cell.tolist(), strict=True))
        out: list[tuple[int, ...]] = []
        for i in np.flatnonzero(np.isin(rows["op"], (Op.IMPRESSION, Op.CONVERSION, Op.REVERSAL))).tolist():
            key, op, ts = int(rows["impression"][i]), int(rows["op"][i]), int(rows["ts"][i])
            if op == Op.IMPRESSION:
                self.cells[key] = int(rows["impression_ts"][i]) // self.epoch, place[i]
            change = int(op == Op.CONVERSION and key not in self.positive) - int(
                op == Op.REVERSAL and key in self.positive
            )
            (self.positive.add if change > 0 else self.positive.discard)(key) if change else None
            epoch, cell = self.cells[key]
            out.append((ts, 0, key, len(out), 0, epoch, cell, int(op == Op.IMPRESSION), change))
        return np.array(out, OUTCOME_ROW)


def shuffled(grid: Grid, seed: int, within_epochs: bool) -> Grid:
    """The grid with the uncertainties of its trials shuffled: among all, or among those of an epoch."""
    rng, out, width = np.random.default_rng(seed), Grid.empty(grid.shape), grid.shape.uncertainty_bins
    entries = grid.entries()
    entries = entries[np.argsort(entries["epoch"], kind="stable")]
    hits = np.clip(entries["positives"], 0, entries["trials"])
    which = np.repeat(np.arange(len(entries)), entries["trials"])
    first = np.cumsum(entries["trials"]) - entries["trials"]
    labels = (np.arange(len(which)) - first[which] < hits[which]).astype(np.int64)
    epochs, cells = entries["epoch"][which], entries["cell"][which]
    draw = rng.random(len(which))
    order = np.lexsort((draw, epochs)) if within_epochs else np.argsort(draw)
    moved = cells // width * width + (cells % width)[order]
    out.add(epochs, moved, np.ones(len(moved), np.int64), labels)
    return out


def arm(stage: CalibrationStage, grid: Grid, rules: Rules) -> dict[str, Any]:
    """Readings made anew from `grid` under `rules`, for the epochs that the stage read."""
    shelf = Shelf.empty(grid.shape, rules.levels)
    for epoch in stage.shelf.epochs():
        shelf.put(make_reading(grid, epoch, rules))
    return line(summary(grid, shelf, stage.last_mature()))


def line(total: dict[str, Any]) -> dict[str, Any]:
    """The figures of a summary that the report needs; a precision of nothing selected is null."""
    return {
        "log_loss": round(total["calibrated"]["log_loss"], 6),
        "error": round(total["calibrated"]["error"], 5),
        "minus_raw": round(total["log_loss_difference"], 6),
        "epochs_with_levels": total["epochs_with_levels"],
        "precision": round(total["precision"], 4) if total["selected"] else None,
        "recall": round(total["recall"], 4),
    }


def measure(stage: CalibrationStage, seed: int, precision: float) -> dict[str, Any]:
    """All arms on one stage's integers."""
    served, rules, random = stage.summary(), stage.rules, shuffled(stage.grid, seed, within_epochs=False)
    one, asked = replace(rules, levels=1), replace(rules, precision=precision)
    return {
        "seed": seed,
        "epochs": served["epochs"],
        "trials": served["trials"],
        "positives": served["positives"],
        "raw": {name: round(served["raw"][name], 6) for name in ("log_loss", "error", "ratio")},
        "served": line(served),
        "levels": arm(stage, stage.grid, rules),
        "one_level": arm(stage, stage.grid, one),
        "random_uncertainty": arm(stage, random, rules),
        "random_within_epochs": arm(stage, shuffled(stage.grid, seed, within_epochs=True), rules),
        "asked": {
            "precision": precision,
            "levels": arm(stage, stage.grid, asked),
            "one_level": arm(stage, stage.grid, replace(one, precision=precision)),
            "random_uncertainty": arm(stage, random, asked),
        },
    }


def paired(rows: list[dict[str, Any]], first: str, second: str | None) -> dict[str, float]:
    """Mean log-loss of arm `first` minus `second` (none: the raw score) over seeds, with its 95 % interval."""
    gaps = np.array([row[first]["log_loss"] - row[second or "raw"]["log_loss"] for row in rows])
    interval = paired_interval(gaps, np.ones(len(gaps)))
    figures = {"mean": interval.difference, "low": interval.low, "high": interval.high}
    return {name: round(value, 6) for name, value in figures.items() if value == value}  # one seed has no interval


def run(kind: str, events: int, seeds: int, thin: float, precision: float, folder: Path) -> dict[str, Any]:
    """One kind of thinning over all seeds."""
    rows = []
    for seed in range(1, seeds + 1):
        begin = time.monotonic()
        dials = {"thin": thin} if kind == "log" else {}
        made = simulate(folder / f"{kind}-{seed}.parquet", events, seed, **dials)
        configuration = load(made.configuration)
        blocks = label_blocks(made.out, configuration)
        stage = replay_log(blocks, configuration) if kind == "log" else replay_sampled(blocks, configuration, thin)
        rows.append(measure(stage, seed, precision if kind == "learner" else min(0.9, precision * 6)))
        print(f"{kind} seed {seed}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
    return {
        "seeds": rows,
        "served_minus_raw": paired(rows, "served", None),
        "levels_minus_one_level": paired(rows, "levels", "one_level"),
        "random_minus_one_level": paired(rows, "random_uncertainty", "one_level"),
    }


def main() -> None:
    """Run the benchmark and print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--thin", type=float, default=10.0)
    parser.add_argument("--precision", type=float, default=0.06)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kinds = {
            kind: run(kind, options.events, options.seeds, options.thin, options.precision, Path(folder))
            for kind in ("learner", "log")
        }
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    print(json.dumps({"benchmark": "calibration", **vars(options), **kinds, **machine}))


if __name__ == "__main__":
    main()
