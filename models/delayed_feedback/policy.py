"""Label policies: when the belief in a conversion moves, and what then reaches the learner.

Every policy is one identity. The log-loss has gradient (p - y) in the logit; if the belief in an impression's
conversion moves from m0 to m1, pushing the mass m1 - m0 makes the sum exactly what training on m1 at once would have
given. Retraction needs no division, has bounded size and does not depend on the prediction. A belief is

    sigmoid(z + rho),   z = w.x - c * (sum of the steps)

z is the live prior: today's logit with the impression's own earlier pushes (c, their sum) taken out of it; rho is the
log likelihood ratio of what has been seen: 0 at arrival, -inf "will not convert", +inf "has converted". Policies
differ only in when rho moves:

| policy     | arrival | checkpoints of age | conversion | expiry            | reversal |
|------------|---------|--------------------|------------|-------------------|----------|
| vanilla    | -inf    |                    | +inf       |                   | -inf     |
| wait       |         |                    |            | +inf or -inf      | -inf     |
| retraction |         | life table's R     | +inf       | -inf, if still 0  | -inf     |

A conversion after expiry moves -inf to +inf and corrects what was confirmed. With the weights frozen the masses of one
impression add up to y - p, p its prediction at arrival.
"""

from __future__ import annotations

import enum
import math

import numpy as np

from thalweg.graph_store.kernel import kernel, lean_kernel
from thalweg.models.conversion import logit_and_step, push, sigmoid


class Policy(enum.IntEnum):
    """Label policies, by number for kernels.

    >>> Policy["retraction".upper()].value
    2
    """

    VANILLA = 0
    WAIT = 1
    RETRACTION = 2


class Flag(enum.IntFlag):
    """Bits of the column `flags` of an impression."""

    CONVERTED = 1  # converted now
    EXPIRED = 2  # the window is over
    EVER_CONVERTED = 4  # converted at some time: kept for returns
    NEGATIVE_OPEN = 8  # a provisional negative was emitted and is neither retracted nor confirmed
    NEGATIVE_DONE = 16  # it was retracted or confirmed
    LEARNT = 32  # counted in the weights
    CLICKED = 64
    CARTED = 128


BELIEF = [
    ("mass", "<f8"),
    ("ratio", "<f8"),
    ("flags", "<u4"),
    ("stage", "u1"),
    ("entered", "u1"),
    ("state", "u1"),
    ("spare", "u1"),
]
"""Columns of an impression that `move` and the policies keep: own mass c, rho, Flag bits, stage 0..2, bin in which
the stage was entered, state at the last checkpoint."""

_LEARNT = np.uint32(Flag.LEARNT)


@lean_kernel
def move(rows, indices, slot, width, weights, learning_rate, ratio):  # type: ignore[no-untyped-def]
    """Move the belief of impression `rows[slot]` to log likelihood ratio `ratio`, and learn the difference.

    Parameters
    ----------
    rows : structured array with the columns of `BELIEF`
    indices : uint32[., >= width]
    weights : WEIGHT[.]
    ratio : float64; +inf and -inf are certain

    Returns
    -------
    (prediction, belief before, belief after, mass) : float64
    """
    logit, step = logit_and_step(weights, indices, slot, width, learning_rate)
    prior = logit - rows["mass"][slot] * step
    before = sigmoid(prior + rows["ratio"][slot])
    after = sigmoid(prior + ratio)
    mass = after - before
    first = 0 if rows["flags"][slot] & _LEARNT else 1
    rows["flags"][slot] |= _LEARNT
    push(weights, indices, slot, width, mass, learning_rate, first)
    rows["mass"][slot] += mass
    rows["ratio"][slot] = ratio
    return sigmoid(logit), before, after, mass


@kernel
def importance(mass, prediction):  # type: ignore[no-untyped-def]
    """(label, importance weight) of a gradient mass: weight * (label - prediction) = mass.

    >>> importance(-0.1, 0.2), importance(0.4, 0.2)
    ((0, 0.5), (1, 0.5))
    """
    if mass <= 0.0:
        return 0, -mass / prediction
    return 1, mass / (1.0 - prediction)


CERTAIN = math.inf
"""rho of a conversion; minus this, of a real negative."""
