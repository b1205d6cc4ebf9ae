"""Platt's two-parameter map from raw to calibrated logits, shrunk towards a prior map.

logit c = a + b * logit(raw score), fitted by maximum a posteriori with independent normal priors on a and b. The
pooled map has the identity (0, 1) as its prior; an uncertainty level's map has the pooled one, so that a level with
little evidence says what all levels say: a + b * l + (a_k + b_k * l), with a ridge on (a_k, b_k) only.

Reference: Platt, *Probabilistic outputs for support vector machines* (1999).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from thalweg.graph_store.kernel import kernel

F64 = npt.NDArray[np.float64]

POOLED_RIDGE = (0.04, 4.0)
"""Precisions of the pooled (a, b): standard deviations of 5 and 0.5 around the identity. A thinning of negatives by
ten moves a by 2.3."""
LEVEL_RIDGE = (4.0, 16.0)
"""Precisions of a level's (a, b) around the pooled map: standard deviations of 0.5 and 0.25."""


@kernel
def _objective(trials, positives, logits, a, b, prior_a, prior_b, ridge_a, ridge_b):  # type: ignore[no-untyped-def]
    value = 0.5 * (ridge_a * (a - prior_a) ** 2 + ridge_b * (b - prior_b) ** 2)
    for i in range(trials.shape[0]):
        if trials[i] > 0.0:
            z = a + b * logits[i]
            soft = max(z, 0.0) + math.log1p(math.exp(-abs(z)))
            value += trials[i] * soft - positives[i] * z
    return value


@kernel
def _fit(trials, positives, logits, prior_a, prior_b, ridge_a, ridge_b, out):  # type: ignore[no-untyped-def]
    a, b = prior_a, prior_b
    best = _objective(trials, positives, logits, a, b, prior_a, prior_b, ridge_a, ridge_b)
    for _ in range(50):
        ga, gb = ridge_a * (a - prior_a), ridge_b * (b - prior_b)
        haa, hab, hbb = ridge_a, 0.0, ridge_b
        for i in range(trials.shape[0]):
            if trials[i] > 0.0:
                p = 1.0 / (1.0 + math.exp(-(a + b * logits[i])))
                gap = trials[i] * p - positives[i]
                w = trials[i] * p * (1.0 - p)
                ga += gap
                gb += gap * logits[i]
                haa += w
                hab += w * logits[i]
                hbb += w * logits[i] * logits[i]
        determinant = haa * hbb - hab * hab
        step_a = (hbb * ga - hab * gb) / determinant
        step_b = (haa * gb - hab * ga) / determinant
        size = 1.0
        value = best
        for _ in range(30):
            value = _objective(
                trials, positives, logits, a - size * step_a, b - size * step_b, prior_a, prior_b, ridge_a, ridge_b
            )
            if value <= best:
                break
            size *= 0.5
        if not value < best:
            break
        a -= size * step_a
        b -= size * step_b
        done = best - value < 1e-10 * (1.0 + abs(value))
        best = value
        if done:
            break
    out[0], out[1] = a, b


@kernel
def _prior(positives, shifted, a, b, strength, mean, weight):  # type: ignore[no-untyped-def]
    evidence = 0.0
    for i in range(positives.shape[0]):
        evidence += positives[i]
    strength = 1.0 + strength * evidence / (evidence + strength)
    for i in range(positives.shape[0]):
        z = min(max(a + b * shifted[i], -30.0), 30.0)
        mean[i] = 1.0 / (1.0 + math.exp(-z))
        weight[i] = strength / (mean[i] * (1.0 - mean[i]))


def platt_prior(positives: F64, logits: F64, a: float, b: float, strength: float) -> tuple[F64, F64]:
    """Beta prior of each score bin around Platt's map: (mean, weight in trials), float64[n] each.

    Its logit has a variance of 1 / `strength`; where few positives stand behind the map, more, up to 1.

    >>> mean, weight = platt_prior(np.zeros(1), np.zeros(1), 0.0, 1.0, 25.0)
    >>> float(mean[0]), float(weight[0])
    (0.5, 4.0)
    """
    mean, weight = np.empty(len(logits)), np.empty(len(logits))
    _prior(np.ascontiguousarray(positives), logits, a, b, strength, mean, weight)
    return mean, weight


def fit_platt(
    trials: F64, positives: F64, logits: F64, prior: tuple[float, float], ridge: tuple[float, float]
) -> tuple[float, float]:
    """(a, b) that maximise the posterior; `trials`, `positives` (weights, not whole numbers) and `logits` float64[n].

    `prior` is the mean of (a, b), `ridge` their precision; a zero sample gives the prior back. Newton's method with
    halved steps; positives may exceed trials or be negative while late corrections are under way, which is harmless.

    >>> fit_platt(np.zeros(2), np.zeros(2), np.array([-1.0, 1.0]), (0.5, 1.0), (1.0, 1.0))
    (0.5, 1.0)
    """
    out = np.empty(2)
    _fit(
        np.ascontiguousarray(trials),
        np.ascontiguousarray(positives),
        logits,
        prior[0],
        prior[1],
        ridge[0],
        ridge[1],
        out,
    )
    return float(out[0]), float(out[1])
