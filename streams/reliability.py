"""Reliability of matured predictions, by uncertainty level: when the model said 0.8, how often was it true?

Cells of matured epochs are put into the levels of their own epoch's reading, then by raw score into groups that expect
about as many conversions each. So a point says what a user saw: the rate that was given out beside the rate that came.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..models.calibration.beta import credible_interval
from ..models.calibration.evaluation import rates_of
from .calibration import CalibrationStage
from .summary import Level, Point, Threshold

GROUPS = 12
"""Points a level, at most."""
F64 = npt.NDArray[np.float64]


def points_of(stage: CalibrationStage, epochs: Sequence[int]) -> list[Point]:
    """Reliability of `epochs` (numbers of epochs that have a reading), a level after the other."""
    levels = stage.configuration.calibration.levels
    bins = stage.shape.score_bins
    sums = np.zeros((4, levels, bins))  # trials, positives, sum of raw, sum of calibrated
    for epoch in epochs:
        reading, counts = stage.reading_at(epoch), stage.grid.cells_of(epoch)
        if reading is None or counts is None:
            continue
        trials, positives = counts
        raw, calibrated, _ = rates_of(stage.grid, reading)
        for level in range(reading.levels):
            mine = reading.level_of == level
            n, k = trials[:, mine], positives[:, mine]
            sums[0, level] += n.sum(1)
            sums[1, level] += k.sum(1)
            sums[2, level] += (n * raw[:, mine]).sum(1)
            sums[3, level] += (n * calibrated[:, mine]).sum(1)
    return [point for level in range(levels) for point in _points(level, *sums[:, level])]


def _points(level: int, trials: F64, positives: F64, raw: F64, calibrated: F64) -> list[Point]:
    total = raw.sum()
    if not total:
        return []
    group = np.minimum(((np.cumsum(raw) - 0.5 * raw) * (GROUPS / total)).astype(np.int64), GROUPS - 1)
    n, k, r, c = (np.bincount(group, values, GROUPS) for values in (trials, positives, raw, calibrated))
    alpha = np.asarray(k + 0.5, np.float64)
    low, high = credible_interval(alpha, np.asarray(n + 1.0 - alpha, np.float64))
    return [
        Point(
            level=level,
            trials=int(n[i]),
            raw=float(r[i] / n[i]),
            predicted=float(c[i] / n[i]),
            actual=float(k[i] / n[i]),
            low=float(low[i]),
            high=float(high[i]),
        )
        for i in range(GROUPS)
        if n[i]
    ]


def thresholds_of(stage: CalibrationStage) -> tuple[list[Level], list[Threshold]]:
    """Levels of the newest reading, and the thresholds of all readings that were made from something."""
    newest = stage.newest()
    levels = []
    if newest is not None:
        levels = [
            Level(
                level=level,
                bins=int((newest.level_of == level).sum()),
                threshold=_probability(stage, int(newest.thresholds[level])),
            )
            for level in range(newest.levels)
        ]
    thresholds = [
        Threshold(ts=reading.epoch * stage.epoch_length, level=level, threshold=probability)
        for reading in stage.shelf
        if reading.trials
        for level in range(reading.levels)
        if (probability := _probability(stage, int(reading.thresholds[level]))) is not None
    ]
    return levels, thresholds


def _probability(stage: CalibrationStage, score_bin: int) -> float | None:
    """The raw probability at a bin's lower edge; None where the cut is open or shut."""
    edge = stage.shape.edge(score_bin)
    return float(1.0 / (1.0 + np.exp(-edge))) if np.isfinite(edge) else None
