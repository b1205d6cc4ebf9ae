"""Period life table: how likely an open impression is to convert yet, by age and by what it has shown so far.

Ages are cut at checkpoints a_1 < ... < a_K (shares of the attribution window); bin k lies between a_k and a_(k+1),
with a_0 = 0 and a_(K+1) = 1. An impression that is still open at a checkpoint is in one of seven states: nothing yet;
clicked or in the cart, each entered in the bin just past, one or two bins before, or earlier. When an impression
passes the *end* of a bin, what became of it in that bin is counted: N[k, state -> state or converted]. So each bin is
estimated from all impressions that passed through it, the latest window's most, and nothing waits for a whole window:
a period life table, without right truncation. Counts decay over one window.

From the last bin backwards, V[k, s] is the probability of a conversion after a_k:

    V[k, s] = (sum over s' of N[k, s, s'] V[k+1, s'] + N[k, s, converted] + V[k+1, next(s)] + q_k) / (sum N + 1)

with V[K+1] = 0, next(s) the state that s turns into when nothing happens, and q_k a prior's conversions in bin k, worth
one impression, so that the empty table says something sober. R[k, s] = logit V[k, s] - logit V[0, nothing] is the log
likelihood ratio that the belief in a conversion moves by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thalweg.graph_store.kernel import kernel, lean_kernel

F64 = npt.NDArray[np.float64]

STATES = 7
CONVERTED = 7
PRIOR_RATE = 0.02
PERIOD = 256
"""Impressions between two solutions of the table."""


class LifeTable(NamedTuple):
    """The arrays of a table with K checkpoints.

    Attributes
    ----------
    counts : float64[K + 1, 7, 8], N[k, state, next state or converted]
    values : float64[K + 2, 7], V
    ratios : float64[K + 1, 7], R
    prior : float64[K + 1], q
    """

    counts: F64
    values: F64
    ratios: F64
    prior: F64


def prior_conversions(checkpoints: Sequence[float]) -> F64:
    """Conversions a fresh impression is given in each bin before anything is known: 2 % in all, delay ~ square law.

    >>> prior_conversions([0.25]).tolist()
    [0.01, 0.01]
    """
    ages = [0.0, *checkpoints, 1.0]
    return np.array([PRIOR_RATE * (math.sqrt(b) - math.sqrt(a)) for a, b in zip(ages, ages[1:], strict=False)])


def make_life_table(checkpoints: Sequence[float]) -> LifeTable:
    """An empty, solved table for the checkpoints (shares of the window, rising).

    >>> table = make_life_table([0.25])
    >>> round(float(table.ratios[1, 0]), 3)
    -0.703
    """
    k = len(checkpoints)
    table = LifeTable(
        np.zeros((k + 1, STATES, STATES + 1)),
        np.zeros((k + 2, STATES)),
        np.zeros((k + 1, STATES)),
        prior_conversions(checkpoints),
    )
    solve(*table)
    return table


@kernel
def state_at(stage, entered, crossed):  # type: ignore[no-untyped-def]
    """State 0..6 at the `crossed`-th checkpoint (1 = the first) of an impression in `stage` since bin `entered`.

    stage: 0 nothing, 1 clicked, 2 in the cart.

    >>> [int(state_at(0, 0, 1)), int(state_at(1, 0, 1)), int(state_at(2, 0, 2)), int(state_at(2, 0, 4))]
    [0, 1, 5, 6]
    """
    if stage == 0:
        return 0
    bins = crossed - 1 - entered
    return 3 * stage - 2 + (0 if bins <= 0 else (1 if bins <= 2 else 2))


@kernel
def _next_state(state):  # type: ignore[no-untyped-def]
    return state + 1 if state in (1, 2, 4, 5) else state


@lean_kernel
def decay(counts, factor):  # type: ignore[no-untyped-def]
    """Multiply all counts by `factor`."""
    for k in range(counts.shape[0]):
        for s in range(counts.shape[1]):
            for t in range(counts.shape[2]):
                counts[k, s, t] *= factor


@kernel
def _logit(p):  # type: ignore[no-untyped-def]
    return math.log(p) - math.log(1.0 - p)


@lean_kernel
def solve(counts, values, ratios, prior):  # type: ignore[no-untyped-def]
    """Fill `values` and `ratios` from `counts`, backwards from the last bin."""
    last = counts.shape[0]
    for s in range(STATES):
        values[last, s] = 0.0
    for k in range(last - 1, -1, -1):
        for s in range(STATES):
            total = 1.0
            expected = values[k + 1, _next_state(s)] + prior[k]
            for t in range(STATES):
                total += counts[k, s, t]
                expected += counts[k, s, t] * values[k + 1, t]
            total += counts[k, s, CONVERTED]
            expected += counts[k, s, CONVERTED]
            values[k, s] = min(expected / total, 0.999999)
    fresh = _logit(values[0, 0])
    for k in range(last):
        for s in range(STATES):
            ratios[k, s] = _logit(values[k, s]) - fresh
