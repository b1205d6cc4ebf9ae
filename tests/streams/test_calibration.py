"""The calibration stage on the frame: readings frozen by epoch, integers that retract, state that survives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.graph_store.state_store import StateStore
from thalweg.models.calibration.grid import cell_of
from thalweg.streams.block import Block
from thalweg.streams.calibration import CalibrationStage, grid_shape, reading_rules
from thalweg.streams.configuration import Configuration, ConfigurationError, from_builtins
from thalweg.streams.row import DAY, OUTCOME_ROW

FIRST_DAY = 20_000
SMALL = from_builtins(
    {
        "attribution": {"window": "2d"},
        "calibration": {"score_bins": 32, "uncertainty_bins": 16, "evidence": 40, "epochs_kept": 40, "levels": 3},
    }
)


def outcomes(days, impressions, seed, tau=10):
    """Rows of a thinned stream: a trial each impression, a positive a day later, some positives taken back."""
    rng = np.random.default_rng(seed)
    size = days * impressions
    truth = rng.beta(1.0, 6.0, size)
    n = np.floor(10 ** rng.uniform(0, 3, size)).astype(int)
    clicks = rng.binomial(n, truth)
    misses = rng.binomial(n - clicks, 1 / tau)
    score, uncertainty = (1.0 + clicks) / (10.0 + clicks + misses), -np.log1p(clicks + misses)
    ts = (FIRST_DAY + np.repeat(np.arange(days), impressions)) * DAY + rng.integers(0, DAY, size)
    converted, returned = rng.random(size) < truth, rng.random(size) < 0.1
    rows = []
    for i in range(size):
        cell = cell_of(math.log(score[i] / (1 - score[i])), uncertainty[i], -9.0, 5.0, 32, -16.0, 0.0, 16)
        epoch = int(ts[i]) // DAY
        rows.append((ts[i], i, 0, epoch, cell, 1, 0))
        if converted[i]:
            rows.append((ts[i] + DAY, i, 1, epoch, cell, 0, 1))
            if returned[i]:
                rows.append((ts[i] + DAY + 5, i, 2, epoch, cell, 0, -1))
    out = np.zeros(len(rows), OUTCOME_ROW)
    for name, column in zip(
        ("ts", "id", "id2", "epoch", "cell", "trials", "positives"), zip(*rows, strict=True), strict=True
    ):
        out[name] = column
    return out[np.lexsort((out["id2"], out["id"], out["ts"]))]


def drive(stage, rows, size, start=0, close=True):
    features = np.zeros((len(rows), 0), np.uint32)
    for begin in range(start, len(rows), size):
        part = rows[begin : begin + size]
        last = begin + size >= len(rows)
        clock = int(part["ts"][-1]) + (1 if last and close else 0)
        stage.process(
            Block(part, features[begin : begin + size], {0: (begin, begin + len(part))}, clock), begin + len(part)
        )
    return stage


def fresh(configuration=SMALL):
    return CalibrationStage(configuration, StateStore.memory(), 1)


ROWS = outcomes(days=16, impressions=1500, seed=1)


def test_state_does_not_depend_on_the_cut_into_blocks_nor_on_order_within_the_clock():
    whole = drive(fresh(), ROWS, len(ROWS))
    assert len(whole.trail()) == 16
    for size in (97, 1000):
        other = drive(fresh(), ROWS, size)
        assert other.trail() == whole.trail() and other.digest() == whole.digest()
    shuffled = np.random.default_rng(0).permutation(ROWS)
    assert drive_shuffled(shuffled).trail() == whole.trail()


def drive_shuffled(rows):
    stage = fresh()
    clock = int(rows["ts"].max()) + 1
    stage.process(Block(rows, np.zeros((len(rows), 0), np.uint32), {0: (0, len(rows))}, clock), len(rows))
    return stage


def test_levels_are_in_service_and_the_calibrated_rate_beats_the_raw_score():
    stage = drive(fresh(), ROWS, 5000)
    readings = list(stage.shelf)
    assert sum(reading.levels > 1 for reading in readings) >= 5
    scores = stage.scores()
    assert len(scores) >= 8
    assert np.mean([s.calibrated.log_loss - s.raw.log_loss for s in scores[3:]]) < 0
    assert stage.summary()["epochs"] == len(scores) and scores[-1].epoch == stage.last_mature()


def test_one_changed_row_changes_the_trail_from_its_day_on():
    changed = ROWS.copy()
    place = len(ROWS) // 2
    changed["positives"][place] += 1
    one, other = drive(fresh(), ROWS, 5000).trail(), drive(fresh(), changed, 5000).trail()
    day = (int(ROWS["ts"][place]) // DAY + 1) * DAY
    assert min(ts for ts in one if one[ts] != other[ts]) == day
    assert drive(fresh(), changed, 5000).digest() != drive(fresh(), ROWS, 5000).digest()


def test_the_reading_of_an_epoch_is_frozen_when_the_epoch_begins():
    boundary = (FIRST_DAY + 9) * DAY
    stage = drive(fresh(), ROWS[ROWS["ts"] < boundary], 5000)
    assert stage.reading_at(FIRST_DAY + 9) is None  # the clock has not passed the boundary's eve yet
    stage = drive(fresh(), ROWS[ROWS["ts"] < boundary + DAY // 2], 5000)
    early = stage.reading_at(FIRST_DAY + 9)
    late = drive(fresh(), ROWS, 5000).reading_at(FIRST_DAY + 9)
    assert (early.rate == late.rate).all() and early.cut == late.cut
    assert early.last == FIRST_DAY + 6  # 6's last window closes at the start of 9


@pytest.mark.parametrize("size", [97, 20_000])
def test_state_survives_on_disk_and_goes_on_the_same(tmp_path, size):
    folder = tmp_path / "state"
    half = len(ROWS) // 2 // size * size if size < len(ROWS) // 2 else len(ROWS) // 2
    store = StateStore.open(folder, SMALL.fingerprint())
    stage = drive(CalibrationStage(SMALL, store, 1), ROWS[:half], size, close=False)
    stage.checkpoint()
    before = stage.digest()
    store.close()
    store = StateStore.open(folder, SMALL.fingerprint())
    again = CalibrationStage(SMALL, store, 1)
    assert again.digest() == before
    whole = drive(fresh(), ROWS, size)
    drive(again, ROWS, size, start=half)
    assert again.trail() == whole.trail() and again.digest() == whole.digest()
    assert again.store.counters["readings"] == whole.store.counters["readings"]
    store.close()


ADDS = st.lists(
    st.tuples(
        st.integers(0, 3 * DAY), st.integers(0, 2), st.integers(0, 32 * 16 - 1), st.integers(-2, 2), st.integers(-2, 2)
    ),
    max_size=40,
)


def signed(rows, sign=1, first=0):
    out = np.zeros(len(rows), OUTCOME_ROW)
    for i, (ts, epoch, cell, trials, positives) in enumerate(rows):
        out[i] = (FIRST_DAY * DAY + ts, 0, first + i, 0, 0, FIRST_DAY + epoch, cell, sign * trials, sign * positives)
    return out


def final(rows):
    rows = rows[np.argsort(rows["ts"], kind="stable")]
    stage = fresh()
    if len(rows):
        drive(stage, rows, 7)
    return sorted(stage.grid.entries().tolist())


@settings(deadline=None, max_examples=40)
@given(ADDS, ADDS)
def test_what_is_taken_back_leaves_no_integer_behind(rows, more):
    with_retraction = np.concatenate([signed(rows), signed(more, 1, 100), signed(more, -1, 200)])
    assert final(with_retraction) == final(signed(rows))
    assert final(np.concatenate([with_retraction, signed(rows, -1, 300)])) == []


def test_what_the_bounds_drop_is_counted():
    rows = np.concatenate(
        [signed([(0, 0, 5, 1, 0)]), signed([(1, 0, 10_000, 1, 0)], first=1), signed([(2, 40, 5, 1, 0)], first=2)]
    )
    stage = drive(fresh(), rows, 3)
    assert stage.store.counters["rows_outside_grid"] == 1
    assert stage.store.counters["trials_dropped"] == 1


def test_before_the_first_reading_the_raw_score_is_given_back():
    answer = fresh().calibrate(-1.0, -3.0)
    assert answer.rate == pytest.approx(1 / (1 + math.e)) and (answer.low, answer.high) == (0.0, 1.0) and answer.kept


def test_calibrate_says_what_the_reading_says():
    stage = drive(fresh(), ROWS, 5000)
    reading = stage.newest()
    for logit in (-4.0, -2.0, 0.0, 1.0):
        for uncertainty in (-8.0, -3.0, 0.0):
            answer = stage.calibrate(logit, uncertainty)
            row, column = stage.shape.bins_of(logit, uncertainty)
            assert answer.level == reading.level_of[column] and answer.rate == reading.rate[answer.level, row]
            assert answer.low <= answer.rate <= answer.high
            assert answer.kept == (logit >= answer.threshold)
            assert answer.kept == (answer.rate >= np.float32(reading.cut))
    assert (
        stage.calibrate(0.0, -3.0, epoch=FIRST_DAY + 5).rate
        == stage.reading_at(FIRST_DAY + 5).rate[
            stage.calibrate(0.0, -3.0, epoch=FIRST_DAY + 5).level, stage.shape.bins_of(0.0, -3.0)[0]
        ]
    )


def test_configuration_decides_bins_and_maturity():
    assert grid_shape(Configuration()).cells == 256 * 32
    assert reading_rules(SMALL).maturity == 3
    with pytest.raises(ConfigurationError, match="epochs_kept"):
        reading_rules(from_builtins({"attribution": {"window": "30d"}, "calibration": {"epochs_kept": 30}}))
