"""What a shop knows of a household at an instant: counts and recency over its purchases strictly before, vectorised."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]

_BITS = 26  # seconds of an instant: 776 days
DAY = 86_400

COUNTS = ("0", "1", "2", "3-4", "5-9", "10-19", "20+")
RECENCIES = ("never", "0", "1-2", "3-6", "7-13", "14-27", "28-55", "56-111", "112+")
"""Names of the buckets: times bought; whole days since."""
_COUNT_EDGES = np.array([1, 2, 3, 5, 10, 20])
_DAY_EDGES = np.array([1, 3, 7, 14, 28, 56, 112]) * DAY


class PurchaseHistory:
    """Purchases by key (such as household and product), to be asked about any instant.

    >>> history = PurchaseHistory(np.array([7, 7]), np.array([100, 200]))
    >>> count, last = history.before(np.array([7, 7, 8]), np.array([200, 201, 201]))
    >>> count.tolist(), last.tolist()
    ([1, 2, 0], [100, 200, -1])
    """

    def __init__(self, key: I64, second: I64) -> None:
        """`key` int64[n], below 2**37; `second` int64[n], seconds from 0 to 2**26 - 1."""
        if len(second) and not (0 <= second.min() and second.max() < 1 << _BITS):
            raise ValueError(f"seconds must lie in 0 .. {(1 << _BITS) - 1}; count them from the log's first day")
        self._sorted = np.sort(key << _BITS | second)

    def before(self, key: I64, second: I64) -> tuple[I64, I64]:
        """How often each key was bought strictly before the second, and when last (-1: never)."""
        first = np.searchsorted(self._sorted, key << _BITS)
        end = np.searchsorted(self._sorted, key << _BITS | second)
        last = np.full(len(key), -1, np.int64)
        some = end > first
        last[some] = self._sorted[end[some] - 1] & ((1 << _BITS) - 1)
        return end - first, last


def count_bucket(count: I64) -> I32:
    """Index into `COUNTS`.

    >>> [COUNTS[k] for k in count_bucket(np.array([0, 4, 1000]))]
    ['0', '3-4', '20+']
    """
    return np.searchsorted(_COUNT_EDGES, count, side="right").astype(np.int32)


def recency_bucket(second: I64, last: I64) -> I32:
    """Index into `RECENCIES` of the time from `last` (-1: never) to `second`.

    >>> [RECENCIES[k] for k in recency_bucket(np.array([90_000, 5]), np.array([0, -1]))]
    ['1-2', 'never']
    """
    bucket = 1 + np.searchsorted(_DAY_EDGES, second - last, side="right")
    return np.where(last < 0, 0, bucket).astype(np.int32)
