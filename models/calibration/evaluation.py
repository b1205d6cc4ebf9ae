"""What a reading was worth: an epoch's integers scored against the reading that was frozen before it.

Log-loss, Brier score and calibration error follow exactly from (trials, positives) by cell and the rate that the
reading gives each cell; no state per impression is needed. The raw score stands for itself by the middle of its bin.
Only matured epochs are scored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from thalweg.models.prequential import calibration_error, paired_interval

from .grid import Grid
from .reading import Reading, log_loss_sum
from .shelf import Shelf

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """Quality of probabilities over some trials.

    Attributes
    ----------
    log_loss, brier : means a trial
    ratio : sum of probabilities over positives
    error : debiased calibration error, 15 groups of equal mass (`prequential.calibration_error`)
    """

    log_loss: float
    brier: float
    ratio: float
    error: float


@dataclass(frozen=True)
class EpochScore:
    """One matured epoch beside its reading: raw and calibrated, and the cut as it turned out.

    Attributes
    ----------
    precision, recall : realised at the reading's thresholds; `selected` trials were at or above them
    """

    epoch: int
    trials: int
    positives: int
    levels: int
    fitted: bool
    raw: Score
    calibrated: Score
    selected: int
    precision: float
    recall: float


def score(rate: F64, trials: F64, positives: F64) -> Score:
    """Score of `rate` on cells with counts `trials` and `positives`, all of one shape.

    >>> s = score(np.array([0.25, 0.75]), np.array([4.0, 4.0]), np.array([1.0, 3.0]))
    >>> round(s.log_loss, 4), s.brier, s.ratio, s.error
    (0.5623, 0.1875, 1.0, 0.0)
    """
    total, found = float(trials.sum()), float(positives.sum())
    if not total:
        return Score(math.nan, math.nan, math.nan, math.nan)
    rate, trials, positives = rate.ravel(), trials.ravel(), positives.ravel()
    brier = float((positives * (1.0 - rate) ** 2 + (trials - positives) * rate**2).sum()) / total
    expected = trials * rate
    order = np.argsort(rate, kind="stable")
    error = calibration_error(trials[order], positives[order], expected[order], 15)
    ratio = float(expected.sum()) / found if found else math.nan
    return Score(log_loss_sum(rate, trials, positives) / total, brier, ratio, error)


def rates_of(grid: Grid, reading: Reading) -> tuple[F64, F64, npt.NDArray[np.bool_]]:
    """(raw, calibrated, selected) for each cell, [score_bins, uncertainty_bins].

    >>> from .grid import Shape
    >>> from .reading import Rules, make_reading
    >>> grid = Grid.empty(Shape(2, 3, -2.0, 2.0))
    >>> raw, calibrated, selected = rates_of(grid, make_reading(grid, 9, Rules()))
    >>> raw.round(3)[:, 0].tolist(), calibrated.round(3)[:, 2].tolist(), bool(selected.all())
    ([0.269, 0.731], [0.269, 0.731], True)
    """
    shape = (grid.shape.score_bins, grid.shape.uncertainty_bins)
    raw = 1.0 / (1.0 + np.exp(-grid.shape.midpoints()))
    calibrated = np.clip(reading.rate.astype(np.float64), 1e-9, 1.0 - 1e-9)[reading.level_of].T
    selected = np.arange(shape[0])[:, None] >= reading.thresholds[reading.level_of][None, :]
    return np.broadcast_to(raw[:, None], shape), calibrated, selected


def score_epoch(grid: Grid, reading: Reading) -> EpochScore | None:
    """The reading's own epoch, scored from what the grid says now; None where the grid holds nothing of it.

    >>> from .grid import Shape
    >>> from .reading import Rules, make_reading
    >>> grid = Grid.empty(Shape(2, 3, -2.0, 2.0))
    >>> grid.add(np.array([9, 9]), np.array([0, 3]), np.array([1, 1]), np.array([0, 1]))
    >>> epoch = score_epoch(grid, make_reading(grid, 9, Rules()))
    >>> epoch.trials, epoch.positives, round(epoch.calibrated.log_loss, 3)
    (2, 1, 0.313)
    """
    counts = grid.cells_of(reading.epoch)
    if counts is None or not counts[0].sum():
        return None
    trials, positives = counts
    raw, calibrated, selected = rates_of(grid, reading)
    chosen, hits, found = float(trials[selected].sum()), float(positives[selected].sum()), float(positives.sum())
    return EpochScore(
        reading.epoch, int(trials.sum()), int(found), reading.levels, reading.fitted,
        score(raw, trials, positives), score(calibrated, trials, positives),
        int(chosen), hits / chosen if chosen else math.nan, hits / found if found else math.nan,
    )  # fmt: skip


def matured(grid: Grid, shelf: Shelf, last: int) -> list[EpochScore]:
    """Scores of the epochs up to `last` that have a reading made from at least one matured trial, oldest first.

    >>> from .grid import Shape
    >>> matured(Grid.empty(Shape(8, 4)), Shelf.empty(Shape(8, 4), 1), 5)
    []
    """
    readings = [reading for reading in shelf if reading.epoch <= last and reading.trials]
    scores = (score_epoch(grid, reading) for reading in readings)
    return [epoch for epoch in scores if epoch is not None]


def pooled(grid: Grid, shelf: Shelf, epochs: Iterable[int]) -> tuple[F64, F64, F64, F64]:
    """Every cell that holds trials in `epochs`, beside what their readings say: (raw, calibrated, trials, positives).

    float64[n] each, epoch after epoch.

    >>> from .grid import Shape
    >>> [len(column) for column in pooled(Grid.empty(Shape(8, 4)), Shelf.empty(Shape(8, 4), 1), [3])]
    [0, 0, 0, 0]
    """
    parts: list[npt.NDArray[np.float64]] = [np.zeros((4, 0))]
    for epoch in epochs:
        reading, counts = shelf.get(epoch), grid.cells_of(epoch)
        if reading is not None and counts is not None:
            raw, calibrated, _ = rates_of(grid, reading)
            used = counts[0] != 0
            parts.append(np.stack([raw[used], calibrated[used], counts[0][used], counts[1][used]]))
    raw, calibrated, trials, positives = np.concatenate(parts, axis=1)
    return raw, calibrated, trials, positives


def summary(grid: Grid, shelf: Shelf, last: int, epochs_a_block: int = 7) -> dict[str, Any]:
    """Totals over the matured epochs, and the difference of log-loss, calibrated minus raw, paired by blocks of a week.

    `log_loss_difference` has its 95 % interval in `low`, `high`: all below 0 means that calibration helps.

    >>> from .grid import Shape
    >>> summary(Grid.empty(Shape(8, 4)), Shelf.empty(Shape(8, 4), 1), 9)["epochs"]
    0
    """
    rows = matured(grid, shelf, last)
    trials = np.array([row.trials for row in rows], np.float64)
    gaps = trials * np.array([row.calibrated.log_loss - row.raw.log_loss for row in rows], np.float64)
    _, block = np.unique([row.epoch // epochs_a_block for row in rows], return_inverse=True)
    weeks = int(block.max()) + 1 if len(rows) else 0
    paired = paired_interval(
        np.bincount(block, gaps, weeks).astype(np.float64), np.bincount(block, trials, weeks).astype(np.float64)
    )
    raw, calibrated, cells, hits = pooled(grid, shelf, [row.epoch for row in rows])
    positives, selected = sum(row.positives for row in rows), sum(row.selected for row in rows)
    found = sum(row.precision * row.selected for row in rows if row.selected)
    return {
        "epochs": len(rows),
        "trials": int(trials.sum()),
        "positives": positives,
        "epochs_fitted": sum(row.fitted for row in rows),
        "epochs_with_levels": sum(row.levels > 1 for row in rows),
        "raw": asdict(score(raw, cells, hits)),
        "calibrated": asdict(score(calibrated, cells, hits)),
        "log_loss_difference": paired.difference,
        "low": paired.low,
        "high": paired.high,
        "selected": selected,
        "precision": found / selected if selected else math.nan,
        "recall": found / positives if positives else math.nan,
    }
