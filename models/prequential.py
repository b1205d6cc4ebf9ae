"""Prequential scores: each prediction is scored once, when its label has matured, into plain integers.

"Predict, wait until the label is known, then score" (Dawid, 1984) gives an honest picture of a learner that never
stops learning. All sums are int64 in fixed point (2**-24), so that they can be persisted, added, digested and taken
back exactly: log-loss, Brier score and sum of p per week and predictor, and for each predictor a histogram of scores
from which AUC, PR-AUC and calibration error are read. With p clipped to [1e-9, 1 - 1e-9] a row adds at most 20.8 *
2**24, so int64 holds 2.6e10 rows.

The feedback stage owns the arrays (`Prequential.shapes`), its kernel calls `observe`; everything else only reads.

References: Kumar, Liang, Ma, *Verified uncertainty calibration* (NeurIPS 2019), for the debiased calibration error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thalweg.graph_store.kernel import kernel, lean_kernel

from .calibration.beta import student_quantile

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

SCALE = 16_777_216.0
"""Fixed point of log-loss, Brier score and sum of p: 2**24 is 1."""
WEEK = 604_800_000
"""Milliseconds of a week."""
MODEL, BASE_RATE, ITEM_RATE = 0, 1, 2
"""Predictors: the model, the base rate so far, the item's own rate so far."""
PREDICTORS = 3
TRIALS, POSITIVES, LOG_LOSS, BRIER, PROBABILITY = 0, 1, 2, 3, 4
"""Columns of the sums."""
FIELDS = 5
BINS = 1024
LOGIT_LIMIT = 12.0
"""The histogram spans logits in [-12, 12); what lies outside counts in the outer bins."""
_TAG = 1 << 40  # week w is tagged w + 2**40, so that an array of zeros means "no week yet"


@lean_kernel
def _add(cell, sign, label, loss, brier, fixed):  # type: ignore[no-untyped-def]
    cell[0] += sign
    cell[1] += sign * label
    cell[2] += sign * loss
    cell[3] += sign * brier
    cell[4] += sign * fixed


@lean_kernel
def observe(weeks, sums, total, histogram, dropped, week, predictor, probability, label, sign):  # type: ignore[no-untyped-def]
    """Score one matured prediction (`sign` 1), or take one back exactly (`sign` -1, same arguments).

    `week` is the impression's `ts // WEEK`; `label` 0 or 1. A row of a week older than the ring keeps is counted in
    `dropped` and in `total`. The result does not depend on the order of the rows.
    """
    p = min(max(probability, 1e-9), 1.0 - 1e-9)
    logit = math.log(p / (1.0 - p))
    loss = np.int64(math.floor((-math.log(p) if label == 1 else -math.log(1.0 - p)) * SCALE + 0.5))
    brier = np.int64(math.floor((p - label) * (p - label) * SCALE + 0.5))
    fixed = np.int64(math.floor(p * SCALE + 0.5))
    place = np.int64(math.floor((logit + LOGIT_LIMIT) * (BINS / (2.0 * LOGIT_LIMIT))))
    if place < 0:
        place = np.int64(0)
    elif place >= BINS:
        place = np.int64(BINS - 1)
    histogram[predictor, 1 if label == 1 else 0, place] += sign
    histogram[predictor, 2, place] += sign * fixed
    _add(total[predictor], sign, label, loss, brier, fixed)
    slot = week % weeks.shape[0]
    tag = week + _TAG
    if weeks[slot] < tag:
        for j in range(sums.shape[1]):
            dropped[0] += sums[slot, j, 0]
            for k in range(FIELDS):
                sums[slot, j, k] = 0
        weeks[slot] = tag
    if weeks[slot] == tag:
        _add(sums[slot, predictor], sign, label, loss, brier, fixed)
    else:
        dropped[0] += sign


