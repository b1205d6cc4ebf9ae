"""How much of the graph has a direction: the share of pairs that are bought one way more often than chance allows.

Of a pair seen n times in both orders together, the difference has standard deviation sqrt(n) where the order is a
coin. A pair with at least LEAST observations is called one-way where the difference exceeds 1.96 of these. Among pairs
without direction about one in twenty is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LEAST = 10.0
CRITICAL = 1.96


def significant_share(
    source: npt.NDArray[np.int32], target: npt.NDArray[np.int32], count: npt.NDArray[np.floating], nodes: int
) -> tuple[float, int]:
    """(share of significantly one-way pairs among the tested, number of pairs tested); counts in customers.

    >>> significant_share(np.array([0, 1, 2], np.int32), np.array([1, 0, 3], np.int32), np.array([9.0, 9.0, 12.0]), 4)
    (0.5, 2)
    """
    low, high = np.minimum(source, target).astype(np.int64), np.maximum(source, target)
    candidates = count >= LEAST / 2  # one of the two orders has at least half of the observations
    key = low * nodes + high
    wanted = np.isin(key, key[candidates]) & (source != target)
    pairs, place = np.unique(key[wanted], return_inverse=True)
    onward = np.bincount(place, np.where(source < target, count, 0.0)[wanted], len(pairs))
    backward = np.bincount(place, np.where(source < target, 0.0, count)[wanted], len(pairs))
    total = onward + backward
    tested = total >= LEAST
    one_way = np.abs(onward - backward)[tested] > CRITICAL * np.sqrt(total[tested])
    return (float(one_way.mean()) if len(one_way) else 0.0), int(tested.sum())
