"""Uncertainty levels: neighbouring uncertainty bins merged until each level has evidence enough to stand alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]


def form_levels(positives: F64, levels: int, evidence: float) -> I64:
    """Level of each uncertainty bin, int64[bins], non-decreasing from 0 (the surest).

    At most `levels` levels of about equal positives, none with fewer than `evidence` positives; one level where the
    whole has too few for two. `positives` float64[bins] may be decayed.

    >>> form_levels(np.array([10.0, 30.0, 20.0, 20.0]), 2, 5).tolist()
    [0, 0, 1, 1]
    >>> form_levels(np.array([10.0, 30.0, 20.0, 20.0]), 4, 50).tolist()
    [0, 0, 0, 0]
    """
    out = np.zeros(len(positives), np.int64)
    total = float(positives.sum())
    wanted = min(levels, int(total // evidence))
    left, held, level = total, 0.0, 0
    for u, count in enumerate(positives.tolist()):
        enough = level + 1 < wanted and held >= evidence and left - held >= evidence
        if enough and held + 0.5 * count >= left / (wanted - level):
            left -= held
            held = 0.0
            level += 1
        out[u] = level
        held += count
    if level > 0 and held < evidence:
        out[out == level] = level - 1
    return out


def by_level(counts: F64, level_of: I64) -> F64:
    """Sum over the uncertainty bins of each level.

    float64[..., score_bins, uncertainty_bins] -> float64[..., levels, score_bins].

    >>> by_level(np.array([[1.0, 2.0, 4.0]]), np.array([0, 0, 1])).tolist()
    [[3.0], [4.0]]
    """
    levels = int(level_of.max()) + 1
    out = np.zeros((*counts.shape[:-2], levels, counts.shape[-2]))
    for u, level in enumerate(level_of.tolist()):
        out[..., level, :] += counts[..., u]
    return out
