"""One cut on the calibrated rate, which is one threshold per uncertainty level.

Given rates that rise with the score inside each level, selecting every cell whose rate reaches the cut is the best
boundary in (score, uncertainty) up to one tie group: it is the greedy solution of a fractional knapsack. Cells of
equal rate enter together and true counts are used throughout, so tied scores (cold items) cannot be cut in half, which
is what breaks equal-weight bins (EW-DPMT of Arora et al., arXiv 2311.11723).

The counts handed in must come from epochs that the rates were not fitted on, or the cut is chosen on luck.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .beta import beta_quantile

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

DOUBT = 0.05
"""One-sided: the precision asked for must lie below the true one with probability 1 - DOUBT."""
CANDIDATES = 64
"""Cuts tried when a precision is asked for, at equal steps of positives selected: a bound costs microseconds."""
MIN_POSITIVES = 20.0
"""No cut is judged on fewer positives."""


@dataclass(frozen=True)
class Cut:
    """A cut on the rate: select where rate >= `rate`.

    `precision` and `recall` are those on the counts it was chosen on. `rate` is 0 where nothing was known (select
    all) and infinity where no cut reaches the precision asked for (select nothing).
    """

    rate: float
    precision: float
    recall: float


def choose_cut(rates: F64, trials: F64, positives: F64, precision: float = 0.0) -> Cut:
    """The cut with maximal F1, or, where `precision` > 0, the lowest whose precision is at least that with confidence.

    `rates`, `trials`, `positives` float64[n]: cells in any order. The confidence bound is the `DOUBT` quantile of
    Beta(positives + 1/2, negatives + 1/2).

    >>> choose_cut(np.array([0.1, 0.9, 0.5]), np.array([10.0, 10.0, 10.0]), np.array([1.0, 9.0, 5.0]))
    Cut(rate=0.5, precision=0.7, recall=0.9333333333333333)
    >>> choose_cut(np.array([0.1, 0.9]), np.array([1000.0, 100.0]), np.array([100.0, 90.0]), 0.8).rate
    0.9
    """
    order = np.argsort(-rates, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(rates[order])), len(rates) - 1)
    selected = np.cumsum(trials[order])[ends]
    hits = np.cumsum(positives[order])[ends]
    total = float(hits[-1])
    if total < 1.0:
        return Cut(0.0, math.nan, math.nan)
    if precision <= 0.0:
        place = int(np.argmax(2.0 * hits / np.maximum(selected + total, 1e-300)))
    else:
        place = _lowest(selected, hits, precision)
    if place < 0:
        return Cut(math.inf, math.nan, 0.0)
    return Cut(float(rates[order][ends[place]]), float(hits[place] / selected[place]), float(hits[place] / total))


def _lowest(selected: F64, hits: F64, precision: float) -> int:
    steps = np.searchsorted(hits, np.linspace(0.0, float(hits[-1]), CANDIDATES + 1)[1:])
    for place in np.unique(np.minimum(steps, len(hits) - 1))[::-1].tolist():
        found, missed = max(float(hits[place]), 0.0), max(float(selected[place] - hits[place]), 0.0)
        if found < MIN_POSITIVES:
            break
        if found / (found + missed) >= precision and beta_quantile(DOUBT, found + 0.5, missed + 0.5) >= precision:
            return int(place)
    return -1


def thresholds(rates: F64, cut: float) -> I64:
    """First score bin of each level whose rate reaches `cut`: int64[levels], `score_bins` where none does.

    `rates` float64[levels, score_bins], rising along the second axis.

    >>> thresholds(np.array([[0.1, 0.2, 0.3], [0.0, 0.1, 0.1]]), 0.2).tolist()
    [1, 3]
    """
    return np.asarray((rates < cut).sum(axis=1), np.int64)
