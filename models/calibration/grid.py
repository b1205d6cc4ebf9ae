"""The fixed micro-grid: signed integers by score bin, uncertainty bin and epoch.

The edges never move, and a cell holds integers only, so adding and taking back commute: any order, any shard, and a
retraction leaves no trace. A cell's number is `score_bin * uncertainty_bins + uncertainty_bin`; the cell and the
epoch (of the impression) are frozen when the impression is scored and travel with it.

Epochs live in a ring of `epochs_kept`: epoch e in slot e mod epochs_kept. A newer epoch empties the slots it passes
over; what was in them, and what comes for an epoch no longer kept, is counted in `dropped`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from thalweg.graph_store.kernel import kernel

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
F64 = npt.NDArray[np.float64]

UNCERTAINTY_LOW = -16.0
"""Uncertainty is -log(1 + n), n the effective count behind a prediction: -16 is n = 9 million, 0 is n = 0."""
UNCERTAINTY_HIGH = 0.0
_TAG = 1 << 40  # epoch e is tagged e + 2**40: zeros mean "no epoch yet"
DROPPED = ("trials_dropped", "positives_dropped", "rows_dropped", "rows_without_cell")
"""What the `dropped` array counts: trials and positives in emptied slots, rows for an epoch no longer kept, rows
whose cell is not in the grid."""


@kernel
def cell_of(  # type: ignore[no-untyped-def]
    logit, uncertainty, score_low, score_high, score_bins, uncertainty_low, uncertainty_high, uncertainty_bins
):
    """Cell of a prediction; values outside the grid, and NaN, fall into an outer bin.

    >>> int(cell_of(-9.0, -16.0, -9.0, 5.0, 256, -16.0, 0.0, 32)), int(cell_of(99.0, 0.0, -9.0, 5.0, 256, -16.0, 0.0, 32))
    (0, 8191)
    """
    s = (logit - score_low) * (score_bins / (score_high - score_low))
    u = (uncertainty - uncertainty_low) * (uncertainty_bins / (uncertainty_high - uncertainty_low))
    row = np.int64(min(s, score_bins - 1.0)) if s > 0.0 else np.int64(0)
    column = np.int64(min(u, uncertainty_bins - 1.0)) if u > 0.0 else np.int64(0)
    return row * np.int64(uncertainty_bins) + column
