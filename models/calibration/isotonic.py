"""Isotonic regression by pooling adjacent violators.

The non-decreasing sequence nearest to the given one in weighted squares is found in one pass: a block that falls
below the one before it is merged with it, and the merged block compared again (Ayer et al., 1955; Barlow et al.,
1972). Inside an uncertainty level the block rates are also the slopes of the upper hull of (trials, positives), which
is why one cut on them is the best set of thresholds up to one tie group.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from thalweg.graph_store.kernel import kernel

F64 = npt.NDArray[np.float64]


@kernel
def _pool(positives, trials, out_positives, out_trials):  # type: ignore[no-untyped-def]
    n = positives.shape[0]
    start = np.empty(n, np.int64)
    block_positives, block_trials = np.empty(n), np.empty(n)
    blocks = 0
    for i in range(n):
        start[blocks] = i
        block_positives[blocks], block_trials[blocks] = positives[i], trials[i]
        blocks += 1
        while (
            blocks > 1
            and block_positives[blocks - 1] * block_trials[blocks - 2]
            <= block_positives[blocks - 2] * block_trials[blocks - 1]
        ):
            blocks -= 1
            block_positives[blocks - 1] += block_positives[blocks]
            block_trials[blocks - 1] += block_trials[blocks]
    for b in range(blocks):
        end = start[b + 1] if b + 1 < blocks else n
        for i in range(start[b], end):
            out_positives[i], out_trials[i] = block_positives[b], block_trials[b]


def pool_adjacent(positives: F64, trials: F64) -> tuple[F64, F64]:
    """Blocks of the isotonic fit of positives / trials: (positives, trials) of the block each bin belongs to.

    Both float64[n] by ascending score; bins of one block share its sums, and the ratio of the two never falls. A bin
    without trials joins the block before it (or, at the start, the next).

    >>> p, n = pool_adjacent(np.array([1.0, 3.0, 1.0]), np.array([10.0, 10.0, 10.0]))
    >>> (p / n).round(2).tolist()
    [0.1, 0.2, 0.2]
    """
    out_positives, out_trials = np.empty(len(positives)), np.empty(len(positives))
    _pool(np.ascontiguousarray(positives), np.ascontiguousarray(trials), out_positives, out_trials)
    return out_positives, out_trials
