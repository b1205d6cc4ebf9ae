"""A reading: what the grid's integers say at an epoch's start, frozen; it applies to the impressions of that epoch.

The way from integers to rates:

1. Only matured epochs count: those whose last impression's attribution window has closed. Older ones weigh less, by
   half each `half_life`.
2. Uncertainty bins are merged into levels of about equal positives.
3. In each level a shrunk Platt map is the mean of a Beta prior in each score bin; the counts are the residual; pooling
   adjacent violators makes the rate rise with the score; the posterior gives the interval.
4. Epochs are dealt into `FOLDS` folds by number. Rates fitted on the other folds are judged on each: the levels enter
   service only where they beat a single level there, by more than chance over folds and by more than random levels
   do (the control: any levels at all look good on the data they were fitted on).
5. Rates fitted on the older epochs are judged on the newest: where they lose to the raw score there by more than
   chance, fewer levels are tried, then the raw score is given back. While a model still learns fast, yesterday's
   corrections do harm.
6. The cut is chosen on the held-out counts of 4, see `threshold`. Then the rates are fitted once more on all folds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .beta import credible_interval
from .grid import Grid
from .isotonic import pool_adjacent
from .levels import by_level, form_levels
from .platt import LEVEL_RIDGE, POOLED_RIDGE, fit_platt, platt_prior
from .threshold import choose_cut, thresholds

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

FOLDS = 4
HALF_LIVES = 6
"""Epochs older than so many half-lives (a weight of 1/64) are not read: that bounds the work of a reading."""
STRENGTH = 25.0
"""Of a score bin's prior: one over the variance of its logit around Platt's map, so a standard deviation of 0.2."""
INTERVAL = 0.9
"""Mass of the credible interval."""
SEED = 0x7265_6164_696E_6721


@dataclass(frozen=True)
class Rules:
    """How readings are made.

    Attributes
    ----------
    levels : most levels a reading has
    evidence : positives a level needs (decayed)
    half_life : in epochs
    maturity : epoch k is read from epochs up to k - maturity
    precision : asked of the cut; 0: maximal F1

    >>> Rules(maturity=8).last_mature(10)
    2
    """

    levels: int = 4
    evidence: float = 200.0
    half_life: float = 28.0
    maturity: int = 8
    precision: float = 0.0

    def last_mature(self, epoch: int) -> int:
        """Latest epoch whose labels are all known when `epoch` begins."""
        return epoch - self.maturity

    @property
    def keep(self) -> float:
        """Weight of an epoch relative to the next.

        >>> Rules(half_life=1.0).keep
        0.5
        """
        return float(2.0 ** (-1.0 / self.half_life))


@dataclass(frozen=True)
class Reading:
    """Rates, intervals and thresholds for the impressions of one epoch.

    Attributes
    ----------
    epoch : the epoch it applies to, and at whose start it was made
    first, last : the matured epochs that were read (last < first: none yet)
    trials, positives : whole numbers behind it, before decay
    fitted : False: every fit lost to the raw score on the newest epochs, so the rate is the raw score
    level_of : uint8[uncertainty_bins], level of each uncertainty bin, 0 the surest
    rate, low, high : float32[levels, score_bins], calibrated probability and its 90 % interval
    thresholds : int64[levels], first score bin selected; score_bins: none
    cut : the cut on the rate; 0: nothing known, all pass; infinity: the precision asked for is out of reach
    precision, recall : of the cut on epochs that its rates were not fitted on
    gain, control : held-out log-loss a trial that levels save over one level, and that random levels save; NaN where
        there was evidence for one level only
    """

    epoch: int
    first: int
    last: int
    trials: int
    positives: int
    fitted: bool
    level_of: npt.NDArray[np.uint8]
    rate: npt.NDArray[np.float32]
    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]
    thresholds: I64
    cut: float
    precision: float
    recall: float
    gain: float
    control: float

    @property
    def levels(self) -> int:
        """Number of levels in service."""
        return len(self.rate)


def fit_rates(trials: F64, positives: F64, logits: F64) -> tuple[F64, F64]:
    """Posterior (alpha, beta) of the rate in each level and score bin, float64[levels, score_bins] each.

    The mean alpha / (alpha + beta) rises with the score. `trials` and `positives` float64[levels, score_bins] may be
    decayed; `logits` float64[score_bins] are the bins' raw scores.

    >>> alpha, beta = fit_rates(np.zeros((1, 2)), np.zeros((1, 2)), np.array([-1.0, 1.0]))
    >>> (alpha / (alpha + beta)).round(3).tolist()
    [[0.269, 0.731]]
    """
    trials = np.maximum(trials, 0.0)  # a correction may have come before what it corrects
    positives = np.clip(positives, 0.0, trials)
    pooled = positives.sum(axis=0)
    found = float(pooled.sum())
    centre = float((pooled * logits).sum()) / found if found > 0 else 0.0
    shifted = logits - centre
    prior = fit_platt(trials.sum(axis=0), pooled, shifted, (centre, 1.0), POOLED_RIDGE)
    alpha, beta = np.empty(trials.shape), np.empty(trials.shape)
    for k in range(len(trials)):
        a, b = prior
        if len(trials) > 1:
            a, b = fit_platt(trials[k], positives[k], shifted, prior, LEVEL_RIDGE)
        mean, weight = platt_prior(positives[k], shifted, a, b, STRENGTH)
        hits, total = pool_adjacent(positives[k] + weight * mean, trials[k] + weight)
        alpha[k], beta[k] = hits, total - hits
    return alpha, beta


def held_out(trials: F64, positives: F64, logits: F64) -> tuple[F64, F64]:
    """Rates for each fold fitted on the other folds, and the log-loss they make on the fold.

    `trials`, `positives` float64[folds, levels, score_bins]. Returns (rates, same shape; losses float64[folds], sums).

    >>> trials, positives = np.full((2, 1, 2), 100.0), np.array([[[10.0, 40.0]], [[12.0, 50.0]]])
    >>> rates, losses = held_out(trials, positives, np.array([-2.0, 0.0]))
    >>> rates.shape, bool((losses > 0).all())
    ((2, 1, 2), True)
    """
    rates, losses = np.empty(trials.shape), np.empty(len(trials))
    for f in range(len(trials)):
        others = np.arange(len(trials)) != f
        alpha, beta = fit_rates(trials[others].sum(axis=0), positives[others].sum(axis=0), logits)
        rates[f] = alpha / (alpha + beta)
        losses[f] = log_loss_sum(rates[f], trials[f], positives[f])
    return rates, losses


def log_loss_sum(rate: F64, trials: F64, positives: F64) -> float:
    """Log-loss in nats, summed over cells, of rates where `positives` of `trials` came true.

    >>> round(log_loss_sum(np.array([0.5]), np.array([2.0]), np.array([1.0])), 4)
    1.3863
    """
    return -float((positives * np.log(rate) + (trials - positives) * np.log1p(-rate)).sum())


def make_reading(grid: Grid, epoch: int, rules: Rules) -> Reading:
    """The reading for `epoch`, from what `grid` says now. Without any matured label it gives the raw score back.

    >>> from .grid import Shape
    >>> reading = make_reading(Grid.empty(Shape(8, 4, -2.0, 2.0)), 20, Rules())
    >>> reading.levels, reading.fitted, reading.cut, reading.rate.round(2)[0].tolist()[3:5]
    (1, False, 0.0, [0.4399999976158142, 0.5600000023841858])
    """
    last = rules.last_mature(epoch)
    first = last - min(math.ceil(HALF_LIVES * rules.half_life), grid.shape.epochs_kept - rules.maturity) + 1
    logits = grid.shape.midpoints()
    cells, hits, trials, positives = grid.decayed(first, last, rules.keep, FOLDS)
    single = _candidate(np.zeros(grid.shape.uncertainty_bins, np.int64), cells, hits, logits)
    several, gain, control = _levels(grid, (first, last, epoch), rules, cells, hits, single)
    chosen = next((c for c in (several, single) if c and _pays(grid, first, last, rules, c.level_of)), None)
    if chosen is None:
        alpha, beta = _as_it_is(single.trials.sum(axis=0), logits)
        raw = (alpha / (alpha + beta))[0]
        cut = choose_cut(raw, single.trials.sum(axis=(0, 1)), single.positives.sum(axis=(0, 1)), rules.precision)
    else:
        alpha, beta = fit_rates(chosen.trials.sum(axis=0), chosen.positives.sum(axis=0), logits)
        cut = choose_cut(chosen.rates.ravel(), chosen.trials.ravel(), chosen.positives.ravel(), rules.precision)
    rate = alpha / (alpha + beta)
    bounds = credible_interval(alpha.ravel(), beta.ravel(), INTERVAL)
    low, high = (bound.reshape(rate.shape).astype(np.float32) for bound in bounds)
    return Reading(
        epoch, first, last, trials, positives, chosen is not None, (chosen or single).level_of.astype(np.uint8),
        rate.astype(np.float32), low, high,
        thresholds(rate, cut.rate), cut.rate, cut.precision, cut.recall, gain, control,
    )  # fmt: skip


@dataclass(frozen=True)
class _Candidate:
    """A way to form levels: its counts and held-out rates [folds, levels, score_bins], and the loss of each fold."""

    level_of: I64
    trials: F64
    positives: F64
    rates: F64
    losses: F64


def _candidate(level_of: I64, cells: F64, hits: F64, logits: F64) -> _Candidate:
    trials, positives = by_level(cells, level_of), by_level(hits, level_of)
    return _Candidate(level_of, trials, positives, *held_out(trials, positives, logits))


def _levels(
    grid: Grid, when: tuple[int, int, int], rules: Rules, cells: F64, hits: F64, single: _Candidate
) -> tuple[_Candidate | None, float, float]:
    """Levels that beat a single one and random ones on held-out epochs, or None; what both saved a trial."""
    level_of = form_levels(hits.sum(axis=(0, 1)), rules.levels, rules.evidence)
    if not level_of.max():
        return None, math.nan, math.nan
    first, last, epoch = when
    logits = grid.shape.midpoints()
    several = _candidate(level_of, cells, hits, logits)
    shares = several.positives.sum(axis=(0, 2))
    random = grid.shuffled(first, last, rules.keep, FOLDS, shares / shares.sum(), SEED ^ (epoch & 0xFFFF_FFFF))
    saved, luck = single.losses - several.losses, single.losses - held_out(*random, logits)[1]
    good = saved.sum() > luck.sum() and _beyond_chance(saved)
    total = float(cells.sum())
    return several if good else None, float(saved.sum()) / total, float(luck.sum()) / total


def _pays(grid: Grid, first: int, last: int, rules: Rules, level_of: I64) -> bool:
    """Rates fitted on the older epochs do not lose to the raw score on the newest (a window's, at most half of all)."""
    held = [epoch for epoch in grid.epochs() if first <= epoch <= last]
    newest = held[len(held) - min(rules.maturity, len(held) // 2) :]
    if not newest or newest == held:
        return False
    logits = grid.shape.midpoints()
    cells, hits, _, _ = grid.decayed(first, newest[0] - 1, rules.keep, 1)
    alpha, beta = fit_rates(by_level(cells[0], level_of), by_level(hits[0], level_of), logits)
    raw, rate = _as_it_is(cells[0].sum(axis=1)[None, :], logits), alpha / (alpha + beta)
    saved = np.zeros(len(newest))
    for i, epoch in enumerate(newest):
        counts = grid.cells_of(epoch)
        assert counts is not None
        trials, positives = by_level(counts[0], level_of), by_level(counts[1], level_of)
        saved[i] = log_loss_sum(raw[0] / (raw[0] + raw[1]), trials, positives) - log_loss_sum(rate, trials, positives)
    return not _beyond_chance(-saved)


def _as_it_is(trials: F64, logits: F64) -> tuple[F64, F64]:
    """(alpha, beta) of rates that are the raw score, as sure as `trials` float64[levels, score_bins] make them."""
    raw = np.array([1.0 / (1.0 + math.exp(-z)) for z in logits.tolist()])
    weight = np.maximum(trials, 0.0) + 1.0 / (raw * (1.0 - raw))
    return weight * raw, weight * (1.0 - raw)


def _beyond_chance(saved: F64) -> bool:
    """The mean of what was saved is above 0 by more than its standard error."""
    if len(saved) < 2:
        return bool(saved.sum() > 0.0)
    return float(saved.mean()) > float(saved.std(ddof=1)) / math.sqrt(len(saved))
