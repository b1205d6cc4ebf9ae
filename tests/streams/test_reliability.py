"""Reliability: points hold every trial once, and of a calibrated predictor they lie on the diagonal."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.graph_store.state_store import StateStore
from thalweg.streams.calibration import CalibrationStage
from thalweg.streams.configuration import Configuration, from_builtins
from thalweg.streams.reliability import GROUPS, points_of, thresholds_of

EPOCHS = range(20_000, 20_040)


def small(levels: int = 2, evidence: int = 20) -> Configuration:
    return from_builtins(
        {
            "attribution": {"window": "1d"},
            "calibration": {
                "score_bins": 32, "uncertainty_bins": 4, "levels": levels, "evidence": evidence, "epochs_kept": 64,
            },
        }
    )  # fmt: skip


def filled(configuration: Configuration, seed: int = 1) -> CalibrationStage:
    """A stage whose scores are true probabilities where the model is sure, and say nothing where it is not."""
    stage = CalibrationStage(configuration, StateStore.memory())
    draw = np.random.default_rng(seed)
    rate = 1.0 / (1.0 + np.exp(-stage.shape.midpoints()))
    for epoch in EPOCHS:
        stage._read(epoch * stage.epoch_length)
        score, uncertainty = draw.integers(8, 30, 2_000), draw.integers(0, 4, 2_000)
        came = draw.random(2_000) < np.where(uncertainty < 2, rate[score], 0.2)
        cells = score * 4 + uncertainty
        ones = np.ones(2_000, np.int64)
        stage.grid.add(np.full(2_000, epoch), cells, ones, came.astype(np.int64))
    return stage


@pytest.fixture(scope="module")
def stage() -> CalibrationStage:
    return filled(small())


def test_every_trial_is_in_one_point(stage: CalibrationStage) -> None:
    epochs = list(EPOCHS[5:])
    points = points_of(stage, epochs)
    assert sum(point["trials"] for point in points) == 2_000 * len(epochs)
    assert all(sum(p["level"] == level for p in points) <= GROUPS for level in (0, 1))


def test_points_rise_and_hold_their_intervals(stage: CalibrationStage) -> None:
    points = points_of(stage, list(EPOCHS[5:]))
    for level in {point["level"] for point in points}:
        mine = [point for point in points if point["level"] == level]
        raw = [point["raw"] for point in mine]
        assert raw == sorted(raw)
        assert all(0 <= point["low"] <= point["actual"] <= point["high"] <= 1 for point in mine)


def test_calibrated_rates_lie_nearer_the_diagonal_than_raw_scores(stage: CalibrationStage) -> None:
    """Half of the predictions are sure and wrong; their readings have seen thousands of labels."""
    points = points_of(stage, list(EPOCHS[20:]))
    weight = np.array([point["trials"] for point in points], float)
    gap = {
        name: float(np.average([abs(point[name] - point["actual"]) for point in points], weights=weight))  # type: ignore[literal-required]
        for name in ("raw", "predicted")
    }
    assert gap["predicted"] < 0.5 * gap["raw"]


def test_levels_and_thresholds_are_those_of_the_readings(stage: CalibrationStage) -> None:
    levels, thresholds = thresholds_of(stage)
    newest = stage.newest()
    assert newest is not None and len(levels) == newest.levels
    assert sum(level["bins"] for level in levels) == stage.shape.uncertainty_bins
    assert thresholds and all(0 < each["threshold"] < 1 for each in thresholds)
    assert {each["ts"] % stage.epoch_length for each in thresholds} == {0}


def test_nothing_read_nothing_shown() -> None:
    stage = CalibrationStage(small(), StateStore.memory())
    assert points_of(stage, [20_000]) == [] and thresholds_of(stage) == ([], [])


def test_an_epoch_without_a_reading_is_left_out(stage: CalibrationStage) -> None:
    assert points_of(stage, [19_000]) == []
    both = points_of(stage, [19_000, EPOCHS[-1]])
    assert both == points_of(stage, [EPOCHS[-1]])
