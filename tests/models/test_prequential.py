"""Prequential scores equal their slow twins, do not depend on order, and take rows back exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import calibration as slow
from thalweg.models.prequential import (
    BASE_RATE,
    BINS,
    LOGIT_LIMIT,
    MODEL,
    SCALE,
    TRIALS,
    WEEK,
    Prequential,
    calibration_error,
    observe,
    observe_many,
    paired_interval,
)

ROWS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 2), st.floats(0.0, 1.0), st.integers(0, 1)), min_size=1, max_size=60
)


def filled(rows, weeks=64):
    scores = Prequential.empty(weeks)
    for week, predictor, probability, label in rows:
        observe(*scores.arrays(), week, predictor, probability, label, 1)
    return scores


def equal(a, b):
    return all((x == y).all() for x, y in zip(a.arrays(), b.arrays(), strict=True))


@settings(deadline=None, max_examples=60)
@given(ROWS)
def test_sums_equal_the_slow_twin(rows):
    fast, twin = filled(rows), slow.Scores()
    for row in rows:
        twin.observe(*row)
    for predictor in range(3):
        if not twin.of(predictor):
            assert math.isnan(fast.log_loss(predictor))
            continue
        assert fast.log_loss(predictor) == pytest.approx(twin.log_loss(predictor), abs=1 / SCALE)
        assert fast.brier(predictor) == pytest.approx(twin.brier(predictor), abs=1 / SCALE)
        if any(y for _, y in twin.of(predictor)):
            assert fast.calibration_ratio(predictor) == pytest.approx(twin.ratio(predictor), abs=len(rows) / SCALE)
    numbers, sums = fast.by_week()
    assert numbers.tolist() == sorted({week for week, *_ in rows})
    for week, per in zip(numbers.tolist(), sums, strict=True):
        assert [int(n) for n in per[:, TRIALS]] == [len(twin.of(k, week)) for k in range(3)]


@settings(deadline=None, max_examples=60)
@given(ROWS, st.randoms(use_true_random=False), st.integers(2, 64))
def test_order_does_not_matter_even_when_weeks_are_dropped(rows, random, weeks):
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert equal(filled(rows, weeks), filled(shuffled, weeks))


@settings(deadline=None, max_examples=60)
@given(ROWS, ROWS)
def test_rows_taken_back_leave_no_trace(rows, more):
    scores = filled(rows)
    for sign in (1, -1):
        for week, predictor, probability, label in more:
            observe(*scores.arrays(), week, predictor, probability, label, sign)
    wanted = filled(rows)
    for name in ("sums", "total", "histogram", "dropped"):
        assert (getattr(scores, name) == getattr(wanted, name)).all()


def test_dropped_weeks_are_counted_and_stay_in_the_total():
    scores = filled([(0, MODEL, 0.5, 1), (4, MODEL, 0.5, 0), (0, MODEL, 0.5, 1)], weeks=4)
    assert scores.dropped.tolist() == [2]
    assert scores.total[MODEL, TRIALS] == 3
    assert scores.by_week()[0].tolist() == [4]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 1)), min_size=2, max_size=60))
def test_areas_equal_pairwise_counting(rows):
    width = 2 * LOGIT_LIMIT / BINS
    logits = [-LOGIT_LIMIT + width * (8 * k + 0.5) for k, _ in rows]
    labels = [y for _, y in rows]
    scores = filled([(0, MODEL, 1 / (1 + math.exp(-z)), y) for z, y in zip(logits, labels, strict=True)])
    if 0 < sum(labels) < len(labels):
        assert scores.auc() == pytest.approx(slow.auc(logits, labels))
    if sum(labels):
        assert scores.pr_auc() == pytest.approx(slow.average_precision(logits, labels))


def test_areas_of_continuous_scores_are_within_a_bin_of_exact():
    rng = np.random.default_rng(1)
    labels = (rng.random(2000) < 0.2).astype(int)
    logits = rng.normal(labels * 1.5 - 1, 1.0)
    scores = filled(
        [(0, MODEL, 1 / (1 + math.exp(-z)), y) for z, y in zip(logits.tolist(), labels.tolist(), strict=True)]
    )
    statistic = scipy.stats.mannwhitneyu(logits[labels == 1], logits[labels == 0]).statistic
    assert scores.auc() == pytest.approx(statistic / (labels.sum() * (1 - labels).sum()), abs=2e-4)
    assert scores.pr_auc() == pytest.approx(slow.average_precision(logits.tolist(), labels.tolist()), abs=5e-3)


def test_debiased_error_is_near_zero_for_a_calibrated_score_and_finds_a_shift():
    rng = np.random.default_rng(2)
    p = 1 / (1 + np.exp(-rng.normal(-3, 1, 40_000)))
    y = (rng.random(len(p)) < p).astype(int)
    good = filled([(0, MODEL, a, b) for a, b in zip(p.tolist(), y.tolist(), strict=True)])
    bad = filled([(0, MODEL, min(2 * a, 1.0), b) for a, b in zip(p.tolist(), y.tolist(), strict=True)])
    assert good.ece() < 0.008
    assert bad.ece() == pytest.approx(math.sqrt(float((p * p).mean())), rel=0.25)
    assert bad.calibration_ratio() == pytest.approx(2.0, rel=0.06)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40),
    st.integers(1, 20),
)
def test_calibration_error_equals_the_slow_twin(bins, groups):
    trials = [float(n) for n, _, _ in bins]
    positives = [float(int(n * share)) for n, share, _ in bins]
    probability = [n * p for n, _, p in bins]
    got = calibration_error(np.array(trials), np.array(positives), np.array(probability), groups)
    assert got == pytest.approx(slow.calibration_error(trials, positives, probability, groups), abs=1e-7)


@pytest.mark.parametrize("groups", [1, 7, 20])
def test_debiasing_takes_off_the_sampling_variance(groups):
    rng = np.random.default_rng(groups)
    n, p = np.full(200, 50.0), np.linspace(0.05, 0.5, 200)
    squares = []
    for _ in range(200):
        k = rng.binomial(50, p).astype(float)
        squares.append(calibration_error(n, k, n * p, groups))
    assert np.mean(squares) < 0.02


def test_paired_interval_is_the_t_interval_for_equal_weeks_and_covers():
    gaps = np.array([0.2, -0.1, 0.4, 0.3, 0.1])
    interval = paired_interval(gaps * 10, np.full(5, 10.0))
    low, high = scipy.stats.t.interval(0.95, 4, loc=gaps.mean(), scale=scipy.stats.sem(gaps))
    assert (interval.low, interval.high) == pytest.approx((low, high))
    rng, hits = np.random.default_rng(3), 0
    for _ in range(400):
        rows = rng.integers(50, 200, 30).astype(float)
        interval = paired_interval(rng.normal(0.1, 0.5, 30) * rows, rows)
        hits += interval.low <= 0.1 <= interval.high
    assert hits / 400 > 0.91


def test_paired_difference_between_predictors():
    rows = [
        (w, k, p, y) for w in range(6) for y in (0, 0, 1) for k, p in ((MODEL, 0.9 if y else 0.1), (BASE_RATE, 1 / 3))
    ]
    interval = filled(rows).paired(MODEL, BASE_RATE)
    assert interval.high < 0 and interval.weeks == 6
    assert math.isnan(filled(rows[:6]).paired(MODEL, BASE_RATE).low)


def test_fixed_point_cannot_overflow_at_ten_thousand_million_rows():
    scores = filled([(0, MODEL, 0.0, 1)])
    assert int(scores.total.max()) * 10**10 < 2**63
    assert WEEK == 7 * 24 * 3600 * 1000


@settings(deadline=None, max_examples=40)
@given(ROWS)
def test_the_compiled_kernel_does_what_its_lines_say(rows):
    compiled, plain = filled(rows), Prequential.empty(64)
    for week, predictor, probability, label in rows:
        observe.py_func(*plain.arrays(), week, predictor, probability, label, 1)
    assert equal(compiled, plain)


def test_many_rows_at_once_are_rows_one_by_one():
    rng = np.random.default_rng(4)
    ts, p, y = rng.integers(0, 20 * WEEK, 500), rng.random(500), rng.integers(0, 2, 500)
    at_once = Prequential.empty(64)
    observe_many(*at_once.arrays(), ts, MODEL, p, y)
    rows = zip((ts // WEEK).tolist(), p.tolist(), y.tolist(), strict=True)
    assert equal(at_once, filled([(week, MODEL, a, b) for week, a, b in rows]))
    assert at_once.base_rate() == y.mean()
