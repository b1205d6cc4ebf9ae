"""The most recent co-purchases of each item: what a shop shows that learns nothing. A baseline."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from thalweg.graph_store.kernel import kernel

TOP = 10


@kernel
def _latest(source, target, last, found, when):  # type: ignore[no-untyped-def]
    for e in range(source.shape[0]):
        u, v, ts = source[e], target[e], last[e]
        place = found.shape[1]
        while place > 0 and (
            found[u, place - 1] < 0 or when[u, place - 1] < ts or (when[u, place - 1] == ts and found[u, place - 1] > v)
        ):
            place -= 1
        if place < found.shape[1]:
            for k in range(found.shape[1] - 1, place, -1):
                found[u, k] = found[u, k - 1]
                when[u, k] = when[u, k - 1]
            found[u, place] = v
            when[u, place] = ts


def latest_targets(
    source: npt.NDArray[np.int32], target: npt.NDArray[np.int32], last: npt.NDArray[np.int64], nodes: int
) -> npt.NDArray[np.int32]:
    """The ten targets each node was last followed by, newest first, -1 where there are fewer: int32[nodes, 10].

    >>> latest_targets(np.array([0, 0], np.int32), np.array([1, 2], np.int32), np.array([5, 9]), 3)[0, :3].tolist()
    [2, 1, -1]
    """
    found = np.full((nodes, TOP), -1, np.int32)
    _latest(source, target, last, found, np.zeros((nodes, TOP), np.int64))
    return found
