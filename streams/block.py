"""A block: rows of one topic, their features, and the ranges of the sources they came from.

A block is what travels between stages: in memory as a record array, on a topic as one Arrow record batch. Nothing a
kernel reads lies in its header: `clock` is the progress row that stands at its end, and the cut into blocks cannot
matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = np.ndarray[Any, np.dtype[Any]]
Codes = npt.NDArray[np.uint32]
Names = tuple[npt.NDArray[np.uint64], list[str]]

NO_CLOCK = -(2**62)
"""Clock of a source that has not been heard from."""


def no_names() -> Names:
    """No item ids mentioned."""
    return np.zeros(0, np.uint64), []


@dataclass(frozen=True)
class Block:
    """Rows in the order of their topic.

    Parameters
    ----------
    rows : record array of the topic's row type, [n]
    features : uint32 [n, F]
    ranges : for each source (index) that the block covers, the half-open range of its offsets, also where no row
        of it is in the block
    clock : ms; no later block of these sources holds a row below it, late rows apart
    names : hashes and text of the item ids mentioned
    rejected : (type, reason) -> number of raw rows in the ranges that were dead-lettered before they became rows
    tops : for each source the greatest event time read from it, ms
    """

    rows: Rows
    features: Codes
    ranges: dict[int, tuple[int, int]]
    clock: int
    names: Names = field(default_factory=no_names)
    rejected: dict[tuple[str, str], int] = field(default_factory=dict)
    tops: dict[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)
