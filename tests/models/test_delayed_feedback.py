"""Beliefs and the life table: increments add up, own influence is out, the table is a martingale's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.models.conversion import WEIGHT, logit_and_step, sigmoid
from thalweg.models.delayed_feedback.life_table import (
    CONVERTED,
    PRIOR_RATE,
    decay,
    make_life_table,
    prior_conversions,
    solve,
    state_at,
)
from thalweg.models.delayed_feedback.policy import BELIEF, importance, move

RATIO = st.one_of(st.floats(-20, 20), st.sampled_from([math.inf, -math.inf]))


def belief_rows(n: int = 1) -> np.ndarray:
    return np.zeros(n, np.dtype(BELIEF))


@settings(max_examples=100, deadline=None)
@given(st.lists(RATIO, min_size=1, max_size=8), st.booleans(), st.floats(-6, 3))
def test_frozen_increments_telescope(ratios: list[float], converts: bool, logit: float) -> None:
    weights = np.zeros(4, WEIGHT)
    weights["weight"] = logit / 4
    indices = np.arange(4, dtype=np.uint32).reshape(1, 4)
    rows = belief_rows()
    p = float(sigmoid(float(weights["weight"].sum())))
    total = 0.0
    for ratio in [*ratios, math.inf if converts else -math.inf]:
        total += float(move(rows, indices, 0, 4, weights, 0.0, ratio)[3])
    assert abs(total - (float(converts) - p)) < 5e-15
    assert abs(float(rows["mass"][0]) - total) < 1e-15
    assert weights["count"].tolist() == [1, 1, 1, 1]


@settings(max_examples=100, deadline=None)
@given(st.lists(RATIO, min_size=1, max_size=8))
def test_masses_are_bounded(ratios: list[float]) -> None:
    weights, rows = np.zeros(2, WEIGHT), belief_rows()
    for ratio in ratios:
        prediction, before, after, mass = move(rows, np.array([[0, 1]], np.uint32), 0, 2, weights, 0.5, ratio)
        assert abs(mass) <= 1.0
        label, weight = importance(mass, prediction)
        assert weight >= 0.0
        assert math.isclose(weight * (label - prediction), mass, rel_tol=1e-9, abs_tol=1e-12)
        assert mass == after - before


def test_own_influence_is_taken_out() -> None:
    """The prior of the second move is what the logit would be without the first one's push."""
    weights, rows, indices = np.zeros(3, WEIGHT), belief_rows(), np.arange(3, dtype=np.uint32).reshape(1, 3)
    move(rows, indices, 0, 3, weights, 0.3, -2.0)
    logit, step = logit_and_step(weights, indices, 0, 3, 0.3)
    own = float(rows["mass"][0])
    assert abs(logit) > 0.05
    assert abs(logit - own * step) < 1e-12  # no one else pushed: the prior is the start again
    _, before, _, _ = move(rows, indices, 0, 3, weights, 0.3, 1.0)
    assert math.isclose(before, float(sigmoid(-2.0)), rel_tol=1e-9)


def test_states() -> None:
    assert [state_at(0, 0, k) for k in (1, 5)] == [0, 0]
    assert [state_at(1, 2, k) for k in (3, 4, 5, 6, 9)] == [1, 2, 2, 3, 3]
    assert [state_at(2, 2, k) for k in (3, 4, 5, 6, 9)] == [4, 5, 5, 6, 6]


def test_empty_table_follows_its_prior() -> None:
    table = make_life_table([0.04, 0.25])
    assert np.allclose(table.values[:-1, 0], PRIOR_RATE * (1 - np.sqrt([0.0, 0.04, 0.25])))
    assert np.allclose(table.values, table.values[:, :1])
    assert table.ratios[0, 0] == 0.0
    assert (np.diff(table.ratios[:, 0]) < 0).all()
    assert math.isclose(sum(prior_conversions([0.3, 0.6])), PRIOR_RATE)


@pytest.mark.parametrize("seed", range(3))
def test_values_are_the_law_they_were_counted_from(seed: int) -> None:
    """Impressions that click in bin 0 or never, and convert by stage: V is the share that converts later."""
    rng = np.random.default_rng(seed)
    table = make_life_table([0.2, 0.5])
    later = {(k, s): [0, 0] for k in range(3) for s in (False, True)}
    for _ in range(20_000):
        click = rng.random() < 0.3
        bin_ = int(rng.integers(0, 3)) if rng.random() < (0.4 if click else 0.05) else None
        state = 0
        for k in range(3):
            seen = click and k > 0
            later[k, seen][0] += 1
            later[k, seen][1] += bin_ is not None
            if bin_ == k:
                table.counts[k, state, CONVERTED] += 1
                break
            following = state_at(1 if click else 0, 0, k + 1)
            table.counts[k, state, following if k < 2 else 0] += 1
            state = following
    solve(*table)
    for k, seen, state in ((0, False, 0), (1, False, 0), (1, True, 1), (2, False, 0), (2, True, 2)):
        n, converted = later[k, seen]
        assert abs(table.values[k, state] - converted / n) < 0.01, (k, state)
    assert table.ratios[1, 1] > 0.5 > 0 > table.ratios[1, 0]


def test_decay_forgets_by_a_factor() -> None:
    table = make_life_table([0.5])
    table.counts[:] = 8.0
    decay(table.counts, 0.25)
    assert (table.counts == 2.0).all()