@kernel
def observe_many(weeks, sums, total, histogram, dropped, ts, predictor, probability, label):  # type: ignore[no-untyped-def]
    """`observe` for each row in order: `ts` int64[n] ms of impressions, `probability` float64[n], `label` int[n]."""
    for i in range(ts.shape[0]):
        observe(weeks, sums, total, histogram, dropped, ts[i] // WEEK, predictor, probability[i], np.int64(label[i]), 1)


@dataclass(frozen=True)
class Interval:
    """A paired difference of mean log-loss, and its confidence interval (`low`, `high`), over `weeks` weeks."""

    difference: float
    low: float
    high: float
    weeks: int


class Prequential:
    """The arrays behind the scores, and what can be read from them.

    Parameters
    ----------
    weeks : int64[W], tags of the ring's weeks
    sums : int64[W, P, FIELDS], per week and predictor: n, positives, log-loss, Brier, sum of p (fixed point)
    total : int64[P, FIELDS], the same over all time
    histogram : int64[P, 3, BINS], negatives, positives and sum of p (fixed point) by logit
    dropped : int64[1], rows of weeks that the ring no longer keeps

    >>> p = Prequential.empty()
    >>> observe_many(*p.arrays(), np.zeros(4, np.int64), MODEL, np.array([0.9, 0.8, 0.3, 0.1]), np.array([1, 1, 0, 0]))
    >>> p.auc(), round(p.log_loss(), 4), round(p.calibration_ratio(), 4)
    (1.0, 0.1976, 1.05)
    """

    def __init__(self, weeks: I64, sums: I64, total: I64, histogram: I64, dropped: I64) -> None:
        self.weeks, self.sums, self.total, self.histogram, self.dropped = weeks, sums, total, histogram, dropped

    @staticmethod
    def shapes(weeks: int = 520, predictors: int = PREDICTORS) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the int64 arrays, in the constructor's and `observe`'s order; all start at zero.

        >>> list(Prequential.shapes())
        ['weeks', 'sums', 'total', 'histogram', 'dropped']
        """
        return {
            "weeks": (weeks,),
            "sums": (weeks, predictors, FIELDS),
            "total": (predictors, FIELDS),
            "histogram": (predictors, 3, BINS),
            "dropped": (1,),
        }

    @classmethod
    def empty(cls, weeks: int = 520, predictors: int = PREDICTORS) -> Prequential:
        """Arrays of its own, all zero.

        >>> Prequential.empty(weeks=4).sums.shape
        (4, 3, 5)
        """
        return cls(*(np.zeros(shape, np.int64) for shape in cls.shapes(weeks, predictors).values()))

    def arrays(self) -> tuple[I64, I64, I64, I64, I64]:
        """The first five arguments of `observe`.

        >>> len(Prequential.empty().arrays())
        5
        """
        return self.weeks, self.sums, self.total, self.histogram, self.dropped

    def log_loss(self, predictor: int = MODEL) -> float:
        """Mean log-loss in nats over all time; NaN before the first row.

        >>> math.isnan(Prequential.empty().log_loss())
        True
        """
        return _mean(self.total[predictor], LOG_LOSS)

    def brier(self, predictor: int = MODEL) -> float:
        """Mean squared error of the probability over all time; NaN before the first row.

        >>> math.isnan(Prequential.empty().brier())
        True
        """
        return _mean(self.total[predictor], BRIER)

    def base_rate(self) -> float:
        """Share of positives among the rows scored; NaN before the first.

        >>> math.isnan(Prequential.empty().base_rate())
        True
        """
        n, positives = self.total[MODEL, TRIALS], self.total[MODEL, POSITIVES]
        return float(positives / n) if n else math.nan

    def calibration_ratio(self, predictor: int = MODEL) -> float:
        """Sum of predicted probabilities over the number of positives: 1 is calibrated in the large; NaN without one.

        >>> math.isnan(Prequential.empty().calibration_ratio())
        True
        """
        row = self.total[predictor]
        return float(row[PROBABILITY] / SCALE / row[POSITIVES]) if row[POSITIVES] else math.nan

    def auc(self, predictor: int = MODEL) -> float:
        """Area under the ROC curve, ties within a bin (0.023 in logit) counted half; NaN without both classes.

        >>> math.isnan(Prequential.empty().auc())
        True
        """
        return roc_area(self.histogram[predictor, 0], self.histogram[predictor, 1])

    def pr_auc(self, predictor: int = MODEL) -> float:
        """Average precision (step-wise area under precision and recall) at the bins' edges; NaN without a positive.

        >>> math.isnan(Prequential.empty().pr_auc())
        True
        """
        return average_precision(self.histogram[predictor, 0], self.histogram[predictor, 1])

    def ece(self, predictor: int = MODEL, groups: int = 20) -> float:
        """Debiased calibration error over `groups` groups of equal mass, see `calibration_error`.

        >>> math.isnan(Prequential.empty().ece())
        True
        """
        negatives, positives, fixed = self.histogram[predictor].astype(np.float64)
        return calibration_error(negatives + positives, positives, fixed / SCALE, groups)

    def by_week(self) -> tuple[I64, I64]:
        """The weeks kept, oldest first: (week numbers int64[w], sums int64[w, P, FIELDS]).

        >>> p = Prequential.empty()
        >>> observe_many(*p.arrays(), np.array([WEEK * 2, 5]), MODEL, np.array([0.5, 0.5]), np.array([1, 0]))
        >>> p.by_week()[0].tolist()
        [0, 2]
        """
        kept = np.flatnonzero(self.weeks)
        kept = kept[np.argsort(self.weeks[kept], kind="stable")]
        return self.weeks[kept] - _TAG, self.sums[kept]

    def paired(self, first: int = MODEL, second: int = ITEM_RATE, confidence: float = 0.95) -> Interval:
        """Mean log-loss of `first` minus that of `second`, with an interval paired over weeks.

        A week is one draw (rows of one week share its weather): the difference is the ratio of the weeks' summed
        differences to their rows, its variance that of a ratio over clusters, the quantile Student's with weeks - 1
        degrees of freedom. NaN bounds below two weeks. Below 0 on both sides: `first` is better.

        >>> p = Prequential.empty()
        >>> for week in range(3):
        ...     ts, label = np.full(2 + week, week * WEEK), np.zeros(2 + week, int)
        ...     for k, q in ((MODEL, 0.2), (ITEM_RATE, 0.5)):
        ...         observe_many(*p.arrays(), ts, k, np.full(len(ts), q), label)
        >>> p.paired().high < 0, p.paired().weeks
        (True, 3)
        """
        _, sums = self.by_week()
        rows = sums[:, first, TRIALS].astype(np.float64)
        used = rows > 0
        gap = (sums[used, first, LOG_LOSS] - sums[used, second, LOG_LOSS]) / SCALE
        return paired_interval(gap, rows[used], confidence)


def paired_interval(gaps: F64, rows: F64, confidence: float = 0.95) -> Interval:
    """Ratio estimate sum(gaps) / sum(rows) over paired clusters, with Student's interval.

    `gaps` float64[w] is a cluster's summed difference, `rows` float64[w] its number of rows.

    >>> i = paired_interval(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 1.0]))
    >>> i.difference, round(i.low, 3), round(i.high, 3)
    (2.0, -0.484, 4.484)
    """
    weeks = len(rows)
    total = float(rows.sum())
    if not total:
        return Interval(math.nan, math.nan, math.nan, weeks)
    ratio = float(gaps.sum()) / total
    if weeks < 2:
        return Interval(ratio, math.nan, math.nan, weeks)
    residual = gaps - ratio * rows
    error = math.sqrt(weeks / (weeks - 1) * float((residual * residual).sum())) / total
    reach = student_quantile(0.5 + confidence / 2, weeks - 1) * error
    return Interval(ratio, ratio - reach, ratio + reach, weeks)


def roc_area(negatives: npt.NDArray[np.generic], positives: npt.NDArray[np.generic]) -> float:
    """AUC from counts by ascending score bin; ties count half; NaN unless both classes occur.

    >>> roc_area(np.array([2, 1]), np.array([0, 3])), roc_area(np.array([1]), np.array([1]))
    (0.8333333333333334, 0.5)
    """
    neg, pos = negatives.astype(np.float64), positives.astype(np.float64)
    if not neg.sum() or not pos.sum():
        return math.nan
    below = np.cumsum(neg) - 0.5 * neg
    return float((pos * below).sum() / (neg.sum() * pos.sum()))


def average_precision(negatives: npt.NDArray[np.generic], positives: npt.NDArray[np.generic]) -> float:
    """Average precision from counts by ascending score bin, each bin one tie group; NaN without a positive.

    >>> average_precision(np.array([2, 1]), np.array([0, 3]))
    0.75
    """
    neg, pos = negatives.astype(np.float64)[::-1], positives.astype(np.float64)[::-1]
    if not pos.sum():
        return math.nan
    selected = np.cumsum(neg + pos)
    precision = np.divide(np.cumsum(pos), selected, out=np.zeros(len(pos)), where=selected > 0)
    return float((precision * pos).sum() / pos.sum())


def calibration_error(trials: F64, positives: F64, probability: F64, groups: int = 20) -> float:
    """Debiased root-mean-square calibration error over about `groups` groups of equal mass.

    The arrays (float64[b]) hold counts and summed p by ascending score bin; neighbouring bins are merged. A group's
    squared gap between mean label and mean p is reduced by the sampling variance of the mean label (Kumar, Liang,
    Ma, 2019), so a calibrated predictor reads about 0 at any size. In probability; NaN without rows.

    >>> n, k = np.array([1000.0, 1000.0]), np.array([100.0, 300.0])
    >>> round(calibration_error(n, k, np.array([200.0, 400.0])), 3), calibration_error(n, k, k)
    (0.099, 0.0)
    """
    total = float(trials.sum())
    if not total:
        return math.nan
    group = np.minimum(((np.cumsum(trials) - 0.5 * trials) * (groups / total)).astype(np.int64), groups - 1)
    n = np.bincount(group, trials, groups)
    kept = n > 1
    rate = np.bincount(group, positives, groups)[kept] / n[kept]
    mean = np.bincount(group, probability, groups)[kept] / n[kept]
    squared = (rate - mean) ** 2 - rate * (1.0 - rate) / (n[kept] - 1.0)
    return math.sqrt(max(0.0, float((squared * n[kept]).sum()) / total))


def _mean(row: I64, column: int) -> float:
    return float(row[column] / SCALE / row[TRIALS]) if row[TRIALS] else math.nan
